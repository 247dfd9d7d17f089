"""The record of ``sched.rank``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.sched.api import THREAD_SOURCES, Scheduler


@component
class Rank(Scheduler):
    """Cooperative threads of two ranks: tasks with a priority run before those without."""

    id = "sched.rank"
    features = frozenset({"threads"})
    sources = ("rank.c", *THREAD_SOURCES)

    stack: int | str = option("16K", "stack of a task", kind="size", minimum=1024,
                              maximum=1 << 30, unit="bytes")
