"""``unikit sched bench``: schedulers measured, beside what else there is, in interleaved rounds."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from unikit.alloc.lab import machine, units
from unikit.cli.alloc.compare import progress
from unikit.cli.alloc.rounds import quietest
from unikit.cli.alloc.table import styled
from unikit.cli.sched.chosen import Chosen, schedulers
from unikit.cli.sched.contests import (
    CONTESTS,
    UTILISATIONS,
    Contest,
    Contestant,
    contestants,
)
from unikit.component import Component
from unikit.errors import InvalidArgument, PlatformError

_LIMIT_S = 60.0
_REFUSED = "SCHED_FIFO: Operation not permitted"
_TO_SHOW = ("processor", "CPUs", "kernel", "load", "date")


@dataclasses.dataclass
class Row:
    """What was measured of one contestant.

    :ivar values: by metric, one per round.
    :ivar failure: why there is no more of it.
    """

    name: str
    kind: str
    values: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failure: str = ""

    def median(self, metric: str) -> float | None:
        """Return the median of a metric, ``None`` if there is none."""
        values = self.values.get(metric)
        return statistics.median(values) if values else None

    def ratio(self, other: Row, metric: str) -> float | None:
        """Return the median of the ratios of the rounds to another row."""
        pairs = [one / two for one, two in zip(self.values.get(metric, ()),
                                               other.values.get(metric, ()), strict=False) if two]
        return statistics.median(pairs) if pairs else None


@dataclasses.dataclass
class Table:
    """A contest with its rows."""

    contest: Contest
    rows: list[Row]

    def reference(self) -> Row | None:
        """Return the row that others are compared with."""
        return next((row for name in self.contest.reference for row in self.rows
                     if row.name == name and row.values), None)


def do_bench(choice: argparse.Namespace) -> int:
    """Measure and print."""
    if choice.rounds < 1:
        raise InvalidArgument(f"--rounds {choice.rounds}: give 1 or more")
    contests = _only(choice.only)
    chosen = schedulers(choice, _able)
    skipped: dict[str, str] = {}
    with progress() as tell:
        tables, quiet = measure(contests, chosen, choice.rounds, skipped, tell)
    if choice.json:
        print(json.dumps(facts(tables, choice.rounds, quiet, skipped), indent=2))
    else:
        _print(tables, choice.rounds, quiet, skipped)
    return int(any(row.failure for table in tables for row in table.rows))


def _able(record: type[Component]) -> str | None:
    return None if record.sources else "only schedulers in C are measured; simulate it instead"


def _only(words: Sequence[str]) -> list[Contest]:
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    known = {contest.name: contest for contest in CONTESTS}
    if unknown := [name for name in names if name not in known]:
        raise InvalidArgument(f"--only {', '.join(unknown)}: known are {', '.join(known)}")
    return [contest for contest in CONTESTS if not names or contest.name in names]


def measure(contests: Sequence[Contest], chosen: Sequence[Chosen], rounds: int,
            skipped: dict[str, str], tell: Callable[[str], None] = lambda text: None
            ) -> tuple[list[Table], bool]:
    """Measure everything in rounds: each contestant once in each, so that drift hits all alike.

    :param skipped: filled with who cannot take part, and why.
    :return: the tables, and whether neighbours could be kept off the processor.
    :raises ToolchainError: there is no compiler.
    """
    tell("compiling")
    fields: list[tuple[Table, list[Contestant]]] = []
    for contest in contests:
        taking = contestants(contest, chosen, skipped)
        fields.append((Table(contest, [Row(each.name, each.kind) for each in taking]), taking))
    environment = os.environ | {"UNIKIT_BENCH_CPU": str(quietest())}
    quiet = True
    for number in range(rounds):
        for table, taking in fields:
            for row, each in zip(table.rows, taking, strict=True):
                if row.failure:
                    continue
                tell(f"round {number + 1} of {rounds}: {table.contest.name}, {each.name}")
                quiet &= _once(row, each, environment)
    for table, _ in fields:
        for row in [row for row in table.rows if row.failure.endswith(_REFUSED)]:
            skipped[row.name] = "fixed priorities need root or CAP_SYS_NICE"
            table.rows.remove(row)
    return [table for table, _ in fields], quiet


def _once(row: Row, contestant: Contestant, environment: dict[str, str]) -> bool:
    """Measure once; whether neighbours were kept off."""
    found: dict[str, float] = {}
    for command in contestant.commands:
        try:
            said = _run(command.words, environment)
        except PlatformError as error:
            row.failure = str(error)
            return True
        rename = dict(command.rename)
        found |= {rename.get(name, name): value for name, value in said.items()}
    for load in UTILISATIONS:
        if jobs := found.pop(f"{load}% jobs", None):
            found[f"{load}%"] = 100 * found[f"{load}%"] / jobs
    if "one" in found:
        found["flat"] = found["yield"] / found.pop("one")
    quiet = bool(found.pop("quiet", 1.0))
    for name, value in found.items():
        row.values.setdefault(name, []).append(value)
    return quiet


def _run(words: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a program; what it says by name.

    :raises PlatformError: it failed or took too long; the message is short.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False,
                              timeout=_LIMIT_S, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise PlatformError(f"no end after {_LIMIT_S:.0f} s") from None
    if done.returncode < 0:
        raise PlatformError(f"killed by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise PlatformError(last)
    return {name: float(value) for name, value in
            (line.split() for line in done.stdout.splitlines())}


# ---- for people and programs --------------------------------------------------------------------


def _print(tables: Sequence[Table], rounds: int, quiet: bool, skipped: dict[str, str]) -> None:
    for table in tables:
        contest, reference = table.contest, table.reference()
        print(f"{contest.name}: {contest.title}")
        first = contest.metrics[0][0]
        headers = [f"  [{contest.unit}]", *(title for _, title in contest.metrics), "spread",
                   *([f"x {reference.name}"] if reference else [])]
        rows = []
        for row in table.rows:
            if row.failure:
                rows.append([(f"  {row.name}", "")] + [("failed", "bad")] + [("", "")] * (
                    len(headers) - 2))
                continue
            ratio = row.ratio(reference, first) if reference else None
            rows.append([(f"  {row.name}", "good" if row.kind == "ours" else ""),
                         *((_number(row.median(metric)), "") for metric, _ in contest.metrics),
                         (_spread(row.values.get(first, [])), "dim"),
                         *([(_ratio(ratio), "")] if reference else [])])
        styled(headers, rows)
        for row in table.rows:
            if row.failure:
                print(f"  {row.name} failed: {row.failure}")
        print()
    for name, why in skipped.items():
        print(f"- {name}: left out, {why}")
    if not quiet:
        print("- neighbours could not be kept off the processor (that takes root or CAP_SYS_NICE): "
              "latencies show them, too")
    print(f"- medians of {rounds} interleaved round{'s' * (rounds != 1)}, all on one processor, "
          "spread from least to most of the first column; ratios are taken within the rounds. "
          "Costs are processor time")
    found = machine.facts()
    print("- " + ", ".join(f"{key} {found[key]}" if key in ("CPUs", "load") else found[key]
                           for key in _TO_SHOW if key in found))


def _number(value: float | None) -> str:
    return "-" if value is None else units.three(value)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}" if value < 0.1 else units.three(value)


def _spread(values: Sequence[float]) -> str:
    return f"{units.three(min(values))}-{units.three(max(values))}" if values else "-"


def facts(tables: Sequence[Table], rounds: int, quiet: bool, skipped: dict[str, str]
          ) -> dict[str, Any]:
    """Return everything that was measured, for JSON."""
    found = []
    for table in tables:
        reference, first = table.reference(), table.contest.metrics[0][0]
        found.append({
            "name": table.contest.name, "title": table.contest.title, "unit": table.contest.unit,
            "metrics": dict(table.contest.metrics),
            "reference": reference.name if reference else None,
            "rows": [{"name": row.name, "kind": row.kind, "values": row.values,
                      "median": {name: row.median(name) for name in row.values},
                      "ratio": row.ratio(reference, first) if reference else None,
                      **({"failure": row.failure} if row.failure else {})}
                     for row in table.rows]})
    return {"format": "unikit sched bench", "version": 1, "rounds": rounds, "quiet": quiet,
            "skipped": skipped, "machine": machine.facts(), "benchmarks": found}
