"""The record of ``sched.coop``."""

from __future__ import annotations

from unikit.component import component
from unikit.sched.api import THREAD_SOURCES, Threaded


@component
class Coop(Threaded):
    """Cooperative threads in FIFO round robin, each on a stack of its own.

    A task runs until it yields, blocks or ends; between two runs of a ready task every other ready
    task runs at most twice. Spawn, yield, block and wake are O(1), deadlines O(log n).
    """

    id = "sched.coop"
    features = frozenset({"threads"})
    sources = ("coop.c", *THREAD_SOURCES)
    reference = "D. B. Johnson, Priority queues with update, IPL 4(3), 1975 (timers)"
