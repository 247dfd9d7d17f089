"""The record of ``sched.edf``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.sched.api import THREAD_SOURCES, Threaded


@component
class Edf(Threaded):
    """Earliest deadline first with admission control and reservations.

    A task reserves a slice in each period, and is refused if the processor has not so much left to
    promise. A task that overruns does not hurt the others: it waits for its next slice, less what
    it ran too long. What reservations leave is shared in turn by tasks without one and by those
    whose slice is used up, unless they are strict. Picking is O(log n).
    """

    id = "sched.edf"
    features = frozenset({"threads", "reservations", "preemption"})
    sources = ("edf.c", "tree.c", *THREAD_SOURCES)
    reference = ("L. Abeni, G. Buttazzo, Integrating multimedia applications in hard real-time "
                 "systems, RTSS 1998; I. Leslie et al., Nemesis, IEEE JSAC 14(7), 1996")

    limit: int = option(95, "most of the processor that may be promised", minimum=1, maximum=100,
                        unit="%")
    slice: int | str = option(
        "1ms", "how long a task runs at a time in what reservations leave", kind="duration",
        minimum=1000, maximum=10_000_000_000, unit="ns")
