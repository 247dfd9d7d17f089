"""The record of ``sched.loop``."""

from __future__ import annotations

from unikit.component import component
from unikit.sched.api import Scheduler


@component
class Loop(Scheduler):
    """Run to completion: no stacks, no switches, the smallest.

    Each turn runs the timers that are due, the work that is queued and each new task, in order of
    arrival, on the caller's stack. Tasks cannot block. Cost: O(1).
    """

    id = "sched.loop"
    sources = ("loop.c", "events.c", "timer.c")
    reference = "G. Varghese, T. Lauck, Hashed and hierarchical timing wheels, SOSP 1987 (timers)"
