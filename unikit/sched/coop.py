"""The record of ``sched.coop``."""

from __future__ import annotations

from unikit.component import component
from unikit.sched.api import THREAD_SOURCES, Threaded


@component
class Coop(Threaded):
    """Cooperative threads in FIFO round robin, each on a stack of its own.

    A task runs until it yields, blocks or ends; between two runs of a ready task every other ready
    task runs at most twice. Every operation is O(1), deadlines included.
    """

    id = "sched.coop"
    features = frozenset({"threads"})
    sources = ("coop.c", *THREAD_SOURCES)
    reference = "G. Varghese, T. Lauck, Hashed and hierarchical timing wheels, SOSP 1987 (timers)"
