"""The scheduler laboratory against theory, brute force and a schedule made by hand."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikit.errors import InvalidArgument, NotSupported, OutOfMemory
from unikit.sched import Coop, Edf, Fair, Loop, Prio
from unikit.sched.lab import (
    Segment,
    SimTask,
    analysis,
    gantt,
    load_rt_app,
    schedulable,
    simulate,
    uunifast,
)

pytestmark = pytest.mark.fast

MS = 1_000_000
SVG = "{http://www.w3.org/2000/svg}"


def exact(tasks: list[SimTask], limit: int) -> bool:
    """Say whether EDF meets all deadlines: the demand in every stretch, looked at one by one."""
    return all(analysis.demand(tasks, time) <= time for time in range(1, limit))


# ---- the schedule itself


def test_edf_makes_the_schedule_of_the_textbook() -> None:
    """Liu and Layland's kind of example, worked out by hand: who runs from when to when."""
    tasks = [SimTask("a", "2ms", "5ms"), SimTask("b", "4ms", "7ms")]
    schedule = simulate(tasks, Edf(limit=100), until="14ms")
    assert [(each.start // MS, each.end // MS, "ab"[each.task]) for each in schedule.segments] == [
        (0, 2, "a"), (2, 6, "b"), (6, 8, "a"), (8, 12, "b"), (12, 14, "a")]
    assert schedule.missed == 0


def test_rate_monotonic_misses_what_edf_meets() -> None:
    """The same set under fixed priorities: b is late, as its response-time analysis says."""
    tasks = [SimTask("a", "2ms", "5ms", priority=2), SimTask("b", "4ms", "7ms", priority=1)]
    schedule = simulate(tasks, Prio, until="35ms")
    assert schedule.missed > 0
    assert analysis.response_times(tasks) == [2 * MS, None]
    verdicts = schedulable(tasks, "prio")
    assert [each.schedulable for each in verdicts] == [None, None, False]
    assert schedulable(tasks, "sched.edf")[0].schedulable is True


def test_the_same_input_gives_the_same_schedule() -> None:
    """Nothing of this machine may get into a simulation."""
    tasks = uunifast(6, 0.9, seed=3)
    assert simulate(tasks, Fair, until="200ms") == simulate(tasks, Fair, until="200ms")


def test_segments_neither_overlap_nor_lose_time() -> None:
    """Run, idle and overhead add up to all the time there is."""
    tasks = [*uunifast(5, 0.7, seed=11), SimTask("batch", "20ms", offset="7ms")]
    for policy in (Edf(), Prio(), Fair(), Coop()):
        found = simulate(tasks, policy, until="300ms", switch="3us")
        ends = [each.end for each in found.segments]
        starts = [each.start for each in found.segments]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
        ran = sum(each.end - each.start for each in found.segments)
        over = max(ends[-1] - found.until, 0)
        assert ran + found.idle + found.overhead - over == pytest.approx(found.until, abs=3000)
        assert sum(job.used for job in found.jobs) == ran


# ---- theory


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.floats(0.1, 1.0))
def test_edf_meets_every_deadline_of_an_admitted_set(seed: int, count: int, load: float) -> None:
    """Optimality on one processor: a utilisation up to 1 is enough."""
    tasks = uunifast(count, load, seed=seed, periods=("1ms", "20ms"))
    assert simulate(tasks, Edf(limit=100), until="150ms", keep=0).missed == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_response_times_are_what_the_analysis_says(seed: int) -> None:
    """Released together, each task's first job takes exactly the computed time, and none longer."""
    tasks = [SimTask(each.name, each.work, each.period, priority=40 - n)
             for n, each in enumerate(sorted(uunifast(4, 0.8, seed=seed, periods=("1ms", "10ms")),
                                             key=lambda each: each.period))]
    schedule = simulate(tasks, Prio, until="100ms")
    for number, expected in enumerate(analysis.response_times(tasks)):
        found = schedule.response(number)
        assert found is not None
        first = next(job for job in schedule.jobs if job.task == number)
        if expected is not None:
            assert first.response == expected == found.most


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(2, 12), st.integers(0, 6)), min_size=1,
                max_size=4))
def test_the_demand_test_agrees_with_looking_at_every_stretch(
        sets: list[tuple[int, int, int]]) -> None:
    """The quick test skips most stretches; it must not skip the one that fails."""
    tasks = [SimTask(str(n), min(work, period), period, max(period - less, 1))
             for n, (work, period, less) in enumerate(sets)]
    verdict = analysis.deadlines(tasks)
    assert verdict.schedulable is (analysis.utilisation(tasks) <= 1 + 1e-12
                                   and exact(tasks, 30_000))


def test_overruns_stay_with_the_task_that_overruns() -> None:
    """A task that works thrice what it reserved is late; nobody else is."""
    tasks = [SimTask("good", "3ms", "10ms"), SimTask("bad", "9ms", "10ms", slice="3ms"),
             SimTask("fine", "6ms", "20ms")]
    schedule = simulate(tasks, Edf, until="1s")
    late = {job.task for job in schedule.jobs
            if job.deadline is not None and (job.finish is None or job.finish > job.deadline)}
    assert late == {1}


# ---- fairness


def test_fair_shares_stay_within_a_slice() -> None:
    """Three endless jobs of different weights: nobody is ever off by more than a slice."""
    tasks = [SimTask(name, "10s", weight=weight)
             for name, weight in (("a", 1024), ("b", 3072), ("c", 512))]
    schedule = simulate(tasks, Fair(slice="2ms"), until="2s")
    assert schedule.fairness_error() <= 2 * MS
    assert schedule.used("b") / schedule.used("a") == pytest.approx(3, rel=0.01)
    assert simulate(tasks, Coop, until="2s").fairness_error() > 100 * MS


