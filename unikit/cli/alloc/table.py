"""Comparisons as tables, on a terminal and where nobody looks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

from unikit.alloc.lab.comparison import Comparison, Row, Spread

_WIDE = 240
PERCENTILES = ("p50", "p99", "p99.99", "max")
Cell = tuple[str, str]
"""Text and style."""


def seconds(value: float | None) -> str:
    """Return a time with three digits that count."""
    if value is None:
        return "n/a"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1 or unit == "us":
            return f"{_three(value * scale)} {unit}"
    return ""


def mebibytes(value: float | None) -> str:
    """Return an amount of memory with three digits that count."""
    if value is None:
        return "n/a"
    return f"{_three(value / 2**20)} MiB" if value < 2**30 else f"{_three(value / 2**30)} GiB"


def count(value: float | None) -> str:
    """Return a number with thousands apart."""
    return "n/a" if value is None else f"{value:,.0f}"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def ratio(found: Spread | None, row: Row, less: bool = True) -> Cell:
    """Return a ratio with its interval; coloured only if it is more than noise."""
    if found is None:
        return "", ""
    if row.kind == "baseline":
        return "1", "dim"
    text = f"{found.median:.2f} [{found.low:.2f}-{found.high:.2f}]"
    if not found.certain:
        return text, "dim"
    return text, "green" if (found.median < 1) == less else "red"


def show(found: Comparison) -> None:
    """Print a comparison."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    wide = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if wide else _WIDE, highlight=False)
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    columns = _columns(found)
    for at, (header, _) in enumerate(columns):
        left = at < 2 or header == "notes"
        shown.add_column(Text(header), justify="left" if left else "right",
                         no_wrap=header != "notes", overflow="fold")
    for row in found.ranked():
        shown.add_row(*(Text(*cell(row)) for _, cell in columns))
    with console.capture() as capture:
        console.print(shown)
    print(_title(found))
    print()
    for line in capture.get().splitlines():
        print(line.rstrip())
    print()
    print(found.verdict())
    for note in found.notes:
        print(f"- {note}")
    print(_conditions(found))


def _title(found: Comparison) -> str:
    subject = found.subject
    if subject["kind"] == "trace":
        return str(subject["trace"])
    load = f", loaded by: {subject['load']}" if subject.get("load") else ""
    return shlex.join(subject["words"]) + load


def _columns(found: Comparison) -> list[tuple[str, Callable[[Row], Cell]]]:
    """Return the columns that have something to show: header and what makes a cell."""
    columns: list[tuple[str, Callable[[Row], Cell]]] = [
        ("allocator", lambda row: (row.name, "red" if row.lost else
                                   "bold" if row.kind == "component" else "")),
        ("version", lambda row: (row.version, "dim"))]

    def measure(header: str, what: str, form: Callable[[float | None], str], less: bool = True
                ) -> None:
        if any(row.median(what) is not None for row in found.rows):
            columns.append((header, lambda row: (form(row.median(what)) if row.runs else "-", "")))
            columns.append(("/ glibc", lambda row: ratio(found.ratio(row, what), row, less)))

    measure("CPU time", "cpu", seconds)
    measure("elapsed", "wall", seconds)
    measure("load, 1/s", "throughput", count, less=False)
    measure("peak RSS", "peak", mebibytes)
    measure("after load", "settled", mebibytes)
    columns.append(("faults", lambda row: (count(row.median("faults")) if row.runs else "-", "")))
    columns += _operations(found)
    if any(row.failures or row.notes for row in found.rows):
        columns.append(("notes", lambda row: (remarks(row), "red" if row.lost else "dim")))
    return columns


def _operations(found: Comparison) -> list[tuple[str, Callable[[Row], Cell]]]:
    """Return the columns of a replay: latency of single operations, fragmentation."""
    if not any(row.operations for row in found.rows):
        return []

    def latency(what: str) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            values = (row.operations or {}).get(what)
            if not values:
                return "n/a", "dim"
            return " / ".join(f"{values[each]:,.0f}" for each in PERCENTILES), ""
        return cell

    def waste(row: Row) -> Cell:
        value = (row.operations or {}).get("fragmentation")
        return ("n/a", "dim") if value is None else (f"{value:.0%}", "")

    return [("malloc p50 / p99 / p99.99 / max, ns", latency("malloc")),
            ("free p50 / p99 / p99.99 / max, ns", latency("free")), ("fragmentation", waste)]


def remarks(row: Row) -> str:
    """Return failures, equal ones counted, and notes of a row."""
    kinds = {text: row.failures.count(text) for text in row.failures}
    runs = len(row.failures) + len(row.runs)
    said = [f"{text} ({times} of {runs} runs)" if runs > 1 else text
            for text, times in kinds.items()]
    return "; ".join(["FAILED: " + ", ".join(said)] * bool(said) + row.notes)


def _conditions(found: Comparison) -> str:
    facts, method = found.machine, found.method
    parts = [f"{method['rounds']} rounds in random order, medians, ratios paired by round with "
             "95 % intervals"]
    if method.get("pinned to CPU") is not None:
        parts.append(f"on CPU {method['pinned to CPU']}")
    parts.append(", ".join(f"{key} {facts[key]}" if key in ("load", "transparent huge pages")
                           else facts[key] for key in ("processor", "kernel", "libc",
                                                       "transparent huge pages", "load", "date")
                           if key in facts))
    return "\n".join(parts)
