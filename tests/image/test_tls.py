"""Thread-local variables of an application: each task has its own, on every platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from unikit.image import Image
from unikit.sched import Coop, Fair, Scheduler, Steal

HERE = Path(__file__).with_name("tls")
platforms = pytest.mark.parametrize(
    "platform", ["linux", pytest.param("kvm", marks=pytest.mark.kvm)])


def variables(sched: Scheduler, cpus: int = 1) -> Image:
    """Compose the application all of whose tasks look at their own variables."""
    return Image("variables", [HERE / "variables.c", HERE / "other.c"], sched=sched, cpus=cpus,
                 needs=["sched:threads"])


def right(image: Image, platform: str, cpus: int = 1, args: str = "") -> int:
    """Boot it; return the processors that ran its tasks, as bits."""
    with image.boot(platform, memory="64M", cpus=cpus, args=args) as machine:
        assert machine.wait(120) == 0, machine.console.text
        said = machine.console.lines()[-1]
    before, _, processors = said.rpartition(" ")
    assert before == "1000 ended, 0 wrong, processors"
    return int(processors)


@platforms
def test_each_of_a_thousand_tasks_has_its_own(platform: str) -> None:
    """Initialised, zeroed, aligned, of another unit; kept over yields, beside the main loop's."""
    assert right(variables(Coop(stack="8K")), platform) == 1


@platforms
def test_a_task_that_is_stopped_against_its_will_keeps_them(platform: str) -> None:
    """Upcalls fall between any two instructions, also within an access."""
    image = variables(Fair(stack="8K", slice="1ms"))
    assert right(image, platform, args="spin") == 1


@platforms
def test_they_move_with_a_task_to_another_processor(platform: str) -> None:
    """The variables are the task's, not the processor's."""
    assert right(variables(Steal(stack="8K"), cpus=2), platform, cpus=2) == 3
