"""A comparison as pictures and as a page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unikit.alloc.lab import charts, units
from unikit.alloc.lab.comparison import Comparison, Row, Spread
from unikit.alloc.lab.page import Page
from unikit.errors import InvalidArgument, NotSupported

PERCENTILES = ("p50", "p99", "p99.99", "max")
_TABLE = 150  # letters that fit side by side on a page
_KINDS = {"baseline": "base", "component": "ours"}
KEY = (("base", "baseline"), ("ours", "components of unikit"), ("other", "others"),
       ("lost", "failed"))


def subject(found: Comparison) -> str:
    """Return what was compared, in one line."""
    what = found.subject
    if what["kind"] == "trace":
        return str(what["trace"])
    load = f", loaded by: {what['load']}" if what.get("load") else ""
    return shlex.join(what["words"]) + load


def remarks(row: Row) -> str:
    """Return failures, equal ones counted, and notes of a row."""
    kinds = {text: row.failures.count(text) for text in row.failures}
    runs = len(row.failures) + len(row.runs)
    said = [f"{text} ({times} of {runs} runs)" if runs > 1 else text
            for text, times in kinds.items()]
    return "; ".join(["FAILED: " + ", ".join(said)] * bool(said) + row.notes)


def _chart(found: Comparison, what: str, title: str, form: Callable[[float | None], str],
           width: int, more: bool = False) -> charts.Chart:
    rows = []
    for row in found.ranked(what)[::-1] if more else found.ranked(what):
        median, ratio = row.median(what), found.ratio(row, what)
        style = _KINDS.get(row.kind, "other")
        if row.lost or ratio is None or median is None:
            why = row.failures[0] if row.failures else "n/a"
            rows.append(charts.Bar(row.name, None, text=why))
            continue
        text = form(median) if row is found.baseline else f"{ratio.median:.2f}  ({form(median)})"
        rows.append(charts.Bar(row.name, ratio.median, ratio.low, ratio.high, text, style))
    return charts.bars(title, rows, lambda value: f"{value or 0:g}", mark=1.0, width=width)


def drawings(found: Comparison, width: int = 720) -> list[charts.Chart]:
    """Return the charts of a comparison: time, memory, one against the other, latency."""
    per = " per request" if found.principal == "cost" else ""
    made = [_chart(found, found.principal,
                   f"CPU time{per} / {found.baseline.name} (less is better)", units.seconds, width)]
    if found.baseline.median("throughput") is not None:
        made.append(_chart(found, "throughput", "Throughput of the load / "
                           f"{found.baseline.name} (more is better)", units.count, width, True))
    if found.baseline.median("peak") is not None:
        made.append(_chart(found, "peak", f"Peak memory / {found.baseline.name} (less is better)",
                           units.size, width))
        made.append(_plane(found, width))
    return made + _latency(found, width)


def _plane(found: Comparison, width: int) -> charts.Chart:
    points = []
    for row in found.rows:
        time, memory = found.ratio(row, found.principal), found.ratio(row, "peak")
        if not row.lost and time and memory:
            points.append(charts.Point(row.name, time.median, memory.median,
                                       _KINDS.get(row.kind, "other")))
    return charts.scatter("Time against memory, both as ratios (lower left is better)", points,
                          lambda value: f"{value or 0:g}", lambda value: f"{value or 0:g}",
                          ("CPU time", "peak memory"), mark=(1.0, 1.0), width=width)


def _latency(found: Comparison, width: int) -> list[charts.Chart]:
    made = []
    for what in ("malloc", "free"):
        for each in ("p99.99", "max"):
            values = {row.name: (row, row.operations[what][each]) for row in found.rows
                      if row.operations and row.operations.get(what)}
            if values:
                bars = [charts.Bar(name, value, text=f"{value:,.0f} ns",
                                   style=_KINDS.get(row.kind, "other"))
                        for name, (row, value) in sorted(values.items(), key=lambda kv: kv[1][1])]
                made.append(charts.bars(f"One {what}: {each}, ns (less is better)", bars,
                                        width=width))
    return made


def draw(found: Comparison, path: Path) -> None:
    """Draw a comparison into a file.

    :param path: ``.svg`` needs nothing; ``.png`` and ``.pdf`` need matplotlib.
    :raises InvalidArgument: another ending.
    :raises NotSupported: matplotlib is missing.
    """
    save(drawings(found), subject(found), path, lambda: _figure(found))


def check(path: Path) -> None:
    """Make sure that a picture can be written, before an hour is spent on its contents.

    :raises InvalidArgument: the name's ending is not known, or there is no such folder.
    :raises NotSupported: matplotlib is missing.
    """
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise InvalidArgument(f"{path.name}: give a name that ends in .svg, .png or .pdf")
    if not path.absolute().parent.is_dir():
        raise InvalidArgument(f"{path}: there is no folder {path.absolute().parent}")
    if path.suffix != ".svg":
        matplotlib()


def save(made: Sequence[charts.Chart], title: str, path: Path, figure: Callable[[], Any]) -> None:
    """Write charts to a file: ``.svg`` as they are, ``.png`` and ``.pdf`` by matplotlib.

    :param figure: makes the matplotlib figure.
    :raises InvalidArgument: another ending.
    :raises NotSupported: matplotlib is missing.
    """
    check(path)
    if path.suffix == ".svg":
        from unikit import cache
        cache.write(path, charts.standalone(made, title).encode())
    else:
        figure().savefig(path, dpi=140, bbox_inches="tight")


def matplotlib() -> Any:
    """Return matplotlib, set to draw without a display.

    :raises NotSupported: it is not installed; the message says what to do.
    """
    try:
        found = import_module("matplotlib")
        import_module("matplotlib.figure")
    except ImportError as error:
        raise NotSupported("drawing .png and .pdf needs matplotlib: pip install 'unikit-os[plot]'; "
                           ".svg and --report need nothing") from error
    return found


def _figure(found: Comparison) -> Any:
    """Return a matplotlib figure with time and memory."""
    library = matplotlib()
    measures = [(found.principal, "CPU time"), ("peak", "peak memory")]
    measures = [each for each in measures if found.baseline.median(each[0]) is not None]
    height = 1.3 + 0.32 * len(found.rows)
    figure = library.figure.Figure(figsize=(5.2 * len(measures), height))
    colours = {"baseline": "#8a94a6", "component": "#1f7a5c"}
    for at, (what, name) in enumerate(measures):
        axes = figure.add_subplot(1, len(measures), at + 1)
        rows = found.ranked(what)[::-1]
        for y, row in enumerate(rows):
            ratio = found.ratio(row, what)
            if row.lost or ratio is None:
                axes.text(0.02, y, row.failures[0] if row.failures else "n/a", va="center",
                          color="#c2372e")
                continue
            error = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
            axes.barh(y, ratio.median, 0.6, xerr=error, ecolor="#1c2430",
                      color=colours.get(row.kind, "#3d6fd6"))
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.axvline(1, color="#667085", linestyle="--", linewidth=1)
        axes.set_xlabel(f"{name} / {found.baseline.name}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(subject(found), fontsize=10)
    figure.tight_layout()
    return figure


def page(found: Comparison) -> Page:
    """Return a comparison as a page."""
    made = Page(f"Allocators compared: {subject(found)}", found.machine.get("date", ""))
    made.text(found.verdict() + ".", "lead")
    fill(made, found)
    return made


def fill(made: Page, found: Comparison) -> None:
    """Add charts, figures, notes and conditions of a comparison to a page."""
    made.key(KEY)
    wide, pairs = drawings(found, 1100), drawings(found, 530)
    made.chart(wide[0])
    memory = next((at for at, chart in enumerate(wide) if chart.title.startswith("Peak")), None)
    if memory is not None:
        made.chart(pairs[memory], pairs[memory + 1])
        rest = pairs[1:memory] + pairs[memory + 2:]
    else:
        rest = pairs[1:]
    for at in range(0, len(rest), 2):
        made.chart(*rest[at:at + 2])
    made.heading("All figures")
    headers, cells = rows(found)
    for chosen in parts(headers, cells, _TABLE):
        made.table([headers[at] for at in chosen],
                   [[row[at] for at in chosen] for row in cells], left=2 if 1 in chosen else 1)
    if found.notes:
        made.heading("Notes")
        for note in found.notes:
            made.text(note)
    made.heading("How it was measured")
    made.facts([*((key, str(value)) for key, value in found.method.items() if value is not None),
                *found.machine.items()])


def rows(found: Comparison) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """Return a comparison as headers and cells of text and class."""
    measures = [each for each in _MEASURES
                if any(row.median(each[1]) is not None for row in found.rows)]
    headers = ["allocator", "version"]
    for header, *_ in measures:
        headers += [header, f"/ {found.baseline.name}"]
    operations = any(row.operations for row in found.rows)
    if operations:
        headers += ["malloc p50/p99/p99.99/max, ns", "free p50/p99/p99.99/max, ns",
                    "fragmented"]
    faults = any(row.median("faults") for row in found.rows)
    headers += ["faults"] * faults
    said = any(row.failures or row.notes for row in found.rows)
    headers += ["notes"] * said
    table = []
    for row in found.ranked():
        cells = [(row.name, "bad" if row.lost else ""), (row.version, "dim")]
        for _, what, form, less in measures:
            cells.append((form(row.median(what)) if row.runs else "-", ""))
            cells.append(ratio_cell(found.ratio(row, what), row, less))
        if operations:
            cells += operation_cells(row)
        if faults:
            cells.append((units.count(row.median("faults")) if row.runs else "-", ""))
        cells += [(remarks(row), "w")] * said
        table.append(cells)
    return headers, table


def parts(headers: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], room: int,
          gap: int = 2) -> list[list[int]]:
    """Return which columns stand in which of several tables; a ratio stays with its figure.

    :param room: letters that a table may be wide.
    :param gap: letters between columns.
    """
    widths = [max([len(header), *(len(row[at][0]) for row in rows)]) + gap
              for at, header in enumerate(headers)]
    found, used = [[0]], widths[0]
    at = 1
    while at < len(headers):
        pair = 2 if at + 1 < len(headers) and headers[at + 1].startswith("/ ") else 1
        need = min(sum(widths[at:at + pair]), 24 if headers[at] == "notes" else room)
        if used + need > room and len(found[-1]) > 1:
            found.append([0])
            used = widths[0]
        found[-1] += range(at, at + pair)
        used += need
        at += pair
    return found


_MEASURES: Sequence[tuple[str, str, Callable[[float | None], str], bool]] = (
    ("CPU/request", "cost", units.seconds, True), ("CPU time", "cpu", units.seconds, True),
    ("elapsed", "wall", units.seconds, True),
    ("load, 1/s", "throughput", units.count, False), ("peak RSS", "peak", units.size, True),
    ("after load", "settled", units.size, True))


def ratio_cell(found: Spread | None, row: Row, less: bool = True) -> tuple[str, str]:
    """Return a ratio with its interval; ``good`` or ``bad`` only if it is more than noise."""
    if found is None:
        return "", ""
    if row.kind == "baseline":
        return "1", "dim"
    if not found.certain:
        return units.ratio(found), "dim"
    return units.ratio(found), "good" if (found.median < 1) == less else "bad"


def operation_cells(row: Row) -> list[tuple[str, str]]:
    """Return what a replay found: latencies of single operations, fragmentation."""
    found = row.operations or {}
    cells = []
    for what in ("malloc", "free"):
        values = found.get(what)
        cells.append(("n/a", "dim") if not values else
                     (" / ".join(f"{values[each]:,.0f}" for each in PERCENTILES), ""))
    waste = found.get("fragmentation")
    cells.append(("n/a", "dim") if waste is None else (units.percent(waste), ""))
    return cells
