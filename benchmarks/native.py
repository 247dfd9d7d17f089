"""Compile and run the C programs of ``native/``: the yardsticks of the claims."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent


@contextmanager
def compiled(name: str, *flags: str) -> Iterator[Path]:
    """Compile ``native/NAME.c`` and yield the program; it is gone afterwards."""
    with TemporaryDirectory(prefix="unikit-bench-") as folder:
        target = Path(folder) / name
        subprocess.run(["gcc", "-O2", "-pthread", *flags, HERE / "native" / f"{name}.c", "-o",
                        target], check=True)
        yield target


class Asked:
    """A yardstick that measures once for each line it is given and answers with one number."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True)

    def __call__(self) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the program."""
        self._process.communicate(timeout=10)
