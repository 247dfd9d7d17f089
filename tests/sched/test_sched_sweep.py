"""Many random task sets, overheads included: a few here, a million in the long run."""

from __future__ import annotations

import time

import pytest

from unikit.errors import InvalidArgument
from unikit.sched import Edf, Fair, Prio
from unikit.sched.lab import Sweep, sweep

MILLION = 1_000_000
COSTS = {"switch": "100ns", "call": "100ns"}  # beyond what sched.edf takes; see docs/schedulers.rst


@pytest.mark.fast
def test_admitted_sets_miss_nothing() -> None:
    """With what switches and the scheduler cost charged to whoever runs meanwhile."""
    found = sweep(Edf(), 2000, seed=1, **COSTS)
    assert (found.sets, found.failures, found.failed) == (2000, 0, ())
    assert found.refused > 20 and found.jobs > 50_000 and found.overhead > 0


@pytest.mark.fast
def test_a_set_that_misses_is_seen_and_named() -> None:
    """A processor promised to the last bit has nothing left for overheads."""
    found = sweep(Edf(limit=100), 100, utilisation=(0.99, 1.0), call="5us")
    assert found.failures > 0
    assert len(found.failed) == min(found.failures, 10)
    assert sum(task.utilisation for task in found.failed[0]) > 0.9


@pytest.mark.fast
def test_lags_are_judged_to_the_nanosecond() -> None:
    """One slice is never exceeded, and the bound is no loose one: nearly all of it is used."""
    found = sweep(Fair(slice="2ms"), 300, seed=2, lag=2_000_001)
    assert found.failures == 0
    assert 1_900_000 < found.most_lag <= 2_000_001
    assert sweep(Fair(slice="2ms"), 50, seed=2, lag=1_000_000).failures > 0


@pytest.mark.fast
def test_the_same_seed_gives_the_same_sweep() -> None:
    """So that a failure can be looked at."""
    assert sweep(Edf(), 50, seed=3, **COSTS) == sweep(Edf(), 50, seed=3, **COSTS)
    assert sweep(Edf(), 50, seed=3) != sweep(Edf(), 50, seed=4)


@pytest.mark.fast
def test_wrong_sweeps_are_refused() -> None:
    """A policy without promises, and sets that nobody admits."""
    with pytest.raises(InvalidArgument, match="neither"):
        sweep(Prio(), 10)
    with pytest.raises(InvalidArgument, match="refused all but 0"):
        sweep(Edf(limit=1), 10, utilisation=(0.5, 1.0))


def said(found: Sweep, seconds: float) -> str:
    """Describe a sweep for docs/long-run.txt."""
    return (f"{found.policy}: {found.sets:,} sets, {found.refused:,} more refused, "
            f"{found.jobs:,} jobs, {found.switches:,} switches, {found.simulated / 3.6e12:.1f} h "
            f"of virtual time, {found.overhead / found.simulated:.2%} overhead, largest lag "
            f"{found.most_lag} ns, {found.failures} failures, {seconds:.0f} s")


@pytest.mark.slow
def test_a_million_admitted_sets_miss_nothing() -> None:
    """S4's claim in full."""
    start = time.monotonic()
    found = sweep(Edf(), MILLION, seed=20261121, **COSTS)
    print(said(found, time.monotonic() - start))
    assert (found.sets, found.failures) == (MILLION, 0), found.failed


@pytest.mark.slow
def test_lags_of_a_hundred_thousand_sets_stay_within_a_slice() -> None:
    """The other half of it."""
    start = time.monotonic()
    found = sweep(Fair(), MILLION // 10, seed=20261121, lag=3_000_001)
    print(said(found, time.monotonic() - start))
    assert (found.sets, found.failures) == (MILLION // 10, 0), found.failed
