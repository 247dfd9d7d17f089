"""sched.coop: the conformance suite, and what becomes of stacks."""

from __future__ import annotations

import pytest
from sched_program import BUILDS, build, run

from unikit.errors import CompositionError
from unikit.sched import Coop

pytestmark = pytest.mark.fast

OPTIONS = {
    "default": Coop(stack="64K"),
    "canaries, nothing kept": Coop(stack="64K", guard=False, cached=0),
    "measured": Coop(stack="64K", measure=True, cached=3),
}
"""64K: frames are large under AddressSanitizer."""


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("how", BUILDS)
def test_coop_conforms(how: str, options: str) -> None:
    """The suite finds nothing, whatever the options; sanitizers follow every stack switch."""
    program = build(Coop, "tests/conformance/main_sched.c", how)
    status, output = run(program, *OPTIONS[options].encoded())
    assert status == 0, output
    assert output.endswith(" 0 failures\n")


@pytest.mark.parametrize(("mode", "name"), [
    ("yield", "deep-thought"), ("block", "(unnamed)"), ("jump", "jumper"),
    ("end", "a name that is longer than thir")])
def test_stack_overflow_names_the_task(mode: str, name: str) -> None:
    """An overflow is caught at the guard page at once, else by the canary at the next stop."""
    program = build(Coop, "tests/sched/program_coop.c", "optimised")
    assert run(program, mode, "guard") == (139, f"fault: stack overflow in task '{name}'\n")
    assert run(program, mode) == (134, f"panic: stack overflow in task '{name}'\n")


@pytest.mark.parametrize("guard", [(), ("guard",)])
@pytest.mark.parametrize("how", BUILDS)
def test_free_stacks_are_kept_up_to_the_option(how: str, guard: tuple[str, ...]) -> None:
    """Recycling saves the allocator, but a burst of tasks must not hold its memory for ever."""
    program = build(Coop, "tests/sched/program_coop.c", how)
    assert run(program, "keep", *guard) == (
        0, "kept 1\nsteady 1\nother freed 1\nleft 0\n")


def test_measure_tells_the_deepest_use_of_living_and_ended_tasks() -> None:
    """The high-water mark is how a person learns which stack size would do."""
    program = build(Coop, "tests/sched/program_coop.c", "optimised")
    assert run(program, "measure") == (0, "before 0\nalive 1\nended 1\nleft 0\n")


@pytest.mark.parametrize(("mode", "text"), [
    ("turn", "assertion failed: t->current == NULL"),
    ("exit", "sched: exit() outside a task")])
def test_broken_contracts_panic(mode: str, text: str) -> None:
    """A turn within a task, and an exit without one, are bugs of the caller."""
    program = build(Coop, "tests/sched/program_coop.c", "optimised")
    assert run(program, mode) == (134, f"panic: {text}\n")


def test_a_stack_too_small_is_refused_with_the_range() -> None:
    """Below 1 KiB not even the switch and one call fit."""
    with pytest.raises(CompositionError, match=r"sched\.coop\.stack.*1024"):
        Coop(stack=512)
