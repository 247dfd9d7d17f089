"""sched.prio: what the record promises. Order and inheritance are in the conformance suite."""

from __future__ import annotations

import pytest

from unikit.errors import InvalidArgument
from unikit.ffi import load
from unikit.sched import Prio
from unikit.testing import check_scheduler

pytestmark = pytest.mark.fast


def test_conforms_in_this_process() -> None:
    """The record and its C side agree, and the whole suite passes through cffi."""
    assert check_scheduler(Prio(stack="32K"), "24M").checks > 10_000


@pytest.mark.parametrize("priority", [0, 63])
def test_c_tasks_take_a_priority(priority: int) -> None:
    """The ends of the range are in it."""
    ffi, _ = load.abi()
    ran: list[int] = []
    entry = ffi.callback("void(void *)", lambda _argument: ran.append(priority))
    with Prio(stack="64K").open() as tasks:
        tasks.spawn_c(entry, priority=priority, detached=True)
        tasks.run()
    assert ran == [priority]


def test_a_priority_out_of_range_is_refused() -> None:
    """64 levels: the 65th must not be taken for another one."""
    with Prio().open() as tasks, pytest.raises(InvalidArgument, match="task 'urgent'"):
        tasks.spawn_c(1, name="urgent", priority=64)
