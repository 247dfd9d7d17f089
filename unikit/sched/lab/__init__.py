"""The scheduler laboratory: task sets, simulation in virtual time, schedulability tests, pictures.

>>> from unikit.sched import Prio, lab
>>> tasks = lab.uunifast(4, 0.9, seed=7)
>>> schedule = lab.simulate(tasks, Prio, until="1s")
>>> len(schedule.jobs) > 50
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.sched.lab.analysis import Verdict as Verdict
    from unikit.sched.lab.analysis import schedulable as schedulable
    from unikit.sched.lab.simulation import Job as Job
    from unikit.sched.lab.simulation import Response as Response
    from unikit.sched.lab.simulation import Schedule as Schedule
    from unikit.sched.lab.simulation import Segment as Segment
    from unikit.sched.lab.simulation import simulate as simulate
    from unikit.sched.lab.sweeping import Sweep as Sweep
    from unikit.sched.lab.sweeping import sweep as sweep
    from unikit.sched.lab.taskset import SimTask as SimTask
    from unikit.sched.lab.taskset import load_rt_app as load_rt_app
    from unikit.sched.lab.taskset import uunifast as uunifast

_HOME = {"Job": "simulation", "Response": "simulation", "Schedule": "simulation",
         "Segment": "simulation", "SimTask": "taskset", "Sweep": "sweeping", "Verdict": "analysis",
         "load_rt_app": "taskset", "schedulable": "analysis", "simulate": "simulation",
         "sweep": "sweeping", "uunifast": "taskset"}

__all__ = ["Job", "Response", "Schedule", "Segment", "SimTask", "Sweep", "Verdict", "load_rt_app",
           "schedulable", "simulate", "sweep", "uunifast"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