# ---- inputs


def test_uunifast_sums_up() -> None:
    """The utilisation asked for, within rounding to the granularity."""
    rng = random.Random(1)
    for _ in range(50):
        count, load = rng.randint(1, 10), rng.uniform(0.1, 1)
        tasks = uunifast(count, load, rng=rng)
        assert len(tasks) == count
        assert analysis.utilisation(tasks) == pytest.approx(load, abs=count * 1e-3)


def test_an_rt_app_file_is_read(tmp_path: Path) -> None:
    """Periodic by timer, by sleep, with a deadline reservation, several instances."""
    path = tmp_path / "set.json"
    path.write_text(json.dumps({"tasks": {
        "timer": {"run": 2000, "timer": {"ref": "unique", "period": 10000}, "instance": 2},
        "sleep": {"phases": {"p0": {"run": 100, "sleep": 900, "loop": 3}}},
        "dl": {"run": 500, "policy": "SCHED_DEADLINE", "dl-runtime": 600, "dl-period": 4000,
               "dl-deadline": 3000}}}))
    tasks = load_rt_app(path)
    assert [each.name for each in tasks] == ["timer-0", "timer-1", "sleep", "dl"]
    assert (tasks[0].work, tasks[0].period) == ((2 * MS,), 10 * MS)
    assert (tasks[2].period, tasks[2].jobs) == (MS, 3)
    assert (tasks[3].slice, tasks[3].period, tasks[3].deadline) == (600_000, 4 * MS, 3 * MS)
    assert simulate(tasks, Edf, until="100ms").missed == 0


@pytest.mark.parametrize(("document", "said"), [
    ({}, "tasks"), ({"tasks": {"x": {}}}, "run"), ({"tasks": {"x": {"run": -1}}}, "-1")])
def test_a_broken_rt_app_file_is_named(document: dict[str, object], said: str) -> None:
    """The message leads to the task and the key."""
    with pytest.raises(InvalidArgument, match=said):
        load_rt_app(document)


def test_wrong_simulations_are_refused() -> None:
    """Each with what is wrong, and nothing started."""
    task = SimTask("t", "1ms", "10ms")
    with pytest.raises(InvalidArgument, match="no threads"):
        simulate([task], Loop, until="1s")
    with pytest.raises(InvalidArgument):
        simulate([], Prio, until="1s")
    with pytest.raises(InvalidArgument, match="work"):
        SimTask("t", 0)
    with pytest.raises(InvalidArgument, match="soon"):
        SimTask("t", "soon")
    with pytest.raises(InvalidArgument, match="'t'"):
        simulate([SimTask("t", "1ms", priority=64)], Prio, until="1s")
    with pytest.raises(OutOfMemory, match="'second' is not admitted"):
        simulate([SimTask("first", "6ms", "10ms"), SimTask("second", "5ms", "10ms")], Edf,
                 until="1s")


# ---- pictures


def test_a_gantt_picture_shows_every_run(tmp_path: Path) -> None:
    """An SVG: each run in its place, releases and deadlines, a cross for each one missed."""
    tasks = [SimTask("a & b", "4ms", "10ms", priority=1), SimTask("late", "7ms", "10ms")]
    schedule = simulate(tasks, Prio, until="40ms")
    text = schedule.gantt(tmp_path / "s.svg").read_text()
    root = ElementTree.fromstring(text)
    bars = [each for each in root.iter(f"{SVG}rect") if each.get("height") == "22"]
    assert len(bars) == len(schedule.segments)
    assert sum(float(bar.get("width", 0)) for bar in bars) == pytest.approx(
        (960 - 20 - 16 - 6.7 * 5), abs=1)  # somebody runs all the time
    assert text.count("l8 8m0 -8l-8 8") == schedule.missed > 0
    assert text.count('l-3.5 6h7z') == len(schedule.jobs)
    assert "a &amp; b, job 0: 0 to 4 ms" in text and ">40<" in text


@pytest.mark.parametrize("end", [7, 999, 12_345, 1_000_000, 86_400_000_000_000])
def test_an_axis_has_about_ten_marks(end: int) -> None:
    """Whatever the length of time."""
    marks = gantt._ticks(gantt._View(0, end, 1, "ns"))
    assert marks[0] == 0 and 4 <= len(marks) <= 13
    assert {two - one for one, two in zip(marks, marks[1:], strict=False)} == {marks[1]}
    assert str(marks[1]).rstrip("0") in ("1", "2", "5")


def test_a_gantt_picture_is_a_png_too(tmp_path: Path) -> None:
    """Where matplotlib is."""
    pytest.importorskip("matplotlib")
    schedule = simulate([SimTask("video", "4ms", "10ms")], Edf, until="40ms")
    assert schedule.gantt(tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InvalidArgument, match="svg or .png"):
        schedule.gantt(tmp_path / "s.txt")


def test_without_matplotlib_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is in the message, and an SVG is drawn all the same."""
    schedule = simulate([SimTask("t", "1ms")], Prio, until="2ms")
    assert schedule.segments == (Segment(0, MS, 0, 0),)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(NotSupported, match=r"pip install matplotlib\); .svg needs nothing"):
        schedule.gantt(tmp_path / "s.png")
    assert schedule.gantt(tmp_path / "s.svg").exists()
