"""Replays: every operation of the trace is carried out, and what is measured is true."""

from __future__ import annotations

import pytest
from lab_traces import churn

from unikit.alloc import Allocator, Bump, Firstfit, Tlsf, lab
from unikit.errors import InvalidArgument, NotFound, OutOfMemory

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("record", [Tlsf(), Firstfit(blocks=4096), Bump()],
                         ids=lambda record: record.id)
@pytest.mark.parametrize("how", [{}, {"direct": False}, {"parallel": True}], ids=str)
def test_a_replay_does_what_the_trace_says(record: Allocator, how: dict[str, bool]) -> None:
    """Comparisons are fair only if everyone did the same, on the same loop."""
    trace = churn(6000)
    result = lab.replay(trace, record, rounds=1, latency_rounds=1, samples=50,
                        memory="256M", **how)
    summary = trace.summary()
    assert (result.operations, result.allocations, result.reallocations, result.frees) == \
        (summary.operations, summary.allocations, summary.reallocations, summary.frees)
    assert result.failures == 0
    assert result.ns > 0
    assert result.warm_cycles > 0
    if not how.get("parallel"):
        assert result.give.count + result.take.count == summary.operations
        assert result.give.p50 <= result.give.p99 <= result.give.max
        assert result.peak_requested == summary.peak_bytes


def test_the_heap_over_time_is_what_the_allocator_says() -> None:
    """Samples carry the program's view, the allocator's and the kernel's, in that order."""
    trace = churn(10_000)
    result = lab.replay(trace, Tlsf(), rounds=1, latency_rounds=0, samples=100)
    assert len(result.samples) == 100 or len(result.samples) == 99
    assert result.samples[-1].done == result.operations
    assert result.samples[-1].requested == trace.summary().live_bytes
    for sample in result.samples:
        assert 0 < sample.requested <= sample.used
    assert result.peak_requested <= result.peak_used
    assert result.peak_touched < result.peak_used + (64 << 10)
    assert all(0 <= part < 1 for _, part in result.fragmentation())


def test_touching_everything_backs_everything() -> None:
    """A program that writes its blocks needs their pages; one that does not, may not."""
    trace = lab.Trace.of([lab.Event(lab.Op.ALLOC, size=1 << 20, block=number)
                          for number in range(20)])
    little = lab.replay(trace, "tlsf", rounds=1, latency_rounds=0, touch="first")
    much = lab.replay(trace, "tlsf", rounds=1, latency_rounds=0, touch="all")
    assert little.peak_touched < 1 << 20
    assert much.peak_touched >= 20 << 20


def test_refused_requests_are_counted_and_the_rest_goes_on() -> None:
    """A region that is too small for the program gives failures, not an end."""
    trace = churn(6000)
    result = lab.replay(trace, Tlsf(), rounds=1, latency_rounds=0, memory="512K")
    assert result.failures > 0
    assert result.operations == trace.summary().operations


def test_an_empty_trace_is_replayed() -> None:
    """Nothing to do is no special case for whoever calls."""
    result = lab.replay(lab.Trace.of([]), Tlsf(), rounds=1, latency_rounds=1)
    assert (result.operations, result.give.count, result.ns_per_operation) == (0, 0, 0.0)


def test_what_cannot_be_replayed_is_said() -> None:
    """Wrong words, no such allocator, no room: each has its class and a sentence."""
    trace = churn(100)
    with pytest.raises(InvalidArgument, match="touch is one of"):
        lab.replay(trace, Tlsf(), touch="some")  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        lab.replay(trace, "nosuch")
    with pytest.raises(OutOfMemory, match=r"alloc\.tlsf"):
        lab.replay(trace, Tlsf(pool="1G"), memory=4096)


def test_parallel_replays_end_with_the_same_counts() -> None:
    """Blocks that go from thread to thread arrive: no wait is for ever, no turn is missed."""
    trace = churn(20_000, live=50, threads=8)
    for _ in range(3):
        result = lab.replay(trace, Tlsf(), rounds=1, parallel=True)
        assert result.operations == trace.summary().operations
        assert result.failures == 0
