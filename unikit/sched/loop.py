"""The record of ``sched.loop``."""

from __future__ import annotations

from unikit.component import component
from unikit.sched.api import Scheduler


@component
class Loop(Scheduler):
    """Run to completion: no stacks, no switches, the smallest.

    Each turn runs the timers that are due, the work that is queued and each new task, in order of
    arrival, on the caller's stack. Tasks cannot block. Cost: O(1), timers O(log n).
    """

    id = "sched.loop"
    sources = ("loop.c", "events.c", "timer.c")
    reference = "D. B. Johnson, Priority queues with update, IPL 4(3), 1975 (timers)"
