"""The record base of all schedulers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unikit.component import Component, option

if TYPE_CHECKING:
    from unikit.sched.tasks import Tasks

_HERE = Path(__file__).resolve().parent

EVENT_SOURCES = tuple(str(_HERE / name) for name in ("events.c", "timer.c"))
"""C files of deferred work and timers, for a scheduler of one's own without stacks."""

THREAD_SOURCES = (*(str(_HERE / name) for name in ("thread.c", "stack.c")), *EVENT_SOURCES)
"""C files of tasks with stacks, for a scheduler of one's own: all but the policy."""


class Scheduler(Component):
    """Base of every scheduler's record; ``features`` are those of ``sched.h`` in lower case.

    A record is a choice; :meth:`open` makes it live in this process.
    """

    def open(self, heap: Any = None, env: Any = None) -> Tasks:
        """Open the scheduler in this process.

        :param heap: where tasks, stacks and timers come from (:class:`unikit.alloc.Heap`), the
            caller's, to be closed after the scheduler; or the size of one of its own, touched as
            needed, by default 64 MiB.
        :param env: the clock (:class:`unikit.platform.host.HostEnvironment`, or
            :class:`unikit.testing.VirtualEnvironment` for time that stands until told); the
            caller's; by default this process's.
        :raises InvalidArgument: an option does not suit the environment.
        :raises OutOfMemory: the heap is too small.

        >>> from unikit.sched import Loop
        >>> with Loop().open() as tasks:
        ...     _ = tasks.call_later(0.001, print, "later")
        ...     _ = tasks.post(print, "first")
        ...     tasks.run()
        first
        later
        """
        from unikit.sched.tasks import Tasks
        return Tasks(self, heap, env)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threaded(Scheduler):
    """Base of the records of schedulers whose tasks have stacks: the options of those stacks."""

    stack: int | str = option(
        "16K", "stack of a task, bytes, with what the scheduler keeps at its top", kind="size",
        minimum=1024, maximum=1 << 40, unit="bytes")
    guard: bool | str = option(
        True, "take the page below each stack away, where the platform can; else a canary",
        kind="bool")
    cached: int = option(64, "ended tasks, with their stacks, kept for reuse", maximum=1 << 20)
    measure: bool | str = option(
        False, "paint stacks to learn how deep they are used; touches all their memory",
        kind="bool")
