"""How commands end that have started something."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Let signals that ask for the end be exceptions, so that what was started is ended first.

    A signal that our parent ignores (``nohup``) stays ignored.
    """
    def stop(number: int, _: object) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    heard = [number for number in (signal.SIGTERM, signal.SIGHUP)
             if signal.getsignal(number) == signal.SIG_DFL
             and threading.current_thread() is threading.main_thread()]
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)
