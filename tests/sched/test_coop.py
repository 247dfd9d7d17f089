"""sched.coop: what becomes of stacks. What else it does is in the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import VARIANTS, build, panic_of, run

from unikit.errors import CompositionError
from unikit.sched import Coop

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent


def stacks(variant: str = "optimised") -> Path:
    """Return program_stacks on sched.coop."""
    return build([HERE / "program_stacks.c", "unikit/testing/virtual.c", *Coop().source_files()],
                 variant=variant, defines={"COMPONENT": Coop.symbol()})


@pytest.mark.parametrize(("mode", "name"), [
    ("yield", "deep-thought"), ("block", "(unnamed)"), ("jump", "jumper"),
    ("end", "a name that is longer than thir")])
def test_stack_overflow_names_the_task(mode: str, name: str) -> None:
    """An overflow is caught at the guard page at once, else by the canary at the next stop."""
    done = run(stacks(), mode, "guard")
    assert (done.returncode, done.stdout) == (139, f"fault: stack overflow in task '{name}'\n")
    assert panic_of(stacks(), mode) == f"stack overflow in task '{name}'"


@pytest.mark.parametrize("guard", [(), ("guard",)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_free_stacks_are_kept_up_to_the_option(variant: str, guard: tuple[str, ...]) -> None:
    """Recycling saves the allocator, but a burst of tasks must not hold its memory for ever."""
    done = run(stacks(variant), "keep", *guard)
    assert done.stdout == "kept 1\nsteady 1\nother freed 1\nleft 0\n", done.stderr


def test_measure_tells_the_deepest_use_of_living_and_ended_tasks() -> None:
    """The high-water mark is how a person learns which stack size would do."""
    assert run(stacks(), "measure").stdout == "before 0\nalive 1\nended 1\nleft 0\n"


@pytest.mark.parametrize(("mode", "text"), [
    ("turn", "assertion failed: t->current == NULL"),
    ("exit", "sched: exit() outside a task")])
def test_broken_contracts_panic(mode: str, text: str) -> None:
    """A turn within a task, and an exit without one, are bugs of the caller."""
    assert panic_of(stacks(), mode) == text


def test_a_stack_too_small_is_refused_with_the_range() -> None:
    """Below 1 KiB not even the switch and one call fit."""
    with pytest.raises(CompositionError, match=r"sched\.coop\.stack.*1024"):
        Coop(stack=512)


def test_100_000_tasks_are_alive_at_once() -> None:
    """A KiB each, all asleep by deadlines at random; every one wakes in order, nothing is left."""
    program = build([HERE / "program_many.c", "unikit/testing/virtual.c", *Coop().source_files()],
                    variant="optimised", defines={"COMPONENT": Coop.symbol()})
    assert run(program).stdout == ("100000 alive, 0 ready, 1 KiB each\n0 alive, check 0\nleft 0\n")
