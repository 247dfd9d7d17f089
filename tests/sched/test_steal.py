"""sched.steal on one processor. What it does on several is in ``test_sched_cpus.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import VARIANTS, build, panic_of, run

from unikit.errors import CompositionError
from unikit.sched import Steal

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent


def stacks(variant: str = "optimised") -> Path:
    """Return program_stacks on sched.steal."""
    return build([HERE / "program_stacks.c", "unikit/testing/virtual.c", *Steal().source_files()],
                 variant=variant, defines={"COMPONENT": Steal.symbol()})


@pytest.mark.parametrize(("mode", "name"), [
    ("yield", "deep-thought"), ("block", "(unnamed)"), ("end", "a name that is longer than thir")])
def test_stack_overflow_names_the_task(mode: str, name: str) -> None:
    """Its switch is its own, so it must look at the stack itself."""
    done = run(stacks(), mode, "guard")
    assert (done.returncode, done.stdout) == (139, f"fault: stack overflow in task '{name}'\n")
    assert panic_of(stacks(), mode) == f"stack overflow in task '{name}'"


@pytest.mark.parametrize("guard", [(), ("guard",)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_free_stacks_are_kept_up_to_the_option(variant: str, guard: tuple[str, ...]) -> None:
    """A burst of tasks must not hold its memory for ever."""
    done = run(stacks(variant), "keep", *guard)
    assert done.stdout == "kept 1\nsteady 1\nother freed 1\nleft 0\n", done.stderr


def test_measure_tells_the_deepest_use_of_living_and_ended_tasks() -> None:
    """The high-water mark is how a person learns which stack size would do."""
    assert run(stacks(), "measure").stdout == "before 0\nalive 1\nended 1\nleft 0\n"


@pytest.mark.parametrize(("mode", "text"), [
    ("turn", "assertion failed: cpu->current == NULL"),
    ("exit", "sched: exit() outside a task")])
def test_broken_contracts_panic(mode: str, text: str) -> None:
    """A turn within a task, and an exit without one, are bugs of the caller."""
    assert panic_of(stacks(), mode) == text


def test_a_deque_of_one_is_refused_with_the_range() -> None:
    """Its index arithmetic needs two slots at least."""
    with pytest.raises(CompositionError, match=r"sched\.steal\.slots.*2"):
        Steal(slots=1)
