"""The record of ``sched.prio``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.sched.api import THREAD_SOURCES, Threaded


@component
class Prio(Threaded):
    """Fixed priorities with inheritance: 64 levels, first come first served within each.

    When a task stops, the one that runs next has the highest priority that is ready; lower ones may
    wait for ever. With preemption, tasks of one priority take turns of a slice. A task that holds a
    mutex runs with the highest priority that waits for it, through any number of others. Picking
    and deadlines are O(1).
    """

    id = "sched.prio"
    features = frozenset({"threads", "priorities", "preemption"})
    sources = ("prio.c", *THREAD_SOURCES)
    reference = ("L. Sha, R. Rajkumar, J. P. Lehoczky, Priority inheritance protocols, "
                 "IEEE Transactions on Computers 39(9), 1990")

    slice: int | str = option(
        "10ms", "how long a task runs while others of its priority wait, unless it stops of its "
        "own accord; 0: as long as it likes", kind="duration", maximum=10_000_000_000, unit="ns")
