"""The record of ``sched.coop``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.sched.api import Scheduler


@component
class Coop(Scheduler):
    """Cooperative threads in FIFO round robin, each on a stack of its own.

    A task runs until it yields, blocks or ends; between two runs of a ready task every other ready
    task runs at most twice. Spawn, yield, block and wake are O(1), deadlines O(log n).
    """

    id = "sched.coop"
    features = frozenset({"threads"})
    sources = ("coop.c", "thread.c", "stack.c", "events.c", "timer.c",
               "../rt/x86_64/switch.S")
    reference = "D. B. Johnson, Priority queues with update, IPL 4(3), 1975 (timers)"

    stack: int | str = option(
        "16K", "stack of a task, bytes, its tag of 64 bytes included", kind="size", minimum=1024,
        maximum=1 << 40, unit="bytes")
    guard: bool | str = option(
        True, "take the page below each stack away, where the platform can; else a canary",
        kind="bool")
    cached: int = option(64, "free stacks and task objects kept for reuse", maximum=1 << 20)
    measure: bool | str = option(
        False, "paint stacks to learn how deep they are used; touches all their memory",
        kind="bool")
