"""``python -m unikit`` is ``unikit``."""

import os
import signal
import sys


def main() -> int:
    """Run the command so that Ctrl-C ends it in silence from the first import to the last flush.

    Standard streams that are closed are opened on nothing first: else the next file or device to
    be opened would get their number, and with it what is printed.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: PTH123, SIM115
    from unikit import cli
    try:
        signal.signal(signal.SIGINT, before)
        return cli.main()
    except KeyboardInterrupt:
        return 130
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
