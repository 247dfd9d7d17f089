"""Comparisons as tables, on a terminal and where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from unikit.alloc.lab import pictures
from unikit.alloc.lab.comparison import Comparison

_WIDE = 240
_STYLES = {"good": "green", "bad": "red", "dim": "dim", "w": "", "": ""}
_SHOWN = ("processor", "kernel", "libc", "transparent huge pages", "load", "date")


def styled(headers: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], left: int = 1
           ) -> None:
    """Print cells of text and class in columns; the last column of notes may wrap.

    :param left: so many columns are aligned to the left.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _WIDE, highlight=False)
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for at, header in enumerate(headers):
        wraps = header == "notes"
        shown.add_column(Text(header), justify="left" if at < left or wraps else "right",
                         no_wrap=not wraps, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(text, _STYLES[kind]) for text, kind in row))
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
    print(_conditions(found))


def _conditions(found: Comparison) -> str:
    facts, method = found.machine, found.method
    parts = [f"{method['rounds']} rounds in random order, medians, ratios paired by round with "
             "95 % intervals"]
    if method.get("pinned to CPU") is not None:
        parts[0] += f", on CPU {method['pinned to CPU']}"
    parts.append(", ".join(f"{key} {facts[key]}" if key in ("load", "transparent huge pages")
                           else facts[key] for key in _SHOWN if key in facts))
    return "\n".join(parts)
