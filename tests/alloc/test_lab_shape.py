"""The shape of traces against a model in Python."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikit.alloc import lab
from unikit.alloc.lab.shape import shape
from unikit.errors import InvalidArgument

pytestmark = pytest.mark.fast


@st.composite
def traces(draw: st.DrawFn) -> lab.Trace:
    """Draw a trace that makes sense: blocks are born, change and die."""
    events, alive, born, now = [], [], 0, 0
    for _ in range(draw(st.integers(0, 60))):
        now += draw(st.sampled_from([0, 1, 7, 1000, 10**6]))
        kind = draw(st.sampled_from([lab.Op.ALLOC, lab.Op.ZEROED, lab.Op.REALLOC, lab.Op.FREE]))
        size = draw(st.one_of(st.integers(0, 70), st.integers(0, 1 << 34)))
        site = draw(st.integers(0, 3))
        if kind >= lab.Op.REALLOC and alive:
            block = draw(st.sampled_from(alive))
            if kind == lab.Op.FREE:
                alive.remove(block)
        else:
            kind = lab.Op.ALLOC if kind >= lab.Op.REALLOC else kind
            block, born = born, born + 1
            alive.append(block)
        events.append(lab.Event(kind, now, 0, block, size, site=site))
    return lab.Trace.of(events, ["a", "b", "c"])


@settings(deadline=None, max_examples=60)
@given(traces(), st.integers(1, 40))
def test_the_shape_is_that_of_a_model(trace: lab.Trace, moments: int) -> None:
    """Every figure, computed once more in the plainest way."""
    found = shape(trace, moments)
    alive: dict[int, tuple[int, int, int]] = {}  # block: birth, size, site
    requests: Counter[int] = Counter()
    lives: Counter[int] = Counter()
    peak, peak_sites = 0, Counter[int]()
    for event in trace:
        if event.op <= lab.Op.REALLOC:
            birth = alive[event.block][0] if event.op == lab.Op.REALLOC else event.time
            alive[event.block] = (birth, event.size, event.site)
            requests[event.site] += 1
        else:
            birth, size, _ = alive.pop(event.block)
            lives[(event.time - birth).bit_length()] += 1
        total = sum(size for _, size, _ in alive.values())
        if total > peak:
            peak, peak_sites = total, Counter()
            for _, size, site in alive.values():
                peak_sites[site] += size
    assert {power: count for power, count in enumerate(found.lives) if count} == dict(lives)
    assert sum(each.requests for each in found.sizes) == sum(requests.values())
    names = [site.name for site in trace.sites]
    assert {each.site.name: each.requests for each in found.sites} == \
        {names[site]: count for site, count in requests.items()}
    assert {each.site.name: each.peak_bytes for each in found.sites if each.peak_bytes} == \
        {names[site]: size for site, size in peak_sites.items() if size}
    assert sum(each.peak_bytes for each in found.sizes) == peak
    assert max(each.top_bytes for each in found.moments) == peak
    assert found.moments[-1].live_blocks == len(alive) == sum(found.survivors)
    assert found.moments[-1].live_bytes == sum(size for _, size, _ in alive.values())
    assert sum(each.allocations for each in found.moments) == sum(requests.values())
    assert sum(map(sum, found.heat)) == sum(lives.values())


@given(st.integers(0, 1 << 40))
def test_classes_of_sizes_are_right(size: int) -> None:
    """A size lies above the class before and not above its own; a class is at most a quarter."""
    found = shape(lab.Trace.of([lab.Event(lab.Op.ALLOC, size=size)])).sizes[0].largest
    assert size <= found
    assert found <= max(8, size * 1.25 + 1)
    if size > 8:  # just above the edge the next class begins
        other = shape(lab.Trace.of([lab.Event(lab.Op.ALLOC, size=found + 1)])).sizes[0].largest
        assert other > found


def test_quantiles() -> None:
    """Half of the requests are small; one is large."""
    events = [lab.Event(lab.Op.ALLOC, at, 0, at, 8) for at in range(9)]
    events += [lab.Event(lab.Op.ALLOC, 9, 0, 9, 4096), lab.Event(lab.Op.FREE, 1033, 0, 9)]
    found = shape(lab.Trace.of(events))
    assert (found.size_quantile(0.5), found.size_quantile(0.99)) == (8, 4096)
    assert found.life_quantile(0.5) == 2048  # 1024 ns lie in [1024, 2048)
    assert shape(lab.Trace.of([])).life_quantile(0.5) is None


def test_no_moment_is_refused() -> None:
    """There is nothing to divide by."""
    with pytest.raises(InvalidArgument):
        shape(lab.Trace.of([]), 0)
