"""``unikit alloc <verb>``: tools for allocators and for programs that allocate.

The grammar stands in :mod:`unikit.cli.alloc.grammar`; a verb is the function ``do_<verb>`` of the
module of that name. Programs under test are started here and nowhere in :mod:`unikit.alloc`.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from importlib import import_module


def do_alloc(choice: argparse.Namespace) -> int:
    """Run the verb that was chosen."""
    home = import_module(f"unikit.cli.alloc.{choice.tool}")
    act: Callable[[argparse.Namespace], int] = getattr(home, f"do_{choice.tool}")
    with _orderly():
        return act(choice)


@contextlib.contextmanager
def _orderly() -> Iterator[None]:
    """Let signals that ask for the end be errors: a process that is recorded gets its words back.

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


def after_dashes(choice: argparse.Namespace) -> list[str] | None:
    """Return the words after the first ``--`` exactly as given, or ``None`` without one."""
    words: list[str] = choice.words
    return words[words.index("--") + 1:] if "--" in words else None
