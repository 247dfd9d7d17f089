"""``unikit sched simulate``: a task set in virtual time, beside what theory says."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from unikit.alloc.lab.units import percent, seconds
from unikit.cli.alloc.table import styled
from unikit.cli.output import progress
from unikit.cli.sched.chosen import Chosen, schedulers
from unikit.component import Component, parse_duration
from unikit.errors import InvalidArgument, OutOfMemory
from unikit.sched.lab import (
    Schedule,
    SimTask,
    Verdict,
    gantt,
    load_rt_app,
    schedulable,
    simulate,
)

_MOST_NS = 10_000_000_000
_SHOWN_JOBS = 60  # of all tasks, in a picture whose end was not given
_LEVELS = 64
MISSED = 3
"""Exit status with ``--check`` where a deadline was missed."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One scheduler's turn at a task set.

    :ivar schedule: ``None``: it refused the set; ``refusal`` says why.
    """

    chosen: Chosen
    schedule: Schedule | None
    refusal: str
    verdicts: list[Verdict]


def do_simulate(choice: argparse.Namespace) -> int:
    """Simulate, print, draw."""
    document = _read(choice.taskset)
    tasks = _ranked(load_rt_app(document), choice.priorities)
    until = _until(choice.until, document, tasks)
    times = {name: _time(name, getattr(choice, name))
             for name in ("switch", "call", "tick", "start")}
    end = None if choice.to is None else _time("to", choice.to)
    pictures = _pictures(choice.gantt)
    found = []
    for each in schedulers(choice, _able):
        with progress(f"simulating {seconds(until / 1e9)} under {each.name}"):
            found.append(_outcome(each, tasks, until, times, choice.cooperative))
    if choice.json:
        print(json.dumps({"format": "unikit sched simulate", "version": 1, "until_ns": until,
                          "outcomes": [_facts(each) for each in found]}, indent=2))
    else:
        _print(tasks, found, until)
    if pictures is not None:
        _draw(found, pictures, times["start"],
              _picture_end(tasks, times["start"], until) if end is None else end)
    bad = any(each.schedule is None or each.schedule.missed for each in found)
    return MISSED if choice.check and bad else 0


def _able(record: type[Component]) -> str | None:
    return None if "threads" in record.features else (
        "its tasks are callbacks that run to completion, so there is nothing to simulate")


def _read(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        document = json.loads(text)
    except OSError as error:
        raise InvalidArgument(f"{name}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidArgument(f"{name}: no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgument(f"{name}: a task set is a JSON object with \"tasks\" in it; see "
                              "unikit sched simulate --help")
    return document


def _time(name: str, text: str) -> int:
    word = {"start": "from"}.get(name, name)
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidArgument(f"--{word}: {error}") from error


def _ranked(tasks: list[SimTask], by: str) -> list[SimTask]:
    """Give the shorter period or deadline the higher priority; tasks without one the lowest."""
    if by == "file":
        return tasks

    def span(task: SimTask) -> float:
        return (task.period_ns if by == "rate" else task.limit_ns) or math.inf

    levels = sorted({span(task) for task in tasks}, reverse=True)
    if len(levels) > _LEVELS:
        raise InvalidArgument(f"--priorities {by}: the tasks have {len(levels)} different ones, "
                              f"and there are {_LEVELS} priorities")
    return [dataclasses.replace(task, priority=levels.index(span(task))) for task in tasks]


def _until(given: str | None, document: dict[str, Any], tasks: list[SimTask]) -> int:
    """Return how long to simulate."""
    if given is not None:
        until = _time("until", given)
        if until == 0:
            raise InvalidArgument("--until: give more than 0")
        return until
    settings = document.get("global")
    duration = settings.get("duration", -1) if isinstance(settings, dict) else -1
    if isinstance(duration, int | float) and not isinstance(duration, bool) and duration > 0:
        return round(duration * 1e9)
    periods = [task.period_ns for task in tasks if task.period]
    start = max(int(task.offset) for task in tasks)
    once = sum(sum(task.works_ns) for task in tasks if not task.period)
    return min(start + once + 2 * math.lcm(*periods) if periods else start + once, _MOST_NS)


def _pictures(name: str | None) -> Path | None:
    if name is None:
        return None
    gantt.check(Path(name))
    return Path(name)


def _draw(found: list[Outcome], path: Path, start: int, end: int) -> None:
    for outcome in found:
        if outcome.schedule is None:
            continue
        name = outcome.chosen.name.replace(":", "-")
        target = path if len(found) == 1 else path.with_name(f"{path.stem}-{name}{path.suffix}")
        outcome.schedule.gantt(target, start=start, end=end)
        sys.stderr.write(f"unikit: wrote {target}\n")


def _picture_end(tasks: list[SimTask], start: int, until: int) -> int:
    rate = sum(1 / task.period_ns for task in tasks if task.period)
    return min(until, start + round(_SHOWN_JOBS / rate)) if rate else until


def _outcome(chosen: Chosen, tasks: list[SimTask], until: int, times: dict[str, int],
             cooperative: bool) -> Outcome:
    verdicts = schedulable(tasks, chosen.record.id)
    try:
        schedule = simulate(tasks, chosen.record, until=until, switch=times["switch"],
                            call=times["call"], tick=times["tick"], cooperative=cooperative)
    except OutOfMemory as error:
        return Outcome(chosen, None, str(error), verdicts)
    return Outcome(chosen, schedule, "", verdicts)


# ---- for people ---------------------------------------------------------------------------------


def _print(tasks: list[SimTask], found: list[Outcome], until: int) -> None:
    load = sum(task.utilisation for task in tasks)
    print(f"{len(tasks)} task{'s' * (len(tasks) != 1)}, utilisation {load:.3f}, "
          f"{seconds(until / 1e9)} of virtual time")
    for each in found:
        print(f"\n{each.chosen.name}:", end=" ")
        if each.schedule is None:
            print(f"refused: {each.refusal}")
        else:
            _schedule(each.schedule)
        for verdict in each.verdicts:
            print(f"  {_said(verdict)}")
        if each.verdicts and each.schedule is not None:
            print(f"  {_beside(each.schedule, each.verdicts)}")
        if "priorities" in each.chosen.record.features and len(tasks) > 1 \
                and len({task.priority for task in tasks}) == 1:
            print("  all tasks have one priority; --priorities rate gives the shorter period the "
                  "higher one")


def _schedule(schedule: Schedule) -> None:
    timed = sum(1 for job in schedule.jobs if job.deadline is not None)
    print(f"{schedule.missed} of {timed} deadlines missed, {schedule.switches:,} switches, idle "
          f"{percent(schedule.idle / schedule.until)}, furthest from fair shares "
          f"{seconds(schedule.fairness_error() / 1e9)}"
          + (f", switching cost {percent(schedule.overhead / schedule.until)}"
             if schedule.overhead else ""))
    rows = []
    for number, task in enumerate(schedule.tasks):
        jobs = [job for job in schedule.jobs if job.task == number]
        missed = sum(1 for job in jobs if job.deadline is not None
                     and (schedule.until if job.finish is None else job.finish) > job.deadline)
        response = schedule.response(number)
        times = [seconds(value / 1e9) for value in
                 (response.least, response.median, response.p99, response.most)
                 ] if response else ["-"] * 4
        rows.append([(text, "") for text in (
            f"  {task.name}", seconds(task.wcet_ns / 1e9),
            seconds(task.period_ns / 1e9) if task.period else "once",
            seconds(task.limit_ns / 1e9) if task.limit_ns else "-",
            percent(task.utilisation) if task.period else "-", str(len(jobs)))]
            + [(str(missed), "bad" if missed else ""), *((text, "") for text in times)])
    styled(("  task", "work", "period", "deadline", "share", "jobs", "missed", "response: least",
            "median", "p99", "most"), rows)


def _said(verdict: Verdict) -> str:
    answer = {True: "every deadline is met", False: "a deadline can be missed",
              None: "cannot tell"}[verdict.schedulable]
    if verdict.schedulable is None and verdict.value <= verdict.bound:
        shown = "it is for deadlines as long as the period"
    elif math.isinf(verdict.value):
        shown = "a response takes longer than its deadline"
    else:
        relation = "<=" if verdict.value <= verdict.bound else ">"
        shown = f"{verdict.value:.3f} {relation} {verdict.bound:.3f}"
    return f"{verdict.test}: {answer} ({shown}; {verdict.source})"


def _beside(schedule: Schedule, verdicts: list[Verdict]) -> str:
    """Say what the simulation adds to theory; the tests know neither overhead nor overruns."""
    seen = f"the simulation missed {schedule.missed}" if schedule.missed else \
        "the simulation missed none"
    if any(each.schedulable is True for each in verdicts):
        if not schedule.missed:
            return f"simulation and theory agree: {seen}"
        why = "switching costs, ticks or work beyond what is reserved"
        return f"theory promises every deadline, {seen}: {why} are not in the theory"
    if any(each.schedulable is False for each in verdicts):
        return f"simulation and theory agree: {seen}" if schedule.missed else \
            f"{seen} in this stretch and with these offsets; others can"
    return f"theory cannot tell; {seen} in this stretch"


def _facts(each: Outcome) -> dict[str, Any]:
    schedule = each.schedule
    facts: dict[str, Any] = {
        "scheduler": each.chosen.name, "id": each.chosen.record.id,
        "tests": [dataclasses.asdict(verdict) | {
            "value": verdict.value if math.isfinite(verdict.value) else None}
            for verdict in each.verdicts]}
    if schedule is None:
        return facts | {"refused": each.refusal}
    responses = [schedule.response(number) for number in range(len(schedule.tasks))]
    return facts | {
        "missed": schedule.missed, "switches": schedule.switches, "idle_ns": schedule.idle,
        "overhead_ns": schedule.overhead, "fairness_error_ns": schedule.fairness_error(),
        "tasks": [{"name": task.name, "response_ns": response and dataclasses.asdict(response)}
                  for task, response in zip(schedule.tasks, responses, strict=True)],
        "jobs": [job._asdict() for job in schedule.jobs],
        "segments": [segment._asdict() for segment in schedule.segments]}
