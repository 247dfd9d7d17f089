"""Claims: a switch costs little more than half of Boost.Context's, a task's whole life 15 ns, a
timer the same however many sleep; and the tables of docs/schedulers.rst.

All of it from one run of what ``unikit sched bench`` runs, so that every reference was measured
beside it. Needs root, so that neighbours can be kept off the processor.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from harness import RESULTS, Sample, machine, paired_ratio, record

from unikit import registry
from unikit.cli.sched import bench
from unikit.cli.sched.chosen import Chosen
from unikit.cli.sched.contests import CONTESTS, SLEEPERS

ROUNDS = 7


@pytest.fixture(scope="module")
def tables() -> dict[str, bench.Table]:
    """Measure everything once; the tables by name, written for the page."""
    if os.geteuid() != 0:
        pytest.skip("neighbours can be kept off the processor by root only")
    chosen = [Chosen(kind.stem(), kind()) for kind in registry.components("sched") if kind.sources]
    skipped: dict[str, str] = {}
    found, quiet = bench.measure(CONTESTS, chosen, ROUNDS, skipped)
    facts = bench.facts(found, ROUNDS, quiet, skipped) | {"machine": machine()}
    (RESULTS / "sched-lab.json").write_text(json.dumps(facts, indent=1) + "\n")
    return {table.contest.name: table for table in found}


def sample(tables: dict[str, bench.Table], contest: str, row: str, metric: str) -> Sample:
    """Return what was measured of one row."""
    found = next(each for each in tables[contest].rows if each.name == row)
    return Sample(row, tuple(found.values[metric]))


def test_contexts(benchmark: Any, tables: dict[str, bench.Table]) -> None:
    """The switch with all that a callee keeps, against the fastest packaged one."""
    names = ("unikit", "Boost.Context", "swapcontext", "pthreads", "unikit.sched.fiber", "greenlet")
    have = {row.name for row in tables["switch"].rows if row.values}
    ours, boost, *more = benchmark.pedantic(
        lambda: [sample(tables, "switch", name, "switch") for name in names if name in have],
        rounds=1)
    record("sched_contexts", "switch between two stacks, against Boost.Context", "ns", ours,
           must=2.7 / 4.7, reference=boost, ratio=paired_ratio(ours, boost), compare="ratio",
           more=more, note="the goal is 2.7 ns where Boost.Context takes 4.7; fiber and greenlet "
           "switch Python functions")


def test_spawn(benchmark: Any, tables: dict[str, bench.Table]) -> None:
    """A task spawned, run and joined, on a stack that was used before."""
    ours = benchmark.pedantic(sample, args=(tables, "spawn", "coop", "spawn"), rounds=1)
    rows = [row.name for row in tables["spawn"].rows if row.values and row.name != "coop"]
    threads = sample(tables, "spawn", "pthreads", "spawn")
    record("sched_spawn", "spawn, run and join a task of sched.coop", "ns", ours, must=15,
           reference=threads, ratio=paired_ratio(ours, threads),
           more=[sample(tables, "spawn", name, "spawn") for name in rows if name != "pthreads"],
           note="Boost.Context: make and jump alone, no scheduler and no join")


def test_timers(benchmark: Any, tables: dict[str, bench.Table]) -> None:
    """A timer cancelled and armed among 100,000 must cost what it costs alone.

    Always the same one, as a task does that sleeps; a random one of so many is in no cache.
    """
    few, *_, many = benchmark.pedantic(lambda: [
        Sample(f"{count:,} armed", tuple(next(
            row for row in tables["timers"].rows if row.name == "coop").values[f"{count}"]))
        for count in SLEEPERS], rounds=1)
    record("sched_timers", "cancel and arm a timer among 100,000 against one", "ns", many,
           must=1.2, reference=few, ratio=paired_ratio(many, few), compare="ratio", more=[Sample(
               "a random one of 100,000, which is in no cache",
               sample(tables, "timers", "coop", f"any of {SLEEPERS[-1]}").values)])
