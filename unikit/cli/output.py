"""What commands print: tables and progress, by rich; plain lines where nobody looks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_WIDE = 400


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns, one line a row where the output is no terminal.

    :param headers: of the columns; empty texts: no header line.
    :param rows: cells, shown by ``str``.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    shown = Table(box=None, pad_edge=False, show_header=any(headers), header_style="bold")
    for header in headers:
        shown.add_column(Text(header), overflow="fold")
    for row in rows:
        shown.add_row(*(Text(str(cell)) for cell in row))
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _WIDE, highlight=False)
    with console.capture() as capture:
        console.print(shown)
    for line in capture.get().splitlines():
        print(line.rstrip())


@contextmanager
def progress(doing: str, after: float = 1.0) -> Iterator[None]:
    """Say what takes so long, once it does: a spinner on a terminal, else one line."""
    if sys.stderr.isatty():
        with _spinner(doing, after):
            yield
        return
    done = threading.Event()

    def watch() -> None:
        if not done.wait(after):
            sys.stderr.write(f"unikit: {doing} ...\n")
            sys.stderr.flush()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextmanager
def _spinner(doing: str, after: float) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        if done.wait(after):
            return
        from rich.console import Console
        with Console(stderr=True).status(f"{doing} ..."):
            done.wait()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
