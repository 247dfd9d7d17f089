"""Schedulers in whole images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from unikit.errors import GuestExit
from unikit.image import Image
from unikit.sched import Coop, Edf, Fair, Prio, Scheduler, Steal

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(("platform", "sched"), [
    ("linux", Coop), ("linux", Prio), ("linux", Edf), ("linux", Fair),
    pytest.param("kvm", Coop, marks=pytest.mark.kvm),
    pytest.param("kvm", Fair, marks=pytest.mark.kvm)])
def test_a_stack_overflow_in_an_image_names_the_task(
        platform: str, sched: Callable[..., Scheduler]) -> None:
    """The guard page is real, the fault is caught at the first byte, and the report says whose."""
    image = Image("overflow", sources=[HERE / "image/overflow.c"], sched=sched(stack="8K"))
    with (pytest.raises(GuestExit, match="stack overflow in task 'deep-thought': write") as caught,
          image.boot(platform=platform, memory="4M") as machine):
        machine.wait(10)
    assert caught.value.reason == "fault"
    assert "sink" in caught.value.backtrace[0]


@pytest.mark.parametrize(("platform", "sched"), [
    ("linux", Coop), ("linux", Steal), pytest.param("kvm", Coop, marks=pytest.mark.kvm)])
def test_a_deadlock_says_who_waits_for_what(platform: str, sched: type[Coop | Steal]) -> None:
    """Nothing can run again: the console has a line for each task before the panic."""
    image = Image("deadlock", sources=[HERE / "image/deadlock.c"], sched=sched(stack="8K"))
    with (pytest.raises(GuestExit, match="deadlock: every task is blocked") as caught,
          image.boot(platform=platform, memory="4M") as machine):
        machine.wait(10)
    text = "\n".join(caught.value.console)
    for line in (r"task 'first' waits for mutex 0x[0-9a-f]+ of task 'second'",
                 r"task 'second' waits for mutex 0x[0-9a-f]+ of task 'first'",
                 r"task 'third' waits for the end of task 'first'",
                 r"task 'fourth' waits for event 0x[0-9a-f]+ or semaphore 0x[0-9a-f]+",
                 r"task 'fifth' is blocked, and nobody wakes it",
                 r"cycle of mutexes: 'first' -> 'second' -> 'first'"):
        assert re.search(f"^{line}$", text, re.MULTILINE), text
