"""The record of ``sched.prio``."""

from __future__ import annotations

from unikit.component import component
from unikit.sched.api import THREAD_SOURCES, Threaded


@component
class Prio(Threaded):
    """Fixed priorities with inheritance: 64 levels, first come first served within each.

    When a task stops, the one that runs next has the highest priority that is ready; lower ones may
    wait for ever. A task that holds a mutex runs with the highest priority that waits for it,
    through any number of others. Picking and deadlines are O(1).
    """

    id = "sched.prio"
    features = frozenset({"threads", "priorities"})
    sources = ("prio.c", *THREAD_SOURCES)
    reference = ("L. Sha, R. Rajkumar, J. P. Lehoczky, Priority inheritance protocols, "
                 "IEEE Transactions on Computers 39(9), 1990")
