"""Schedulers: choose one for an image, or run tasks on one in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.sched.api import Scheduler as Scheduler
    from unikit.sched.coop import Coop as Coop
    from unikit.sched.edf import Edf as Edf
    from unikit.sched.fair import Fair as Fair
    from unikit.sched.fiber import Fiber as Fiber
    from unikit.sched.fiber import FiberExit as FiberExit
    from unikit.sched.lab import SimTask as SimTask
    from unikit.sched.lab import simulate as simulate
    from unikit.sched.loop import Loop as Loop
    from unikit.sched.policy import Policy as Policy
    from unikit.sched.policy import PolicyTask as PolicyTask
    from unikit.sched.prio import Prio as Prio
    from unikit.sched.share import Share as Share
    from unikit.sched.steal import Steal as Steal
    from unikit.sched.task import Call as Call
    from unikit.sched.task import CTask as CTask
    from unikit.sched.task import Task as Task
    from unikit.sched.tasks import Stats as Stats
    from unikit.sched.tasks import Tasks as Tasks

__all__ = ["CTask", "Call", "Coop", "Edf", "Fair", "Fiber", "FiberExit", "Loop", "Policy",
           "PolicyTask", "Prio", "Scheduler", "Share", "SimTask", "Stats", "Steal", "Task", "Tasks",
           "simulate"]

_HOME = {"CTask": "task", "Call": "task", "Coop": "coop", "Edf": "edf", "Fair": "fair",
         "Fiber": "fiber", "FiberExit": "fiber", "Loop": "loop", "Policy": "policy",
         "PolicyTask": "policy", "Prio": "prio", "Scheduler": "api", "Share": "share",
         "SimTask": "lab", "Stats": "tasks", "Steal": "steal", "Task": "task", "Tasks": "tasks",
         "simulate": "lab"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
