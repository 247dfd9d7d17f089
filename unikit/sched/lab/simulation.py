"""Run a task set on a scheduler in virtual time and keep what happened."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unikit.alloc import Tlsf
from unikit.component import parse_duration
from unikit.errors import InvalidArgument, OutOfMemory
from unikit.ffi import load
from unikit.sched.lab.taskset import SimTask, Time
from unikit.sched.policy import raise_failure

if TYPE_CHECKING:
    from unikit.sched.api import Scheduler

_NEVER = 2**64 - 1
_STRICT = 1


class Segment(NamedTuple):
    """One task ran without a break; times are ns.

    :ivar task: its index in the task set.
    :ivar job: the number of the job it worked on.
    """

    start: int
    end: int
    task: int
    job: int


class Job(NamedTuple):
    """What became of one job; times are ns, ``None``: not before the end of the simulation.

    :ivar deadline: absolute; ``None``: it had none.
    :ivar used: how long it ran.
    """

    task: int
    number: int
    release: int
    start: int | None
    finish: int | None
    deadline: int | None
    used: int

    @property
    def response(self) -> int | None:
        """From release to finish."""
        return None if self.finish is None else self.finish - self.release


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """Response times of a task's finished jobs, ns."""

    jobs: int
    least: int
    median: int
    p99: int
    most: int


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What a simulation produced.

    :ivar policy: id of the scheduler.
    :ivar tasks: the task set.
    :ivar until: end of the simulation, ns.
    :ivar segments: who ran when, in order of time; empty if not kept.
    :ivar jobs: all jobs that were released and ended, or were running at the end.
    :ivar missed: jobs that were not done by their deadline.
    :ivar switches: to a task's stack.
    :ivar idle: ns in which nobody wanted to run.
    :ivar overhead: ns that switches and the scheduler cost.
    """

    policy: str
    tasks: tuple[SimTask, ...]
    until: int
    segments: tuple[Segment, ...]
    jobs: tuple[Job, ...]
    missed: int
    switches: int
    idle: int
    overhead: int

    def response(self, task: int | str) -> Response | None:
        """Return the response times of a task, ``None`` if no job of it was finished."""
        index = self.index(task)
        times = sorted(job.response for job in self.jobs
                       if job.task == index and job.response is not None)
        if not times:
            return None
        return Response(len(times), times[0], round(statistics.median(times)),
                        times[min(len(times) - 1, len(times) * 99 // 100)], times[-1])

    def index(self, task: int | str) -> int:
        """Return a task's index by its name."""
        if isinstance(task, int):
            return task
        for number, each in enumerate(self.tasks):
            if each.name == task:
                return number
        raise InvalidArgument(f"no task {task!r}; there are "
                              f"{', '.join(each.name for each in self.tasks)}")

    def used(self, task: int | str, start: int = 0, end: int | None = None) -> int:
        """Return for how long a task ran between two times, ns; needs the segments."""
        index, end = self.index(task), self.until if end is None else end
        return sum(max(0, min(each.end, end) - max(each.start, start))
                   for each in self.segments if each.task == index)

    def fairness_error(self) -> int:
        """Return the largest difference of any task from its due share at any time, ns.

        Due is what an ideal processor would have given that divides each instant by weight among
        the tasks that have work; needs the segments.
        """
        weights = [each.weight or 1024 for each in self.tasks]
        marks = sorted({0, self.until} | {time for segment in self.segments for time in segment[:2]}
                       | {time for job in self.jobs
                          for time in (job.release, job.finish) if time is not None})
        busy: list[list[tuple[int, int]]] = [[] for _ in self.tasks]
        for job in self.jobs:
            busy[job.task].append((job.release, self.until if job.finish is None else job.finish))
        lag, worst, runs = [0.0] * len(self.tasks), 0.0, iter(self.segments)
        segment, at = next(runs, None), [0] * len(self.tasks)
        for start, end in zip(marks, marks[1:], strict=False):
            while segment is not None and segment.end <= start:
                segment = next(runs, None)
            wanting = [n for n in range(len(self.tasks)) if _covers(busy[n], at, n, start)]
            total = sum(weights[n] for n in wanting)
            for n in range(len(self.tasks)):
                if n not in wanting:
                    lag[n] = 0.0  # it neither earns nor loses while it has no work
                    continue
                ran = segment is not None and segment.task == n and segment.start <= start
                lag[n] += (end - start) * (weights[n] / total - ran)
                worst = max(worst, abs(lag[n]))
        return round(worst)

    def gantt(self, path: str | Path, *, start: Time = 0, end: Time | None = None) -> Path:
        """Draw who ran when, releases, deadlines and misses.

        :param path: ``.svg`` or ``.png``; overwritten.
        :raises NotSupported: it is .png, and matplotlib is not installed.
        """
        from unikit.sched.lab.gantt import draw
        return draw(self, Path(path), parse_duration(start),
                    self.until if end is None else parse_duration(end))


def _covers(spans: Sequence[tuple[int, int]], at: list[int], task: int, time: int) -> bool:
    while at[task] < len(spans) and spans[at[task]][1] <= time:
        at[task] += 1
    return at[task] < len(spans) and spans[at[task]][0] <= time


