"""Mutex, condition and semaphore: misuse. What they do right is in the conformance suite."""

from __future__ import annotations

import pytest
from sched_program import build, run

from unikit.sched import Coop

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("mode", "text"), [
    ("relock", "mutex->owner != self"),
    ("foreign", "mutex->owner != NULL && mutex->owner == kit_sched_current(s)"),
    ("wait", "mutex->owner != NULL && mutex->owner == kit_sched_current(s)")])
def test_misuse_of_a_mutex_panics(mode: str, text: str) -> None:
    """Locking twice would wait for oneself for ever; unlocking another's breaks exclusion."""
    program = build(Coop, "tests/sched/program_sync.c", "optimised")
    assert run(program, mode) == (134, f"panic: assertion failed: {text}\n")
