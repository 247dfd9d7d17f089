"""Turn ``benchmarks/results/sched-lab.json`` and the schedulers' claims into their page.

``.. scheduler-results:: NAME`` stands for the table and chart of one measurement of the last
recorded run; ``.. scheduler-claims::`` for every recorded claim about schedulers, by goal.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import alloc_results
import results

from unikit.alloc.lab import charts, units

LAB = results.RESULTS / "sched-lab.json"
NONE = "None has been recorded in this tree; ``pytest benchmarks/bench_sched_lab.py`` records it."
GOALS = (
    ("S1", "switch and yield", ("sched_contexts", "sched_switch", "sched_yield")),
    ("S2", "a task's whole life", ("sched_spawn", "sched_life")),
    ("S3", "cost among many sleepers", ("sched_sleepers", "sched_timers", "sched_pick")),
    ("S4", "guarantees", ("sched_sets", "sched_lag")),
    ("S5", "from Python", ("aio_", "sched_aio", "sched_asyncio", "sched_fiber", "fiber_")),
    ("S6", "preemption", ("preempt", "sched_preempt")),
    ("S7", "waking another processor", ("smp", "sched_smp", "cpu_wake", "sched_cpu", "wake",
                                        "sched_wake", "steal", "sched_steal")),
)
"""Goal, what it is about, how the ids of its claims begin."""


def lab() -> dict[str, Any] | None:
    """Return the last recorded run of everything."""
    return json.loads(LAB.read_text()) if LAB.exists() else None


def goal(claim: str) -> str:
    """Return the goal that a claim belongs to; nothing for a claim about something else."""
    found = [(len(start), name) for name, _, starts in GOALS for start in starts
             if claim.startswith(start)]
    return max(found)[1] if found else "other" if claim.startswith("sched") else ""


def claims() -> list[str]:
    """Return the table of claims."""
    rows = []
    for name, about, _ in (*GOALS, ("other", "", ())):
        for each in results.results():
            if goal(each["id"]) == name:
                rows.append([name if name != "other" else "", each["what"], results.ours(each),
                             results.bound(each), results.beside(each),
                             "yes" if each["met"] else "**no**"])
        if name != "other" and not any(row[0] == name for row in rows):
            rows.append([name, about, "not recorded in this tree", "", "", ""])
    head = ("goal", "what", "unikit", "must reach", "in the same run", "reached")
    return alloc_results.table(head, rows, first=6)


def middle(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(list(values))


def number(value: float | None) -> str:
    """Write a figure with three digits."""
    return "–" if value is None else units.three(value)


def ratio(value: float | None) -> str:
    """Write a ratio."""
    return "–" if value is None else f"{value:.2g}" if value < 0.1 else units.three(value)


def percent(value: float | None) -> str:
    """Write a part of a hundred."""
    return f"{value or 0:.0f} %"


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that have values."""
    return [row for row in found["rows"] if row["values"]]


def table(found: dict[str, Any]) -> list[str]:
    """Return the table of one measurement."""
    metrics, first = found["metrics"], next(iter(found["metrics"]))
    head = ["", *metrics.values(), f"{next(iter(metrics.values()))}: least to most",
            *([f"ratio to {found['reference']}"] if found["reference"] else [])]
    lines = []
    for row in rows(found):
        values = row["values"][first]
        name = f"**{row['name']}**" if row["kind"] == "ours" else row["name"]
        lines.append([name, *(number(row["median"].get(metric)) for metric in metrics),
                      f"{number(min(values))} … {number(max(values))}",
                      *([ratio(row["ratio"])] if found["reference"] else [])])
    return alloc_results.table(head, lines, first=18)


def latencies(found: dict[str, Any]) -> charts.Chart:
    """Draw percentiles over a logarithmic time."""
    named = rows(found)
    percents = sorted(float(name[1:]) for name in named[0]["values"] if name.startswith("p"))
    series = [charts.Series(row["name"], [
        math.log10(max(middle(row["values"][f"p{each:g}"]) * 1000, 1)) for each in percents])
        for row in named]
    title = f"{found['title']}: latency that a part of all stays below"
    return charts.lines(title, percents, series, percent,
                        lambda value: units.seconds(10 ** (value or 0) / 1e9),
                        ("part of all wake-ups", "latency"), filled=False, width=820)


def misses(found: dict[str, Any]) -> charts.Chart:
    """Draw deadlines missed over utilisation."""
    loads = [float(name.rstrip("%")) for name in found["metrics"]]
    series = [charts.Series(row["name"], [row["median"].get(name) for name in found["metrics"]])
              for row in rows(found)]
    return charts.lines(found["title"], loads, series, percent, percent,
                        ("utilisation", "missed"), filled=False, width=820)


def bars(found: dict[str, Any]) -> charts.Chart:
    """Draw one value per row."""
    first = next(iter(found["metrics"]))
    return charts.bars(found["title"], [charts.Bar(
        row["name"], row["median"][first], min(row["values"][first]), max(row["values"][first]),
        f"{number(row['median'][first])} {found['unit']}",
        "ours" if row["kind"] == "ours" else "other") for row in rows(found)
        if row["median"].get(first) is not None], number)


def within(found: dict[str, Any], times: float) -> dict[str, Any]:
    """Leave out rows so far beyond ours that nothing else could be told apart in a picture."""
    first = next(iter(found["metrics"]))
    most = max(row["median"][first] for row in rows(found) if row["kind"] == "ours")
    return found | {"rows": [row for row in rows(found) if row["median"][first] <= times * most]}


def section(name: str) -> list[str]:
    """Return the table and the chart of one measurement."""
    document = lab()
    found = next((each for each in document["benchmarks"] if each["name"] == name), None
                 ) if document else None
    if found is None:
        return [NONE]
    drawing = latencies(found) if name in ("wakeup", "cyclic") else misses(found) \
        if name == "deadlines" else bars(within(found, 20)) if name != "timers" else None
    return table(found) + (alloc_results.picture(drawing) if drawing else [])


def conditions() -> list[str]:
    """Return under which conditions all of it was measured."""
    document = lab()
    if document is None:
        return [NONE]
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    lines = [f"Medians of {document['rounds']} rounds, on: {machine}. "
             + ("Neighbours were kept off the processor." if document["quiet"] else
                "Neighbours could not be kept off the processor."), ""]
    return lines + [f"* Left out: {name} ({why})." for name, why in document["skipped"].items()]


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective
    from sphinx.util.nodes import nested_parse_with_titles

    class Generated(SphinxDirective):
        """Text made when the page is read."""

        optional_arguments = 1

        def lines(self) -> Sequence[str]:
            """Return the text."""
            raise NotImplementedError

        def run(self) -> list[nodes.Node]:
            """Parse it in place."""
            self.env.note_reread()
            container = nodes.section()
            container.document = self.state.document
            nested_parse_with_titles(self.state, StringList(list(self.lines()), "generated"),
                                     container)
            return container.children

    class Measured(Generated):
        """``.. scheduler-results:: NAME``"""

        def lines(self) -> Sequence[str]:
            """Return table and chart, or the conditions."""
            return section(self.arguments[0]) if self.arguments else conditions()

    class Claims(Generated):
        """``.. scheduler-claims::``"""

        def lines(self) -> Sequence[str]:
            """Return the table."""
            return claims()

    app.add_directive("scheduler-results", Measured)
    app.add_directive("scheduler-claims", Claims)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
