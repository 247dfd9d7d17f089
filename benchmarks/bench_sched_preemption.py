"""Claim: preemption with a tick of 1 kHz costs at most 3.5 % of a core, and nothing while one task
runs.

The same arithmetic is done by one task and by two, which ``sched.fair`` lets take turns of 1 ms.
Neither calls anything, so each turn ends by an upcall; or each has a safe point in its loop, and
none is needed. What counts is the processor time of the process that runs the image, all its
threads included; what two tasks need beyond one is the price. The image without preemption is
measured beside it: one task with preemption must not differ from it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from harness import Sample, interleave, record

from unikit.image import Image, elf
from unikit.image.boot import boot

ROUNDS = 15
WORK = 400_000  # rounds of a thousand steps: some 0.4 s


@pytest.mark.kvm
@pytest.mark.parametrize("platform", ["kvm", "linux"])
def test_preemption(platform: str, benchmark: Any) -> None:
    """Processor time, percent more than one task without preemption."""
    source = Path(__file__).parent / "preemption/main.c"
    images = {wanted: elf.load(Image("preemption", [source], sched="fair", net=None,
                                     settings={"sched.fair.slice": "1ms"}, preempt=wanted,
                                     platforms=[platform]).build())
              for wanted in (True, False)}
    upcalls: dict[str, list[int]] = {}

    def run(name: str, preempt: bool, tasks: int, points: int) -> float:
        before = time.process_time_ns()
        with boot(images[preempt], platform, memory="4M",
                  args=f"{tasks} {WORK} {points}") as machine:
            assert machine.wait(60) == 0
            line = machine.console.lines()[-1]
            spent = machine.stats()["cpu_ns"] if platform == "linux" else 0
        spent = float(spent or time.process_time_ns() - before)
        upcalls.setdefault(name, []).append(int(line.removeprefix("upcalls ")))
        return spent / 1e6

    found = benchmark.pedantic(interleave, args=(ROUNDS, 1), rounds=1, kwargs={
        "plain": lambda: run("plain", False, 1, 0),
        "one": lambda: run("one", True, 1, 0),
        "forced": lambda: run("forced", True, 2, 0),
        "points": lambda: run("points", True, 2, 1),
        "points alone": lambda: run("points alone", True, 1, 1)})
    assert min(upcalls["forced"][1:]) > 20
    assert max(upcalls["one"]) == 0

    def more(name: str, than: str) -> Sample:
        return Sample(name, tuple(100 * (one / two - 1) for one, two in zip(
            found[name].values, found[than].values, strict=True)))

    forced = more("forced", "one")
    rate = sum(upcalls["forced"]) / sum(found["forced"].values) * 1e3
    record(f"preemption_{platform}",
           f"two endless loops taking turns by force, tick 1 kHz, {platform}: processor time "
           "beyond that of one", "%", forced, must=3.5,
           more=[more("points", "points alone")],
           note=f"{rate:.0f} upcalls in each second of processor time; second figure: with safe "
                "points in the loops, no upcalls")
    record(f"preemption_alone_{platform}", f"one task with preemption, {platform}: processor time "
           "beyond that of an image without", "%", more("one", "plain"), must=0.5,
           note="no tick and no upcall while one task runs: what is measured is noise")
