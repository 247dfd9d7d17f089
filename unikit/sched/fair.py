"""The record of ``sched.fair``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.sched.api import THREAD_SOURCES, Threaded


@component
class Fair(Threaded):
    """Weighted fair sharing: earliest eligible virtual deadline first (EEVDF).

    Tasks get the processor in proportion to their weights; none is ever owed, or owes, more than
    one slice (or what it ran in one go, if that is more). A task with a short slice of its own runs
    sooner and less long. Sleeping neither earns nor loses. Picking is O(log n).
    """

    id = "sched.fair"
    features = frozenset({"threads", "weights", "preemption"})
    sources = ("fair.c", "tree.c", *THREAD_SOURCES)
    reference = ("I. Stoica, H. Abdel-Wahab, Earliest eligible virtual deadline first, "
                 "Old Dominion University, TR-95-22, 1995")

    slice: int | str = option(
        "3ms", "how long a task wants to run at a time, unless it says otherwise", kind="duration",
        minimum=1000, maximum=10_000_000_000, unit="ns")
