"""Schedules of random task sets against what must hold of any of them, at every instant.

The judge below knows nothing of how a policy picks: it replays who ran, and looks at who wanted to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikit.component import Component
from unikit.sched import Coop, Edf, Fair, Prio
from unikit.sched.lab import Job, Schedule, SimTask, simulate, uunifast

pytestmark = pytest.mark.fast

MS = 1_000_000
POLICIES: list[Component] = [Coop(), Edf(limit=100), Fair(slice="1ms"), Prio()]

periodic = st.builds(
    lambda work, period, offset, priority: (min(work, period) * MS // 4, period * MS // 4,
                                            offset * MS // 4, priority),
    st.integers(1, 8), st.integers(2, 40), st.integers(0, 20), st.integers(0, 3))


def task_set(rows: list[tuple[int, int, int, int]], **more: object) -> list[SimTask]:
    """Make tasks; none reserves anything unless told, so that any load is admitted."""
    return [SimTask(f"t{n}", work, period, offset=offset, priority=priority,
                    **({"slice": 0} | more))  # type: ignore[arg-type]
            for n, (work, period, offset, priority) in enumerate(rows)]


def pending(schedule: Schedule) -> Iterator[tuple[int, int, int, list[Job]]]:
    """Yield (start, end, task or -1, jobs released and not finished) of every stretch of time."""
    cuts = sorted({0, schedule.until} | {time for each in schedule.segments for time in each[:2]}
                  | {job.release for job in schedule.jobs})
    running = {each.start: each for each in schedule.segments}
    now = None
    for start, end in zip(cuts, cuts[1:], strict=False):
        now = running.get(start, now)
        task = now.task if now is not None and now.start <= start < now.end else -1
        yield start, end, task, [job for job in schedule.jobs if job.release <= start
                                 and (job.finish is None or job.finish > start)]


def no_job_is_lost_or_run_twice(schedule: Schedule) -> None:
    """Each release up to the first unfinished job of a task has its job, done once, in order."""
    for number, task in enumerate(schedule.tasks):
        jobs = [job for job in schedule.jobs if job.task == number]
        assert [job.number for job in jobs] == list(range(len(jobs)))
        assert [job.release for job in jobs] == [
            int(task.offset) + n * task.period_ns for n in range(len(jobs))]
        unfinished = [job for job in jobs if job.finish is None]
        assert len(unfinished) <= 1
        for job in jobs:
            ran = [each for each in schedule.segments
                   if (each.task, each.job) == (number, job.number)]
            assert sum(each.end - each.start for each in ran) == job.used
            if job.finish is not None:
                assert job.used == task.wcet_ns
                assert ran[0].start == job.start >= job.release and ran[-1].end == job.finish
        if not unfinished:  # the next one would have been released after the end, or it waited
            following = int(task.offset) + len(jobs) * task.period_ns
            busy = jobs and (jobs[-1].finish or 0) >= schedule.until
            assert following >= schedule.until or busy or not idle_somewhere(schedule, following)


def idle_somewhere(schedule: Schedule, since: int) -> bool:
    """Whether nobody ran at some instant after a time."""
    at = since
    for each in schedule.segments:
        if each.start > at:
            return True
        at = max(at, each.end)
    return at < schedule.until


def the_processor_works_while_there_is_work(schedule: Schedule) -> None:
    """Work conservation."""
    for start, end, task, wanting in pending(schedule):
        assert task >= 0 or not wanting, f"idle from {start} to {end} while {wanting} wait"


def nobody_better_waits(schedule: Schedule, better: Callable[[Job, Job], bool]) -> None:
    """At no instant does a job run while a better one is there."""
    for start, end, task, wanting in pending(schedule):
        first = {job.task: job for job in reversed(wanting)}  # a task's jobs go one by one
        if task < 0:
            continue
        assert task in first, f"task {task} ran from {start} to {end} without a job"
        for job in first.values():
            assert not better(job, first[task]), f"{job} waits from {start} to {end}: {task} runs"


@pytest.mark.parametrize("policy", POLICIES, ids=lambda each: each.stem())
@settings(max_examples=40, deadline=None)
@given(rows=st.lists(periodic, min_size=1, max_size=6))
def test_nothing_is_lost_run_twice_or_left_lying(policy: Component,
                                                 rows: list[tuple[int, int, int, int]]) -> None:
    """Under any load, also one that nobody can serve."""
    schedule = simulate(task_set(rows), policy, until=60 * MS)  # type: ignore[arg-type]
    no_job_is_lost_or_run_twice(schedule)
    the_processor_works_while_there_is_work(schedule)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(periodic, min_size=1, max_size=6))
def test_the_highest_priority_runs(rows: list[tuple[int, int, int, int]]) -> None:
    """At every instant, tasks being stopped as soon as a higher one is there."""
    schedule = simulate(task_set(rows), Prio(), until=60 * MS)
    priority = [task.priority for task in schedule.tasks]
    nobody_better_waits(schedule, lambda one, two: priority[one.task] > priority[two.task])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 7), load=st.floats(0.1, 1.0),
       offsets=st.lists(st.integers(0, 30), min_size=7, max_size=7))
def test_the_earliest_deadline_runs(seed: int, count: int, load: float, offsets: list[int]) -> None:
    """At every instant, and so every deadline of a feasible set is met (Dertouzos 1974)."""
    tasks = [dataclasses.replace(task, offset=offset * MS // 3)
             for task, offset in zip(uunifast(count, load, seed=seed, periods=("2ms", "20ms")),
                                     offsets, strict=False)]
    schedule = simulate(tasks, Edf(limit=100), until=100 * MS)
    nobody_better_waits(schedule, lambda one, two: (one.deadline or 0) < (two.deadline or 0))
    the_processor_works_while_there_is_work(schedule)
    assert schedule.missed == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), excess=st.floats(1.1, 30), victim=st.integers(0, 4),
       strict=st.booleans())
def test_who_misbehaves_hurts_nobody_else(seed: int, excess: float, victim: int, strict: bool
                                          ) -> None:
    """One of five works many times what it reserved; the other four miss nothing."""
    tasks = uunifast(5, 0.95, seed=seed, periods=("2ms", "20ms"))
    bad = tasks[victim]
    tasks[victim] = dataclasses.replace(bad, work=int(bad.wcet_ns * excess), slice=bad.wcet_ns,
                                        strict=strict)
    schedule = simulate([*tasks, SimTask("hog", "10s", slice=0)], Edf(), until=200 * MS)
    late = {job.task for job in schedule.jobs if job.deadline is not None
            and (schedule.until if job.finish is None else job.finish) > job.deadline}
    assert late <= {victim}
    share = schedule.used(victim) / schedule.until
    assert share >= bad.utilisation * 0.8 or schedule.jobs == ()  # and it gets what it reserved


@settings(max_examples=60, deadline=None)
@given(shares=st.lists(st.tuples(st.integers(1, 65536), st.integers(1, 40)), min_size=2,
                       max_size=7))
def test_lags_stay_within_a_slice(shares: list[tuple[int, int]]) -> None:
    """Any weights, any slices of their own: owed at most the longest slice of all, ahead at most
    one's own (Stoica, Abdel-Wahab 1995, theorem 2)."""
    tasks = [SimTask(f"t{n}", "100s", weight=weight, slice=slice * MS // 4)
             for n, (weight, slice) in enumerate(shares)]
    schedule = simulate(tasks, Fair(), until=300 * MS)
    total, longest = sum(weight for weight, _ in shares), max(slice for _, slice in shares)
    used = [0] * len(tasks)
    for each in schedule.segments:
        used[each.task] += each.end - each.start
        for n, (weight, slice) in enumerate(shares):
            lag = each.end * weight / total - used[n]
            assert -slice * MS / 4 - 2 <= lag <= longest * MS / 4 + 2
