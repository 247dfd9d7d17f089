"""Comparisons as tables, on a terminal and where nobody looks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from unikit.alloc.lab import pictures
from unikit.alloc.lab.comparison import Comparison

_WIDE, _GAP = 400, 2
_STYLES = {"good": "green", "bad": "red", "dim": "dim", "w": "", "": ""}
_SHOWN = ("processor", "kernel", "libc", "transparent huge pages", "load", "date")


def styled(headers: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], left: int = 1
           ) -> None:
    """Print cells of text and class in columns.

    On a terminal too narrow for all, in several tables one below the other, each with the first
    column; notes may wrap.

    :param left: so many columns are aligned to the left.
    """
    terminal = sys.stdout.isatty()
    room = shutil.get_terminal_size().columns if terminal else _WIDE
    for at, chosen in enumerate(pictures.parts(headers, rows, room, _GAP)):
        if at:
            print()
        _table(headers, rows, chosen, left, room)


def _table(headers: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]],
           chosen: Sequence[int], left: int, room: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    console = Console(file=sys.stdout, width=room, highlight=False)
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for at in chosen:
        wraps = headers[at] == "notes"
        shown.add_column(Text(headers[at]), justify="left" if at < left or wraps else "right",
                         no_wrap=not wraps, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(row[at][0], _STYLES[row[at][1]]) for at in chosen))
    with console.capture() as capture:
        console.print(shown)
    for line in capture.get().splitlines():
        print(line.rstrip())


def show(found: Comparison) -> None:
    """Print a comparison: table, verdict, notes, conditions."""
    print(pictures.subject(found))
    print()
    styled(*pictures.rows(found), left=2)
    print()
    print(found.verdict())
    for note in found.notes:
        print(f"- {note}")
    print(conditions(found))


def conditions(found: Comparison) -> str:
    """Return under which conditions it was measured, in lines."""
    facts, method = found.machine, found.method
    parts = [f"{method['rounds']} rounds in random order, medians, ratios paired by round with "
             "95 % intervals"]
    if method.get("pinned to CPU") is not None:
        parts[0] += f", on CPU {method['pinned to CPU']}"
    parts.append(", ".join(f"{key} {facts[key]}" if key in ("load", "transparent huge pages")
                           else facts[key] for key in _SHOWN if key in facts))
    return "\n".join(parts)
