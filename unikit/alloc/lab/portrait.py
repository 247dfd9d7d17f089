"""A trace as pictures, as a page and in words: what the program does with memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unikit.alloc.lab import charts, units
from unikit.alloc.lab.page import Page
from unikit.alloc.lab.shape import Shape, SiteUse, shape
from unikit.alloc.lab.trace import Summary, Trace

if TYPE_CHECKING:
    from unikit.alloc.lab.replayer import Result

_SITES = 25
_WIDE, _HALF = 1100, 530  # pixels on a page


@dataclasses.dataclass(frozen=True, slots=True)
class Portrait:
    """A trace, looked at, with replays that show how allocators fare with it.

    :ivar replays: by name; those with samples give curves of memory.
    """

    trace: Trace
    summary: Summary
    shape: Shape
    replays: dict[str, Result]


def portrait(trace: Trace, replays: dict[str, Result] | None = None) -> Portrait:
    """Look at a trace.

    :param replays: results of :func:`unikit.alloc.lab.replay` to show beside it, by name.
    """
    return Portrait(trace, trace.summary(), shape(trace), replays or {})


def title(found: Portrait) -> str:
    """Return what the trace is of."""
    return str(found.trace.facts.get("command") or found.trace.facts.get("program") or "a trace")


def _ns(value: float | None) -> str:
    return units.seconds(None if value is None else value / 1e9)


def figures(found: Portrait) -> list[tuple[str, str]]:
    """Return the trace in numbers: names and texts."""
    summary, look = found.summary, found.shape
    rows = [
        ("recorded", f"{_ns(summary.duration_ns)}, {summary.threads} threads"
                     + ("" if summary.complete else ", cut short")),
        ("requests", f"{summary.allocations + summary.reallocations:,} for "
                     f"{units.size(summary.requested)}, from {summary.sites:,} call sites"),
        ("reallocations", f"{summary.reallocations:,}: {look.grown:,} grew, {look.shrunk:,} "
                          "shrank"),
        ("frees", f"{summary.frees:,}, {summary.remote_frees:,} by another thread"),
        ("sizes", f"half up to {units.size(look.size_quantile(0.5))}, 99 % up to "
                  f"{units.size(look.size_quantile(0.99))}, largest {units.size(summary.largest)}"),
        ("lifetimes", f"half below {_ns(look.life_quantile(0.5))}, 99 % below "
                      f"{_ns(look.life_quantile(0.99))}"),
        ("at the peak", f"{units.size(summary.peak_bytes)} after {_ns(look.peak_ns)}; most "
                        f"blocks {summary.peak_blocks:,}"),
        ("never freed", f"{units.size(summary.live_bytes)} in {summary.live_blocks:,} blocks"),
    ]
    if summary.failures:
        rows.append(("refused requests", f"{summary.failures:,}"))
    if summary.foreign or summary.lost:
        rows.append(("not seen whole", f"{summary.foreign:,} frees of older blocks, "
                                       f"{summary.lost:,} blocks whose free was missed"))
    if summary.damaged:
        rows.append(("damaged", units.size(summary.damaged)))
    return rows


def _sizes(found: Portrait, what: str, name: str, width: int) -> charts.Chart:
    """Return a histogram of sizes by doublings."""
    sums: dict[int, float] = {}
    for each in found.shape.sizes:
        power = max(0, (each.largest - 1).bit_length())
        sums[power] = sums.get(power, 0) + getattr(each, what)
    powers = range(min(sums, default=0), max(sums, default=0) + 1)
    form = units.count if what == "requests" else units.size
    return charts.columns(name, [units.size(1 << power) for power in powers],
                          [sums.get(power, 0) for power in powers], form,
                          ("size up to", "" if what == "requests" else "bytes"),
                          binary=what != "requests", width=width)


def _lives(found: Portrait, width: int) -> charts.Chart:
    lives = found.shape.lives
    used = [power for power, count in enumerate(lives) if count]
    powers = range(min(used, default=0), max(used, default=0) + 1)
    return charts.columns("Lifetimes of blocks that were freed",
                          [_ns(1 << each) for each in powers],
                          [lives[each] for each in powers], units.count,
                          ("lifetime below", "blocks"), width=width, style="ours")


def _heat(found: Portrait, width: int) -> charts.Chart:
    cells = found.shape.heat
    down = [at for at, row in enumerate(cells) if any(row)]
    across = [at for at in range(len(cells[0])) if any(row[at] for row in cells)]
    rows = list(range(min(down, default=0), max(down, default=0) + 1))
    spans = list(range(min(across, default=0), max(across, default=0) + 1))
    return charts.heat("Which sizes live how long (blocks, darker is more)",
                       [_ns(1 << at) for at in spans], [units.size(1 << at) for at in rows],
                       [[cells[row][at] for at in spans] for row in rows], units.count,
                       ("lifetime below", "size below"), width=width)


def _course(found: Portrait, width: int) -> list[charts.Chart]:
    moments = found.shape.moments
    xs = [moment.end / 1e9 for moment in moments]
    step = (xs[-1] / len(xs)) if xs else 1
    live = charts.lines(
        "Memory requested and not freed", xs,
        [charts.Series("most within each stretch", [moment.top_bytes for moment in moments])],
        units.seconds, units.size, ("time", ""), binary=True, width=width)
    rates = charts.lines(
        "Requests and frees per second", xs,
        [charts.Series("requests", [moment.allocations / step for moment in moments]),
         charts.Series("frees", [moment.frees / step for moment in moments])],
        units.seconds, units.count, ("time", ""), width=width)
    return [live, rates]


def _memory(found: Portrait, width: int) -> list[charts.Chart]:
    """Return curves of the memory that allocators take for the same requests."""
    made = []
    for name, result in found.replays.items():
        if not result.samples:
            continue
        done = [float(each.done) for each in result.samples]
        made.append(charts.lines(
            f"Replayed on {name}: memory by operations", done,
            [charts.Series("requested", [each.requested for each in result.samples]),
             charts.Series("given out", [each.used for each in result.samples]),
             charts.Series("backed by pages", [each.touched for each in result.samples])],
            units.count, units.size, ("operations", ""), binary=True, width=width))
    return made


def drawings(found: Portrait, width: int = 720) -> list[charts.Chart]:
    """Return all charts of a trace."""
    return [*_course(found, width), _sizes(found, "requests", "Requests by size", width),
            _sizes(found, "peak_bytes", "Bytes alive at the peak, by size", width),
            _lives(found, width), _heat(found, width), *_memory(found, width)]


def draw(found: Portrait, path: Path) -> None:
    """Draw a trace into a file; see :func:`unikit.alloc.lab.pictures.save`."""
    from unikit.alloc.lab import pictures
    pictures.save(drawings(found), title(found), path, lambda: _figure(found))


def _figure(found: Portrait) -> object:
    """Return a matplotlib figure: memory over time, sizes, lifetimes."""
    from unikit.alloc.lab import pictures
    library = pictures.matplotlib()
    figure = library.figure.Figure(figsize=(11, 7.5))
    moments, look = found.shape.moments, found.shape
    axes = figure.add_subplot(2, 1, 1)
    xs = [moment.end / 1e9 for moment in moments]
    axes.fill_between(xs, [moment.top_bytes / 2**20 for moment in moments], alpha=0.3,
                      color="#1f7a5c", step="pre")
    axes.set_xlabel("time, s")
    axes.set_ylabel("requested and not freed, MiB")
    axes.set_xlim(0, xs[-1] if xs else 1)
    axes = figure.add_subplot(2, 2, 3)
    axes.bar([max(each.largest, 1) for each in look.sizes], [each.requests for each in look.sizes],
             [max(each.largest, 1) * 0.2 for each in look.sizes], color="#3d6fd6")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("size, bytes")
    axes.set_ylabel("requests")
    axes = figure.add_subplot(2, 2, 4)
    used = [power for power, blocks in enumerate(look.lives) if blocks]
    axes.bar([2.0 ** power / 1e9 for power in used], [look.lives[power] for power in used],
             [2.0 ** power / 1e9 * 0.5 for power in used], color="#1f7a5c")
    axes.set_xscale("log")
    axes.set_xlabel("lifetime, s")
    axes.set_ylabel("blocks freed")
    for each in figure.axes:
        each.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title(found), fontsize=10)
    figure.tight_layout()
    return figure


SITE_HEADERS = ("call site", "requests", "bytes", "mean size", "at the peak", "mean life",
                "never freed", "module")


def site_rows(sites: Sequence[SiteUse]) -> list[list[tuple[str, str]]]:
    """Return what call sites asked for, as cells of text and class."""
    made = []
    for use in sites:
        place = use.site.place.rpartition("/")[2]
        made.append([(f"{use.site.name}" + (f" ({place})" if place else ""), "w"),
                     (units.count(use.requests), ""), (units.size(use.bytes), ""),
                     (units.size(use.bytes / use.requests), ""), (units.size(use.peak_bytes), ""),
                     (_ns(use.life_ns), ""),
                     (units.size(use.live_bytes) if use.live_blocks else "", "dim"),
                     (Path(use.site.module).name, "dim")])
    return made


def page(found: Portrait) -> Page:
    """Return a trace as a page."""
    facts = found.trace.facts
    made = Page(f"What it allocates: {title(found)}",
                ", ".join(str(facts[key]) for key in ("allocator", "cpu", "kernel")
                          if facts.get(key)))
    made.facts(figures(found))
    made.heading("Over time")
    made.chart(_course(found, _WIDE)[0])
    made.chart(_course(found, _WIDE)[1])
    made.heading("Sizes and lifetimes")
    made.chart(_sizes(found, "requests", "Requests by size", _HALF),
               _sizes(found, "peak_bytes", "Bytes alive at the peak, by size", _HALF))
    made.chart(_lives(found, _HALF), _heat(found, _HALF))
    if curves := _memory(found, _WIDE):
        made.heading("Fragmentation")
        made.text("The same operations replayed: what was asked for, what the allocator gave out "
                  "for it with rounding and padding, and what the kernel had to back.")
        for curve in curves:
            made.chart(curve)
        made.table(("allocator", "peak requested", "peak given out", "peak backed",
                    "backed / requested", "at the end"),
                   [waste_row(name, result) for name, result in found.replays.items()])
    made.heading("Who asks")
    shown = found.shape.sites[:_SITES]
    made.text(f"The {len(shown)} call sites with most memory at the peak, of "
              f"{len(found.shape.sites)} that asked.")
    made.table(SITE_HEADERS, site_rows(shown))
    return made


def waste_row(name: str, result: Result) -> list[tuple[str, str]]:
    """Return the memory a replay took, as cells of text and class."""
    last = result.fragmentation()
    return [(name, ""), (units.size(result.peak_requested), ""), (units.size(result.peak_used), ""),
            (units.size(result.peak_touched), ""), (f"{result.overhead:.2f}", ""),
            (f"{units.percent(last[-1][1])} empty" if last else "n/a", "")]
