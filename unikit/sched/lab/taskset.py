"""Task sets: what a simulation or an analysis is about."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from unikit.component import parse_duration
from unikit.errors import InvalidArgument

_US_MAX, _INSTANCES = 3_600_000_000, 10_000
_NICE_0, _NICE_STEP = 1024, 1.25  # Linux: a tenth more or less of the processor per level

Time = int | str
"""Nanoseconds, or ``"2ms"``, ``"250us"``, ``"1.5s"``."""


@dataclasses.dataclass(frozen=True, slots=True)
class SimTask:
    """A periodic task, or a single job.

    :ivar name: for pictures and tables.
    :ivar work: what a job takes: a time, or several, which the jobs take in turn.
    :ivar period: between releases; 0: one job only.
    :ivar deadline: of each job, from its release; ``None``: the period (none for a single job).
    :ivar offset: release of the first job.
    :ivar priority: for policies with priorities, 0...63, the largest first.
    :ivar weight: for policies with weights; 0: 1024.
    :ivar slice: for policies with reservations: guaranteed in each period; ``None``: the longest
        work, 0: no reservation. For policies with weights: how long it wants to run at a time.
    :ivar strict: runs in its reservation alone.
    :ivar jobs: at most so many; 0: as many as there is time for.
    """

    name: str
    work: Time | Sequence[Time]
    period: Time = 0
    deadline: Time | None = None
    offset: Time = 0
    priority: int = 0
    weight: int = 0
    slice: Time | None = None
    strict: bool = False
    jobs: int = 0

    def __post_init__(self) -> None:
        works = self.work if isinstance(self.work, (list, tuple)) else (self.work,)
        values: dict[str, Any] = {}
        for field, value in (("period", self.period), ("offset", self.offset),
                             ("deadline", self.deadline), ("slice", self.slice)):
            values[field] = None if value is None else self._time(field, value)
        values["work"] = tuple(self._time("work", value) for value in works)
        if not values["work"] or min(values["work"]) == 0:
            raise InvalidArgument(f"task {self.name!r}: a job's work must be above 0")
        if values["deadline"] is None and values["period"]:
            values["deadline"] = values["period"]
        for field, value in values.items():
            object.__setattr__(self, field, value)

    def _time(self, field: str, value: Time) -> int:
        try:
            return parse_duration(value)
        except ValueError as error:
            raise InvalidArgument(f"task {self.name!r}, {field}: {error}") from None

    @property
    def works_ns(self) -> tuple[int, ...]:
        """What the jobs take, in turn."""
        return cast("tuple[int, ...]", self.work)

    @property
    def wcet_ns(self) -> int:
        """The longest work of a job."""
        return max(self.works_ns)

    @property
    def period_ns(self) -> int:
        """The period; 0: one job only."""
        return cast(int, self.period)

    @property
    def limit_ns(self) -> int:
        """The deadline of a job from its release; the period where there is none; 0: none."""
        return cast(int, self.deadline) if self.deadline else self.period_ns

    @property
    def utilisation(self) -> float:
        """Part of the processor that it needs at most; 0 for a single job."""
        return self.wcet_ns / self.period_ns if self.period else 0.0


def uunifast(count: int, utilisation: float, *, seed: int = 0,
             periods: tuple[Time, Time] = ("1ms", "100ms"), granularity: Time = "1us",
             rng: random.Random | None = None) -> list[SimTask]:
    """Return a random periodic task set of exactly that total utilisation, within rounding down.

    Utilisations are uniform over all vectors with that sum; periods are log-uniform.

    :param count: tasks, > 0.
    :param utilisation: 0 < u <= count.
    :param periods: shortest and longest.
    :param granularity: periods and works are multiples of it.
    :param rng: instead of ``seed``, for many sets in a row.

    Source: E. Bini, G. Buttazzo, Measuring the performance of schedulability tests, Real-Time
    Systems 30, 2005 (UUniFast); R. Davis, A. Burns, RTSS 2009 (log-uniform periods).

    >>> sum(task.utilisation for task in uunifast(3, 0.5, seed=1))  # doctest: +ELLIPSIS
    0.499...
    """
    if count < 1 or not 0 < utilisation <= count:
        raise InvalidArgument(f"{count} tasks of utilisation {utilisation}: give at least one task "
                              "and a utilisation in (0, count]")
    rng = rng or random.Random(seed)
    low, high, unit = (parse_duration(value) for value in (*periods, granularity))
    tasks, left = [], utilisation
    for n in range(count):
        rest = left * rng.random() ** (1 / (count - n - 1)) if n + 1 < count else 0.0
        share, left = left - rest, rest
        period = max(unit, int(low * (high / low) ** rng.random()) // unit * unit)
        work = min(max(unit, int(period * share) // unit * unit), period)
        tasks.append(SimTask(f"t{n}", work, period))
    return tasks


def load_rt_app(source: str | Path | Mapping[str, Any]) -> list[SimTask]:
    """Return the task set of an rt-app style JSON file.

    Of each entry of ``tasks`` it reads ``run`` (microseconds), ``timer.period`` or ``sleep``,
    ``deadline``, ``delay``, ``loop``, ``instance``, ``priority``, ``dl-runtime``, ``dl-period``,
    ``dl-deadline`` (microseconds) and the first of ``phases``. The priority of a task whose
    ``policy`` is ``SCHED_OTHER`` is its nice value, which becomes a weight; ``weight`` names one.

    :raises InvalidArgument: it is no such file; the message names the task and the key.

    Source: github.com/scheduler-tools/rt-app, doc/tutorial.txt.
    """
    if isinstance(source, Mapping):
        document: Any = source
    else:
        try:
            document = json.loads(Path(source).read_text())
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"reading a task set from {source}: {error}") from error
    tasks = document.get("tasks") if isinstance(document, Mapping) else None
    if not isinstance(tasks, Mapping) or not tasks:
        raise InvalidArgument("the task set has no \"tasks\" object with tasks in it")
    found = []
    for name, entry in tasks.items():
        if not isinstance(entry, Mapping):
            raise InvalidArgument(f"task {name!r} is {entry!r}; give an object with \"run\" in it")
        count = _whole(name, "instance", entry.get("instance", 1), 0, _INSTANCES)
        found += [_rt_app_task(name + (f"-{number}" if count > 1 else ""), entry)
                  for number in range(count)]
    if not found:
        raise InvalidArgument("every task has 0 instances: there is nothing to run")
    return found


def _rt_app_task(name: str, entry: Mapping[str, Any]) -> SimTask:
    phase = dict(entry)
    if isinstance(entry.get("phases"), Mapping) and entry["phases"]:
        first = next(iter(entry["phases"].values()))
        if not isinstance(first, Mapping):
            raise InvalidArgument(f"task {name!r}: its first phase is {first!r}, no object")
        phase |= first
    if "run" not in phase:
        raise InvalidArgument(f"task {name!r} has no \"run\" (microseconds of work)")
    work = _us(name, "run", phase["run"])
    timer = phase.get("timer")
    period = (_us(name, "timer.period", timer.get("period", 0)) if isinstance(timer, Mapping)
              else work + _us(name, "sleep", phase["sleep"]) if "sleep" in phase else 0)
    priority, weight = 0, _whole(name, "weight", phase.get("weight", 0), 0, 1 << 16)
    if phase.get("policy") == "SCHED_OTHER" and "priority" in phase:
        nice = _whole(name, "priority", phase["priority"], -20, 19)
        weight = weight or round(_NICE_0 / _NICE_STEP ** nice)
    else:
        priority = _whole(name, "priority", phase.get("priority", 0), -(1 << 31), 1 << 31)
    runtime = _us(name, "dl-runtime", phase.get("dl-runtime", 0))
    deadline = phase.get("dl-deadline", phase.get("deadline"))
    return SimTask(
        name, work, period or _us(name, "dl-period", phase.get("dl-period", 0)),
        None if deadline is None else _us(name, "deadline", deadline),
        _us(name, "delay", phase.get("delay", 0)), min(max(priority, 0), 63), weight,
        slice=runtime or None, jobs=max(_whole(name, "loop", phase.get("loop", 0), -1, 1 << 31), 0))


def _whole(name: str, key: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidArgument(f"task {name!r}: {key} is {value!r}; give a whole number, {least} to "
                              f"{most}")
    return value


def _us(name: str, key: str, value: Any) -> int:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= _US_MAX:
        raise InvalidArgument(f"task {name!r}: {key} is {value!r}; give microseconds, 0 to "
                              f"{_US_MAX}")
    return round(value * 1000)
