"""``unikit alloc <verb>``: tools for allocators and for programs that allocate.

The grammar stands in :mod:`unikit.cli.alloc.grammar`; a verb is the function ``do_<verb>`` of the
module of that name. Programs under test are started here and nowhere in :mod:`unikit.alloc`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from unikit.cli.ending import orderly


def do_alloc(choice: argparse.Namespace) -> int:
    """Run the verb that was chosen."""
    home = import_module(f"unikit.cli.alloc.{choice.tool}")
    act: Callable[[argparse.Namespace], int] = getattr(home, f"do_{choice.tool}")
    with orderly():
        return act(choice)


def after_dashes(choice: argparse.Namespace) -> list[str] | None:
    """Return the words after the first ``--`` exactly as given, or ``None`` without one."""
    words: list[str] = choice.words
    return words[words.index("--") + 1:] if "--" in words else None
