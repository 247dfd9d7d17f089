"""Images of several processors: what may be composed, how they run and how they end."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from unikit.alloc import Guard, Lock, Shard, Tlsf
from unikit.errors import CompositionError, GuestExit, PlatformError
from unikit.image import Image

CROWD = Path(__file__).with_name("cpus") / "crowd.c"
TASKS, ROUNDS, BLOCKS = 48, 60, 8
TOTAL = TASKS * BLOCKS * ROUNDS * (ROUNDS - 1) // 2
fast = pytest.mark.fast
platforms = pytest.mark.parametrize(
    "platform", ["linux", pytest.param("kvm", marks=pytest.mark.kvm)])


def crowd(**more: object) -> Image:
    return Image("crowd", [CROWD], needs=["sched:threads"], cpus=4,
                 **more)  # type: ignore[arg-type]


@fast
def test_defaults_serve_several_processors() -> None:
    """Whoever asks for processors gets components that can do it, and one processor nothing new."""
    plan = crowd().plan
    assert (plan.sched and plan.sched.id, plan.alloc.id) == ("sched.steal", "alloc.shard")
    assert plan.note()["cpus"] == 4
    assert "cpus       4 at most" in plan.lines()
    alone = Image("crowd", [CROWD], needs=["sched:threads"]).plan
    assert alone.alloc.id == "alloc.tlsf"
    assert "cpus" not in alone.note()


@fast
def test_what_serves_one_processor_is_refused_with_what_serves_several() -> None:
    """Both mistakes at once, a line each, with what to write instead."""
    with pytest.raises(CompositionError) as caught:
        _ = crowd(sched="coop", alloc=Guard(Tlsf())).plan
    assert list(caught.value.problems) == [
        "sched.coop serves one processor, not 4; choose sched=steal",
        "alloc.guard serves one processor, not 4; choose alloc=shard, or lock,guard,tlsf"]
    for wrong in (0, 65, -1):
        with pytest.raises(CompositionError, match="give 1 to 64"):
            _ = Image("crowd", [CROWD], cpus=wrong).plan


@platforms
@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_tasks_run_on_all_processors(platform: str, cpus: int) -> None:
    """Nothing is lost or run twice, and the image ends by itself when all is done."""
    with crowd(alloc=Shard()).boot(platform, memory="16M", cpus=cpus) as machine:
        assert machine.wait(60) == 0
        assert machine.console.lines() == [f"total {TOTAL} rounds {TASKS * ROUNDS} cpus {cpus}"]


@platforms
def test_a_locked_allocator_serves_all_processors(platform: str) -> None:
    """``--alloc lock,tlsf`` where a face for each processor is not there to be had."""
    with crowd(alloc=Lock(Tlsf())).boot(platform, memory="16M", cpus=3) as machine:
        assert machine.wait(60) == 0
        assert machine.console.lines() == [f"total {TOTAL} rounds {TASKS * ROUNDS} cpus 3"]


@pytest.mark.kvm
def test_network_calls_elsewhere_are_named() -> None:
    """The stack is the first processor's; a call from another one must not spoil it in silence."""
    image = Image("stray", [CROWD], needs=["sched:threads"], cpus=2, net="mini", netif="loopback",
                  flags=["-DWITH_NET"])
    with image.boot("kvm", memory="16M") as machine, pytest.raises(GuestExit) as caught:
        machine.wait(30)
    assert caught.value.reason == "panic"
    assert "on processor 1: kit_udp_open called on a processor other than 0" in str(caught.value)


def test_more_processors_than_there_are(caplog: pytest.LogCaptureFixture) -> None:
    """More than composed for is refused, more than the host has is said."""
    image = crowd()
    with pytest.raises(CompositionError, match=r"cpus: 5; crowd was composed for 4; compose it "
                                               r"with cpus=5"):
        image.boot("linux", cpus=5)
    with pytest.raises(CompositionError, match="cpus: 0; give 1 to 4"):
        image.boot("linux", cpus=0)
    with pytest.raises(PlatformError, match=r"platform\.qemu gives an image one processor, not 2"):
        image.boot("qemu", cpus=2)
    with (caplog.at_level(logging.WARNING, logger="unikit.image.boot"),
          pytest.MonkeyPatch.context() as patch):
        patch.setattr("os.cpu_count", lambda: 1)
        with image.boot("linux", memory="16M", cpus=2) as machine:
            machine.wait(60)
    assert caplog.messages == [
        "2 processors are asked for; this host has 1, so they take turns"]
