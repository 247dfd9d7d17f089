"""Mutex, condition and semaphore: misuse. What they do right is in the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import build, panic_of

from unikit.sched import Coop

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(("mode", "text"), [
    ("relock", "mutex->owner != self"),
    ("foreign", "mutex->owner != NULL && mutex->owner == kit_sched_current(s)"),
    ("wait", "mutex->owner != NULL && mutex->owner == kit_sched_current(s)")])
def test_misuse_of_a_mutex_panics(mode: str, text: str) -> None:
    """Locking twice would wait for oneself for ever; unlocking another's breaks exclusion."""
    program = build([HERE / "program_sync.c", "unikit/testing/virtual.c", "unikit/sched/sync.c",
                     *Coop().source_files()],
                    variant="optimised", defines={"COMPONENT": Coop.symbol()})
    assert panic_of(program, mode) == f"assertion failed: {text}"
