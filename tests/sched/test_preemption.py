"""Preemption in whole images: tasks in endless loops stop nobody, and notice nothing themselves."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest

from unikit import apps
from unikit.errors import CompositionError
from unikit.image import Image, elf
from unikit.image.toolchain import run
from unikit.net import User
from unikit.sched import Coop, Edf, Fair, Prio, Scheduler

HERE = Path(__file__).resolve().parent / "image"
PLATFORMS = ["linux", pytest.param("kvm", marks=pytest.mark.kvm)]
SHORT = (Fair(slice="1ms"), Prio(slice="1ms"), Edf(slice="1ms"))


def runs(image: Image, platform: str, args: str = "") -> str:
    """Boot it; it must end with code 0. Its console's text."""
    with image.boot(platform, memory="8M", args=args) as machine:
        code = machine.wait(120)
        text = machine.console.text
    assert code == 0, text
    return text


def registers(record: Scheduler, platform: str, upcalls: int) -> None:
    """Run the tasks that know what they had in every register."""
    image = Image("preempted", [HERE / "preempted.c", HERE / "keeps.S"], sched=record)
    text = runs(image, platform, str(upcalls))
    counted = re.search(r"(\d+) upcalls, 0 broken, loops (\d+) (\d+) (\d+) (\d+), stack (\d+)",
                        text)
    assert counted and int(counted[1]) >= upcalls
    assert all(int(each) > 0 for each in counted.groups()[1:5])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_stopped_task_finds_everything_again(platform: str) -> None:
    """All registers, flags, vectors, control words, red zone; 1 KiB of stack is enough."""
    registers(Fair(slice="1ms"), platform, 300)


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("record", SHORT, ids=lambda record: record.id)
def test_a_stopped_task_finds_everything_again_for_long(record: Scheduler, platform: str) -> None:
    """Ten thousand upcalls under each policy."""
    registers(record, platform, 10_000)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("record", SHORT, ids=lambda record: record.id)
def test_an_endless_loop_stops_nobody(record: Scheduler, platform: str) -> None:
    """Two that compute and one that wants to run every 2 ms all go on."""
    text = runs(Image("turns", [HERE / "turns.c"], sched=record), platform)
    counted = re.search(r"(\d+) switches, (\d+) upcalls", text)
    assert counted and int(counted[2]) > 0


@pytest.mark.parametrize("platform", PLATFORMS)
def test_safe_points_serve_as_well(platform: str) -> None:
    """A loop that says where it may be stopped is stopped there."""
    runs(Image("turns", [HERE / "turns.c"], sched=Prio(), flags=["-DSAFE_POINTS"]), platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("record", [Fair(slice="1ms"), Edf()], ids=lambda record: record.id)
def test_components_are_never_stopped(record: Scheduler, platform: str) -> None:
    """A mutex keeps its promise while its owner is stopped; heap and queues stay sound."""
    assert "0 broken" in runs(Image("contended", [HERE / "contended.c"], sched=record), platform)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_server_goes_on_while_a_task_computes(platform: str) -> None:
    """Devices and timers are looked at although a task computes for ever."""
    app = apps.find("http")
    image = Image("http", [*app.source_files(), HERE / "background.c"], needs=app.needs,
                  options=app.options, files=app.files_folder(), sched=Fair(),
                  flags=[*app.flags, "-Dinit_application=init_foreground"])
    with (User("tcp:0:80").open() as wire,
          image.boot(platform, memory="16M", netif=wire) as machine):
        machine.console.expect("listening on 80")
        where = f"http://127.0.0.1:{wire.ports[0].port}/"
        for _ in range(20):
            with urllib.request.urlopen(where, timeout=20) as answer:
                assert b"<html" in answer.read()
        before = machine.stats()["cpu_ns"]
        deadline = time.monotonic() + 30
        while machine.stats()["cpu_ns"] == before:  # the task computes still
            assert time.monotonic() < deadline


def test_who_has_no_preemption_has_nothing_of_it() -> None:
    """Neither the upcall nor a counted call is in the image."""
    sources = [HERE / "turns.c"]
    symbols = {}
    for name, image in (("on", Image("turns", sources, sched=Fair())),
                        ("off", Image("turns", sources, sched=Fair(), preempt=False)),
                        ("coop", Image("turns", sources, sched=Coop()))):
        symbols[name] = {each for _, _, each in elf.load(image.build()).symbols}
    assert "kit_upcall" in symbols["on"]
    for name in ("off", "coop"):
        assert not {each for each in symbols[name] if "upcall" in each or "inside" in each
                    or "slice_open" in each}
    code = run(("objdump", "-d", Image("turns", sources, sched=Fair(), preempt=False).build()))
    assert "%gs:" not in code


def test_what_may_be_asked_for() -> None:
    """``preempt`` needs a scheduler that can do it, and one processor."""
    sources = [HERE / "turns.c"]
    with pytest.raises(CompositionError, match="choose sched=edf or fair or prio"):
        _ = Image("turns", sources, sched="coop", preempt=True).plan
    with pytest.raises(CompositionError, match="allowed: True, False, 'auto'"):
        _ = Image("turns", sources, sched="fair", preempt="often").plan
    assert Image("turns", sources, sched="fair").plan.preempt
    assert not Image("turns", sources, sched="coop").plan.preempt
    assert not Image("turns", sources, sched="fair", preempt=False).plan.preempt
