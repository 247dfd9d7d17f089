"""sched.loop: what it refuses. What it does is in the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import build, panic_of

from unikit.sched import Loop

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(("mode", "text"), [
    ("turn", "assertion failed: !events->turning"),
    ("exit", "sched.loop: exit() needs a scheduler with threads; "
             "return from the task instead")])
def test_broken_contracts_panic(mode: str, text: str) -> None:
    """A turn within a task would run tasks inside tasks; exit() has no stack to leave."""
    program = build([HERE / "program_stacks.c", "unikit/testing/virtual.c", *Loop().source_files()],
                    variant="optimised", defines={"COMPONENT": Loop.symbol()})
    assert panic_of(program, mode) == text


def test_it_claims_no_threads() -> None:
    """The composer refuses blocking calls by this word."""
    assert "threads" not in Loop.features
