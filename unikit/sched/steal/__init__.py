"""``sched.steal``: threads on several processors, with work stealing."""

from __future__ import annotations

from pathlib import Path

from unikit.component import component, option
from unikit.sched.api import THREAD_SOURCES, Threaded

_SHARED = (*(name for name in THREAD_SOURCES if Path(name).name != "thread.c"),
           str(Path(__file__).resolve().parents[2] / "rt/x86_64/switch.S"))


@component
class Steal(Threaded):
    """Cooperative threads on several processors; idle ones steal tasks that may run anywhere.

    A task stays on the processor that spawned it, in FIFO round robin as under ``sched.coop``,
    unless it is spawned with ``KIT_TASK_ANYWHERE``: such tasks wait in a deque per processor, whose
    owner takes the youngest and from which processors without work take the oldest. Spawn, yield,
    block, wake and join are O(1) and take no lock, also across processors; deadlines are O(1), for
    tasks that may run anywhere under a lock; a search for work is O(processors). Only a processor
    that sleeps is rung. On one processor it does what ``sched.coop`` does.
    """

    id = "sched.steal"
    features = frozenset({"threads", "cpus"})
    sources = ("steal.c", "run.c", "life.c", "sleepers.c", "idle.c", *_SHARED)
    reference = ("D. Chase, Y. Lev, Dynamic circular work-stealing deque, SPAA 2005; N. M. Le, "
                 "A. Pop, A. Cohen, F. Zappa Nardelli, Correct and efficient work-stealing for "
                 "weak memory models, PPoPP 2013")

    slots: int = option(
        256, "tasks that others can steal from a processor at a time, rounded up to a power of "
        "two; further ones wait in a list", minimum=2, maximum=1 << 20)
    spin: int = option(
        200, "looks around, a few tens of ns each, before a processor other than the first sleeps, "
        "while another one works", maximum=1 << 31)
    seed: int = option(1, "which processor is stolen from first, at random from this number")
