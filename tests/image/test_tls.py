"""Thread-local variables of an application: each task has its own, on every platform."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unikit.image import Image
from unikit.platform.qemu import Qemu
from unikit.platform.qemu.accelerator import board as accelerator_board
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


@platforms
@pytest.mark.parametrize("sched", [Coop(stack="8K"), Steal(stack="8K")],
                         ids=lambda record: record.id)
def test_memory_for_them_comes_and_goes_with_the_task(platform: str, sched: Scheduler) -> None:
    """Spawn says when there is none, and the next tasks find what the ended ones had."""
    image = Image("large", [HERE / "large.c", HERE / "more.cc"], sched=sched)
    with image.boot(platform, memory="24M") as machine:
        assert machine.wait(60) == 0, machine.console.text
        lines = machine.console.lines()
    count = int(lines[0].split()[0])
    assert 8 <= count < 24
    assert lines[:2] == [f"{count} tasks, {count} ended, 0 wrong",
                         f"{count} tasks, {2 * count} ended, 0 wrong"]


def test_a_kernel_without_the_instruction_sets_them_by_a_call(tmp_path: Path) -> None:
    """The system call filter lets it through, and it alone."""
    image = variables(Steal(stack="8K"), cpus=2).build(tmp_path / "variables.elf")
    done = subprocess.run([sys.executable, HERE / "without.py", image, "memory=64M"],
                          capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1000 ended, 0 wrong" in done.stdout


@pytest.mark.skipif(Qemu.probe() is not None, reason="QEMU is not installed")
@pytest.mark.parametrize("model", ["max", "max,-fsgsbase"])
def test_a_processor_without_the_instruction_is_refused(
        model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that all tasks share one set."""
    def board(accelerator: str) -> list[str]:
        return [model if word == "max" else word for word in accelerator_board(accelerator)]
    monkeypatch.setattr("unikit.platform.qemu.machine.board", board)
    image = Image("variables", [HERE / "variables.c", HERE / "other.c"], sched=Coop(stack="8K"),
                  platforms=("pvh",))
    with image.boot(Qemu(accelerator="tcg"), memory="64M") as machine:
        code = machine.wait(60)
        said = machine.console.lines()[-1]
    assert (code, said) == ((0, "1000 ended, 0 wrong, processors 1") if model == "max" else (
        2, "cannot start thread-local variables: the processor or its host lacks FSGSBASE"))


def test_who_has_none_pays_nothing(tmp_path: Path) -> None:
    """The same image, to the byte, as with a variable that nobody uses."""
    source = "#include <unikit/app.h>\nint init_application(void) { return 0; }\n"
    images = []
    for name, more in (("without", ""), ("unused", "static _Thread_local int unused;\n")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "main.c").write_text(source + more)
        images.append(Image("same", [folder / "main.c"], sched=Coop()).build().read_bytes())
    assert images[0] == images[1]
    assert b"FSGSBASE" not in images[0]