def simulate(tasks: Iterable[SimTask], policy: Scheduler | type[Scheduler], *, until: Time,
             switch: Time = 0, call: Time = 0, tick: Time = 0, cooperative: bool = False,
             keep: int = 1_000_000, memory: int | str = "64M") -> Schedule:
    """Run a task set on a scheduler in virtual time; the same input gives the same schedule.

    The scheduler is the component itself, as an image carries it. A task that works is stopped
    where the policy says, as preemption does in an image.

    :param tasks: at least one; their order breaks ties.
    :param policy: a record with the options to use, or its class; or a
        :class:`~unikit.sched.Policy` in Python.
    :param until: end of the simulation.
    :param switch: what each change of the running task costs; that task is billed for it.
    :param call: what the scheduler takes from one of its readings of the clock to the next; who is
        billed for it depends on the policy, as on a real clock.
    :param tick: tasks are stopped at multiples of this only, as a periodic timer does; 0: exactly.
    :param cooperative: tasks are never stopped within a job.
    :param keep: segments and jobs that are kept at most; what is beyond is counted only.
    :param memory: for stacks and the scheduler's state.
    :raises InvalidArgument: a task set or a policy that does not fit.
    :raises OutOfMemory: the policy does not admit a task, or memory is short; the message says.

    >>> from unikit.sched import Edf
    >>> tasks = [SimTask("video", "4ms", "10ms"), SimTask("audio", "1ms", "4ms")]
    >>> schedule = simulate(tasks, Edf, until="1s")
    >>> schedule.missed, schedule.response("audio").most
    (0, 1000000)
    """
    chosen = tuple(tasks)
    record = policy() if isinstance(policy, type) else policy
    if "threads" not in record.features:
        raise InvalidArgument(f"simulating {record.id}: it has no threads, so nothing to decide")
    ffi, lib = load.extension("unikit.sched.lab._lab")
    run = _Run(ffi, chosen, record, parse_duration(until))
    sim = run.sim
    sim.switch_ns, sim.tick_ns = parse_duration(switch), parse_duration(tick)
    sim.call_ns = parse_duration(call)
    sim.cooperative = cooperative
    run.keep(keep)
    with Tlsf().open(memory) as heap:
        rc = lib.kit_sim_run(sim, load.component(record), load.options(record), heap._live())
        run.check(rc)
    return run.schedule()


class _Run:
    """The C side of one simulation and what it points to."""

    def __init__(self, ffi: Any, tasks: tuple[SimTask, ...], record: Scheduler, until: int) -> None:
        self.ffi, self.tasks, self.record = ffi, tasks, record
        self.sim = ffi.new("struct kit_sim *")
        self.array = ffi.new("struct kit_sim_task[]", max(len(tasks), 1))
        self.works = []
        reserves = "reservations" in record.features
        for into, task in zip(self.array, tasks, strict=False):
            work = ffi.new("uint64_t[]", task.works_ns)
            self.works.append(work)
            into.offset_ns, into.period_ns = task.offset, task.period
            into.deadline_ns, into.jobs = task.deadline or 0, task.jobs
            into.work_ns, into.works = work, len(work)
            _share(into.share, task, reserves)
        self.sim.tasks, self.sim.count, self.sim.end_ns = self.array, len(tasks), until

    def keep(self, most: int) -> None:
        """Make room for what happens."""
        self.segments = self.ffi.new("struct kit_sim_segment[]", max(most, 1))
        self.jobs = self.ffi.new("struct kit_sim_job[]", max(most, 1))
        self.sim.segments, self.sim.segments_max = self.segments, most
        self.sim.jobs, self.sim.jobs_max = self.jobs, most

    def check(self, rc: int) -> None:
        """Raise what went wrong, naming the task."""
        if rc == 0:
            return
        raise_failure(self.record)
        doing = f"simulating {len(self.tasks)} tasks on {self.record.id}"
        if self.sim.refused:
            task = self.tasks[self.sim.refused - 1]
            if rc == -1 and "reservations" in self.record.features:
                raise OutOfMemory(f"{doing}: task {task.name!r} is not admitted: the processor has "
                                  f"not {task.utilisation:.3f} left to promise")
            doing += f", task {task.name!r}"
        load.check(rc, doing)

    def schedule(self) -> Schedule:
        """Return what happened as Python objects."""
        sim = self.sim
        kept = min(sim.segment_count, sim.segments_max)
        segments = tuple(Segment(each.start_ns, each.end_ns, each.task, each.job)
                         for each in self.segments[0:kept] if each.end_ns > each.start_ns)
        jobs = tuple(Job(each.task, each.number, each.release_ns, _time(each.start_ns),
                         _time(each.finish_ns), _time(each.deadline_ns), each.used_ns)
                     for each in self.jobs[0:min(sim.job_count, sim.jobs_max)])
        return Schedule(self.record.id, self.tasks, sim.end_ns, segments, jobs, sim.missed,
                        sim.stats.switches, sim.idle_ns, sim.overhead_ns)


def _share(into: Any, task: SimTask, reserves: bool) -> None:
    into.priority, into.weight = task.priority, task.weight
    slice_ns = task.wcet_ns if task.slice is None else task.slice
    if reserves and task.period and slice_ns:
        into.slice_ns, into.period_ns = slice_ns, task.period
        into.deadline_ns = task.deadline or 0
        into.flags = _STRICT * task.strict
    elif not reserves:
        into.slice_ns = task.slice or 0


def _time(value: int) -> int | None:
    return None if value == _NEVER else int(value)
