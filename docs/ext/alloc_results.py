"""Turn the tables in ``benchmarks/results/alloc-*.json`` into the page about allocators.

``.. allocator-results:: suite`` (or programs, latency, instructions, calibration) stands for tables
and charts of the last recorded run.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from unikit.alloc.lab import charts

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"
NONE = "None has been recorded in this tree."
LOSS = 10.0
HEAVY_KIB = 8 << 10


def table(head: Sequence[str], rows: Iterable[Sequence[str]], first: int = 22) -> list[str]:
    """Return a list-table."""
    widths = [first] + [max(6, (100 - first) // max(len(head) - 1, 1))] * (len(head) - 1)
    lines = ["", ".. list-table::", "   :header-rows: 1",
             f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in [head, *rows]:
        lines += [f"   {'* -' if index == 0 else '  -'} {cell}" for index, cell in enumerate(row)]
    return [*lines, ""]


def picture(*all_charts: charts.Chart) -> list[str]:
    """Return charts as they stand in the page."""
    svg = "".join(f"<p>{chart.svg()}</p>" for chart in all_charts)
    text = f"<style>{charts.STYLE}{charts.COLOURS}</style>{svg}".replace("\n", " ")
    return ["", ".. raw:: html", "", f"   {text}", ""]


def geomean(values: Iterable[float | None]) -> float:
    """Return the geometric mean, what is missing counted as lost."""
    return math.exp(statistics.fmean(math.log(LOSS if value is None else value)
                                     for value in values))


def ratio(value: float | None, failure: str = "") -> str:
    """Write a ratio, or why there is none."""
    return f"**{failure or 'failed'}**" if value is None else f"{value:.2f}"


def style(name: str, ours: Sequence[str]) -> str:
    """Return the colour of an allocator."""
    return "base" if name == "glibc" else "ours" if name in ours else "other"


def conditions(found: dict[str, Any]) -> str:
    """Write how a table came about."""
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    parts = [f"Versions: {versions}."]
    if "huge_pages" in found:
        parts.append(f"Transparent huge pages: {found['huge_pages']}. Rounds: {found['rounds']}.")
    return " ".join([*parts, f"Machine: {machine}. Recorded {found.get('date', '')}."])


def ratios(found: dict[str, Any], tests: Sequence[str], field: str) -> list[str]:
    """Return a table of ratios to glibc with the geometric mean below."""
    rows = found["tests"]
    names = [name for name in rows[tests[0]] if name != "glibc"]
    base = "cpu_s" if field == "time" else "peak_kib"
    unit = "glibc, s" if field == "time" else "glibc, MiB"
    scale = 1 if field == "time" else 1 / 1024
    body = [[test, f"{rows[test]['glibc'][base] * scale:.3g}",
             *(ratio(rows[test][name].get(field), rows[test][name]["failure"]) for name in names)]
            for test in tests]
    means = ["**geometric mean**", "", *(
        f"**{geomean(rows[test][name].get(field) for test in tests):.3f}**" for name in names)]
    return table([f"{field} / glibc", unit, *names], [*body, means])


def overview(found: dict[str, Any], title: str) -> list[str]:
    """Return the charts of a suite: means of time, and time against memory."""
    rows, ours = found["tests"], found["ours"]
    names = list(next(iter(rows.values())))
    time = {name: geomean(row[name].get("time") for row in rows.values()) for name in names}
    heavy = [row for row in rows.values() if row["glibc"]["peak_kib"] > HEAVY_KIB]
    memory = {name: geomean(row[name].get("memory") for row in heavy) for name in names}
    return picture(
        charts.bars(f"{title}: CPU time, geometric mean of ratios to glibc", [
            charts.Bar(name, value, text=f"{value:.3f}", style=style(name, ours))
            for name, value in sorted(time.items(), key=lambda item: item[1])],
            lambda value: f"{value:.2g}", mark=1.0),
        charts.scatter(f"{title}: time and memory", [
            charts.Point(name, time[name], memory[name], style(name, ours)) for name in names],
            lambda value: f"{value:.2f}", lambda value: f"{value:.2f}",
            ("CPU time / glibc", f"peak RSS / glibc, {len(heavy)} tests above 8 MiB"),
            mark=(1.0, 1.0)))


def suite(found: dict[str, Any]) -> list[str]:
    """Return the patterns."""
    tests = list(found["tests"])
    heavy = [test for test in tests if found["tests"][test]["glibc"]["peak_kib"] > HEAVY_KIB]
    return [*overview(found, "Patterns"), "CPU time of the process, as a ratio to glibc:",
            *ratios(found, tests, "time"),
            "Peak resident memory of all tests, as a ratio to glibc:",
            *ratios(found, tests, "memory"),
            "The same of those in which glibc needs more than 8 MiB, where the figure says "
            "something about the allocator rather than about the size of its library:",
            *ratios(found, heavy, "memory"), conditions(found), ""]


def programs(found: dict[str, Any]) -> list[str]:
    """Return the real programs."""
    tests = list(found["tests"])
    return [*overview(found, "Programs"), "CPU time, as a ratio to glibc:",
            *ratios(found, tests, "time"), "Peak resident memory, as a ratio to glibc:",
            *ratios(found, tests, "memory"), conditions(found), ""]


def latency(found: dict[str, Any]) -> list[str]:
    """Return the cycles of single operations."""
    lines: list[str] = []
    for mix, rows in found["cycles"].items():
        lines += [f"Sizes: {found['mixes'][mix]}. Cycles, {' / '.join(found['shares'])}:", ""]
        lines += table(["allocator", "malloc", "free"], [
            [name, *(" / ".join(map(str, row[call])) for call in ("malloc", "free"))]
            for name, row in rows.items()])
    empty = next(iter(next(iter(found["cycles"].values())).values()))["empty"][0]
    return [*lines, f"Reading the clock twice costs {empty} cycles, which are within all figures. "
            + conditions(found), ""]


def instructions(found: dict[str, Any]) -> list[str]:
    """Return the instruction counts."""
    counts = {name: row for name, row in found["counts"].items() if not isinstance(row, str)}
    ours = [name for name in counts if found["versions"].get(name) == "this tree" or
            name.endswith(", bound")]
    chart = charts.bars("Instructions of a malloc and a free, random replacement", [
        charts.Bar(name, row["replace"], text=f"{row['replace']:.1f}", style=style(name, ours))
        for name, row in sorted(counts.items(), key=lambda item: item[1]["replace"])],
        lambda value: f"{value:.0f}")
    return [*picture(chart), *table(["allocator", *found["patterns"].values()], [
        [name, *(f"{row[pattern]:.1f}" for pattern in found["patterns"])]
        for name, row in counts.items()]), conditions(found), ""]


def calibration(found: dict[str, Any]) -> list[str]:
    """Return how near the patterns are to what they follow."""
    lines: list[str] = []
    for name in found["allocators"]:
        rows = []
        for test, row in found["tests"].items():
            one = row[name]
            rows.append([test, *(f"{one[key]:.2f}" if one.get(key) else "–"
                                 for key in ("facts", "original", "ours")),
                         f"{one['off']:+.0%}" if one.get("off") is not None else "–"])
        lines += [f"{name}, CPU time as a ratio to glibc:",
                  *table(["test", "published", "original", "ours", "ours is off by"], rows)]
    return [*lines, *(f"* {note}" for note in found["notes"]), "", conditions(found), ""]


PARTS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "suite": suite, "programs": programs, "latency": latency, "instructions": instructions,
    "calibration": calibration}


def rst(part: str) -> list[str]:
    """Return the generated text of one part."""
    path = RESULTS / f"alloc-{part}.json"
    return PARTS[part](json.loads(path.read_text())) if path.exists() else ["", NONE, ""]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive ``allocator-results``."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective
    from sphinx.util.nodes import nested_parse_with_titles

    class AllocatorResults(SphinxDirective):
        """``.. allocator-results:: suite``"""

        required_arguments = 1

        def run(self) -> list[nodes.Node]:
            """Parse the generated text in place."""
            self.env.note_dependency(str(RESULTS / f"alloc-{self.arguments[0]}.json"))
            container = nodes.section()
            container.document = self.state.document
            nested_parse_with_titles(self.state, StringList(rst(self.arguments[0]), "results"),
                                     container)
            return container.children

    app.add_directive("allocator-results", AllocatorResults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
