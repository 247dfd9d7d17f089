"""Claim: no deadline is missed in a million random admitted EDF sets, overheads included; and under
weights no task is ever owed, or owes, more than one slice.

The overheads are measured first, in this run, and charged twice over: for each change of the
running task, and for what the scheduler takes between two of its readings of the clock.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from harness import Sample, record

from unikit.cli.sched import bench
from unikit.cli.sched.chosen import Chosen
from unikit.cli.sched.contests import CONTESTS
from unikit.sched import Edf, Fair
from unikit.sched.lab import sweep

SETS, FAIR_SETS, SEED = 1_000_000, 100_000, 20261121
READINGS = 2  # of the clock in a yield


def costs() -> tuple[int, int]:
    """Return what a switch and a call of sched.edf take, ns, doubled."""
    tables, _ = bench.measure([each for each in CONTESTS if each.name in ("switch", "yield")],
                              [Chosen("edf", Edf())], 5, {})
    switch, through = (statistics.median(next(row for row in table.rows if row.kind == "ours")
                                         .values[table.contest.name]) for table in tables)
    return math.ceil(2 * switch), math.ceil(2 * through / READINGS)


def test_deadlines(benchmark: Any) -> None:
    """UUniFast, two to ten tasks, 5 to 100 % of the processor, as many as sched.edf admits."""
    switch, call = costs()
    found = benchmark.pedantic(sweep, args=(Edf(), SETS), rounds=1,
                               kwargs={"seed": SEED, "switch": switch, "call": call})
    record("sched_sets", "EDF sets with a missed deadline, of a million random admitted ones",
           "sets", Sample("ours", (float(found.failures),)), must=0,
           note=f"{found.jobs:,} jobs, {found.switches:,} switches, "
                f"{found.simulated / 3.6e12:.1f} h of virtual time; {found.refused:,} further sets "
                f"were not admitted. Charged: {switch} ns per switch and {call} ns per call, twice "
                f"what was measured, together {found.overhead / found.simulated:.2%} of the time")


def test_lags(benchmark: Any) -> None:
    """Two to ten tasks that never sleep, weights from 16 to 16384."""
    record_of = Fair()
    slice_ns = 3_000_000
    found = benchmark.pedantic(sweep, args=(record_of, FAIR_SETS), rounds=1,
                               kwargs={"seed": SEED, "lag": slice_ns + 1})
    record("sched_lag", "largest lag under sched.fair in 100,000 random sets, of a slice", "slice",
           Sample("ours", (found.most_lag / slice_ns,)), must=1,
           note=f"{found.switches:,} switches, {found.simulated / 3.6e12:.1f} h of virtual time, "
                f"{found.failures} sets with a lag above one slice")
