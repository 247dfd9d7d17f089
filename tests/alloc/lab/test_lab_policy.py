"""Policies in Python: the simulator lets nothing wrong pass, and its numbers are true."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_traces import churn

from unikit.alloc import lab
from unikit.alloc.lab import BestFit, Event, Op, Policy, SizeClasses
from unikit.errors import Corrupt

pytestmark = pytest.mark.fast


class Bump(Policy):
    """Never uses memory twice."""

    top = 0

    def alloc(self, size: int, align: int) -> int | None:
        """Go on behind the last block."""
        start = -(-self.top // align) * align
        if start + max(size, 1) > self.size:
            return None
        self.top = start + max(size, 1)
        return start

    def free(self, address: int, size: int, align: int) -> None:
        """Forget it."""


@pytest.mark.parametrize("policy", [BestFit, SizeClasses])
def test_the_bundled_policies_keep_the_rules(policy: type[Policy]) -> None:
    """What people copy from must be right: no overlap, no lost memory, the same answers again."""
    assert lab.check_policy(policy) > 50_000


@given(st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=15)
@pytest.mark.parametrize("policy", [BestFit, SizeClasses, Bump])
def test_no_trace_makes_them_break_a_rule(policy: type[Policy], seed: int) -> None:
    """Any program, much memory or little: the simulator would end the run."""
    lab.check_policy(policy, seeds=range(seed, seed + 1), reuses=policy is not Bump)


def wrong(answer: str) -> type[Policy]:
    """Return a policy that is right twice and then wrong."""

    class Wrong(Bump):
        asked = 0

        def alloc(self, size: int, align: int) -> int | None:
            self.asked += 1
            address = super().alloc(size, align)
            if self.asked < 3 or address is None:
                return address
            return {"over": 0, "into": address - 40, "odd": address + 8, "out": self.size - 10,
                    "before": -16}[answer]

    return Wrong


@pytest.mark.parametrize(("answer", "said"), [
    ("over", "over the block"), ("odd", "no multiple of 16"), ("out", "no multiple|not lie"),
    ("before", "do not lie in the region"),
])
def test_every_wrong_answer_ends_the_run(answer: str, said: str) -> None:
    """The number of the operation is in the message, so that it can be found in the trace."""
    trace = lab.Trace.of([Event(Op.ALLOC, size=100, block=number) for number in range(5)])
    with pytest.raises(Corrupt, match=f"operation 3.*({said})"):
        lab.simulate(trace, wrong(answer), memory="1M")


def test_a_block_that_reaches_into_the_next_is_seen() -> None:
    """Overlap has two sides."""

    class Backwards(Policy):
        where = (4096, 4000 // 16 * 16)

        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.left = list(self.where)

        def alloc(self, size: int, align: int) -> int | None:
            return self.left.pop(0)

        def free(self, address: int, size: int, align: int) -> None:
            pass

    trace = lab.Trace.of([Event(Op.ALLOC, size=200, block=number) for number in range(2)])
    with pytest.raises(Corrupt, match="operation 2.*reach into"):
        lab.simulate(trace, Backwards, memory="1M")


def test_lost_memory_is_found() -> None:
    """A policy that never uses memory again passes every single answer, and fails as a whole."""
    with pytest.raises(Corrupt, match="no longer after"):
        lab.check_policy(Bump, seeds=range(1))


def test_a_policy_is_as_frugal_as_the_component_of_the_same_kind() -> None:
    """The simulator's memory is comparable to that of a replay: TLSF is nearly best fit."""
    trace = churn(8000)
    policy = lab.simulate(trace, BestFit)
    real = lab.replay(trace, "tlsf", rounds=1, latency_rounds=0, touch="all")
    assert policy.operations == real.operations
    assert (policy.allocations, policy.frees) == (real.allocations, real.frees)
    assert policy.peak_requested == real.peak_requested
    assert policy.peak_touched == pytest.approx(real.peak_touched, rel=0.15)
    assert policy.failures == 0 and policy.copied > 0
    assert policy.extent <= policy.peak_touched + 4096


def test_refused_requests_do_not_confuse_what_follows() -> None:
    """Frees and reallocs of blocks that never came into being are part of real replays."""
    trace = churn(3000)
    result = lab.simulate(trace, BestFit, memory="128K")
    assert result.failures > 0
    assert result.operations == trace.summary().operations
    assert result.peak_requested <= 128 << 10
