"""One trace in three places: in a process, in an image and through a preload library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_traces import churn

from unikit.alloc import Allocator, Firstfit, Tlsf, lab
from unikit.cli import main
from unikit.cli.alloc import references, replay
from unikit.errors import CompositionError, Corrupt, PlatformError


@pytest.mark.parametrize("platform", ["linux", pytest.param("kvm", marks=pytest.mark.kvm)])
@pytest.mark.parametrize("record", [Tlsf(), Firstfit(blocks=4096)], ids=lambda record: record.id)
def test_an_image_does_what_a_process_does(record: Allocator, platform: str) -> None:
    """The same component, operation by operation: it cannot be better or worse where it is."""
    trace = churn(6000, live=200)
    there = lab.replay_in_image(trace, record, platform=platform, rounds=1, latency_rounds=1)
    here = lab.replay(trace, record, rounds=1, latency_rounds=1)
    for field in ("operations", "allocations", "reallocations", "frees", "failures"):
        assert getattr(there, field) == getattr(here, field), field
    assert (there.give.count, there.take.count) == (here.give.count, here.take.count)
    assert there.ns > 0 and there.warm_cycles > 0
    assert there.region >= here.region
    if record.id == "alloc.tlsf":
        assert there.peak_used == pytest.approx(here.peak_used, rel=0.1)


def test_counts_are_the_same_in_every_place(tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    """The command itself refuses to show numbers of different amounts of work."""
    trace = churn(6000)
    file = tmp_path / "churn.trace"
    trace.save(file)
    assert main(["alloc", "replay", str(file), "--allocator", "tlsf", "--where",
                 "process,preload,image", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["where"] for each in found] == ["process", "preload", "image"]
    summary = trace.summary()
    for each in found:
        assert (each["allocations"], each["reallocations"], each["frees"], each["failures"]) == \
            (summary.allocations, summary.reallocations, summary.frees, 0)
        assert each["give"]["count"] + each["take"]["count"] == summary.operations
    assert main(["alloc", "replay", str(file), "--allocator", "tlsf,firstfit:blocks=4096"]) == 0
    assert "firstfit" in capsys.readouterr().out


def test_the_system_s_own_malloc_replays_too(tmp_path: Path) -> None:
    """Foreign allocators have one place only: a process in which they are malloc."""
    trace = churn(3000)
    result = replay.through_malloc(trace, references.glibc(), 1, "first")
    replay.same(trace, [result])
    file = tmp_path / "churn.trace"
    trace.save(file)
    assert main(["alloc", "replay", str(file), "--allocator", "glibc"]) == 1


def test_unequal_counts_are_an_error() -> None:
    """The check can fail: a replay of another trace does not pass for one of this."""
    result = lab.replay(churn(500, seed=2), "tlsf", rounds=1, latency_rounds=0, samples=0)
    with pytest.raises(Corrupt, match=r"alloc\.tlsf \(process\)"):
        replay.same(churn(500, seed=3), [result])


def test_an_image_without_room_for_the_heap_says_so() -> None:
    """What the image said last is in the message."""
    with pytest.raises((PlatformError, CompositionError, ValueError, MemoryError)):
        lab.replay_in_image(churn(500), Tlsf(pool="1G"), rounds=1, memory="1M")
