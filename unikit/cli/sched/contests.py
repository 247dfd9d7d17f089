"""What ``unikit sched bench`` measures, and whom against whom."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from unikit.cli.sched import loops, native
from unikit.cli.sched.chosen import Chosen
from unikit.sched.lab import uunifast

UTILISATIONS = (50, 60, 70, 80, 90, 95, 100)
SLEEPERS = (1, 1000, 100_000)
PERCENTILES = ("p50", "p99", "p99.9", "p100")
_SWITCHES, _SYSTEM, _PYTHON = 2_000_000, 50_000, 20_000
_WAKE = ("4", "50000", "2000")  # workers, ns of work, wake-ups
_CYCLIC = ("4", "500000", "600")  # tasks that load, ns between, wake-ups
_SPAN_NS = 200_000_000


@dataclasses.dataclass(frozen=True)
class Contest:
    """One thing to measure.

    :ivar metrics: what the programs report, with the heading of each; the first one has the ratio.
    :ivar unit: of the first metric.
    :ivar reference: the row that the others are compared with, or the next one that is there.
    :ivar threads: whether a scheduler needs threads for it.
    """

    name: str
    title: str
    metrics: tuple[tuple[str, str], ...]
    unit: str
    reference: tuple[str, ...]
    threads: bool = True


_LATENCY = tuple((name, "max" if name == "p100" else name) for name in PERCENTILES)
CONTESTS = (
    Contest("switch", "switch between two stacks, no scheduler", (("switch", "ns"),), "ns",
            ("Boost.Context", "swapcontext")),
    Contest("yield", "yield through the run queue, 16 tasks", (("yield", "ns"),), "ns",
            ("pthreads",)),
    Contest("spawn", "spawn, run and join a task that does nothing", (("spawn", "ns"),), "ns",
            ("pthreads",), threads=False),
    Contest("wakeup", "wake-up latency as schbench: 4 workers of 50 us, one processor", _LATENCY,
            "us", ("pthreads",)),
    Contest("cyclic", "timer latency as cyclictest: every 500 us, 4 tasks compute", _LATENCY, "us",
            ("pthreads",)),
    Contest("messages", "a message of 100 bytes as hackbench: 4 groups of 20 senders and receivers",
            (("message", "ns"),), "ns", ("pthreads",)),
    Contest("fairness", "distance from the ideal share: weights 1024, 526, 272, or equal",
            (("lag", "worst, us"), ("error", "at the end, %")), "us", ("pthreads",)),
    Contest("deadlines", "deadlines missed, % of jobs, by utilisation",
            tuple((f"{load}%", f"{load} %") for load in UTILISATIONS), "%", ()),
    Contest("timers", "cancel and arm one's timer, by how many are armed; any one; yield",
            (*((f"{count}", f"{count:,}") for count in SLEEPERS),
             (f"any of {SLEEPERS[-1]}", f"any of {SLEEPERS[-1]:,}"), ("yield", "yield"),
             ("flat", "yield, x of 1 armed")), "ns", ("asyncio",), threads=False),
)


@dataclasses.dataclass(frozen=True)
class Command:
    """A program to run for one value of one or several metrics.

    :ivar rename: what it reports to the metric that it is here.
    """

    words: tuple[str, ...]
    rename: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One row of a contest.

    :ivar kind: ``ours``, ``system`` or ``python``.
    :ivar commands: all of them make one measurement.
    """

    name: str
    kind: str
    commands: tuple[Command, ...]


def task_words(utilisation: int, factor: float = 1.0) -> list[str]:
    """Return five periodic tasks of a utilisation, in %, as WORK:PERIOD, ns; always the same."""
    tasks = uunifast(5, utilisation / 100, periods=("2ms", "20ms"), granularity="100us",
                     rng=random.Random(7))
    return [f"{round(task.wcet_ns * factor)}:{task.period_ns}" for task in tasks]


def contestants(contest: Contest, chosen: Sequence[Chosen], skipped: dict[str, str]
                ) -> list[Contestant]:
    """Return the rows of a contest, ours first; what cannot take part goes to ``skipped``."""
    found = []
    for each in chosen if contest.name != "switch" else []:
        if contest.threads and "threads" not in each.record.features:
            continue
        found.append(Contestant(each.name, "ours", tuple(_ours(contest.name, each))))
    return found + _system(contest.name, skipped) + _python(contest.name, skipped)


def _ours(name: str, each: Chosen) -> list[Command]:
    program, options = str(native.scheduler(each.record)), [
        "--", *map(str, each.record.encoded())]

    def command(*words: str, **rename: str) -> Command:
        return Command((program, *words, *options), tuple(rename.items()))

    if name == "timers":
        found = [Command((program, "timers", f"{count}", "200000", *options),
                         (("own", f"{count}"), ("random", f"any of {count}")))
                 for count in SLEEPERS]
        if "threads" in each.record.features:
            found += [command("yield", "16", "1000000", f"{SLEEPERS[-1]}"),
                      command("yield", "16", "1000000", "1", **{"yield": "one"})]
        return found
    if name == "deadlines":
        return [command("deadlines", f"{_SPAN_NS}", *task_words(load), missed=f"{load}%",
                        jobs=f"{load}% jobs") for load in UTILISATIONS]
    return [command(*{
        "yield": ("yield", "16", f"{_SWITCHES}", "0"), "spawn": ("spawn", f"{_SWITCHES // 4}"),
        "wakeup": ("wakeup", *_WAKE), "cyclic": ("cyclic", *_CYCLIC),
        "messages": ("messages", "4", "50"), "fairness": ("fairness", f"{_SPAN_NS}")}[name])]


def _system(name: str, skipped: dict[str, str]) -> list[Contestant]:
    def row(title: str, program: Path, *commands: Command) -> Contestant:
        return Contestant(title, "system", tuple(
            Command((str(program), *each.words), each.rename) for each in commands))

    found = []
    if name in ("switch", "spawn"):
        program, boost = native.switches()
        if name == "switch":
            found += [Contestant("unikit", "ours", (Command((str(program), "unikit")),)),
                      row("swapcontext", program, Command(("swapcontext",)))]
        if boost:
            found.append(row("Boost.Context", program, Command(
                ("boost" if name == "switch" else "boost-lives",))))
        else:
            skipped["Boost.Context"] = "not installed: apt-get install libboost-context-dev"
    words: dict[str, tuple[str, ...]] = {
        "switch": ("switch", f"{_SYSTEM}"), "yield": ("yield", "16", f"{_SYSTEM * 2}"),
        "spawn": ("spawn", f"{_SYSTEM // 16}"), "wakeup": ("wakeup", *_WAKE),
        "cyclic": ("cyclic", *_CYCLIC), "messages": ("messages", "4", "20"),
        "fairness": ("fairness", f"{_SPAN_NS}")}
    threads = native.threads()
    if name in words:
        found.append(row("pthreads", threads, Command(words[name])))
    if name == "messages":
        found.append(row("pthreads, pipes", threads, Command(("pipes", *words[name][1:]))))
    if name in ("wakeup", "cyclic"):
        found.append(row("pthreads, FIFO", threads, Command(("fifo", *words[name]))))
    if name == "deadlines":
        for title, first in (("pthreads", ()), ("pthreads, FIFO", ("fifo",))):
            found.append(row(title, threads, *(
                Command((*first, "deadlines", f"{_SPAN_NS}", *task_words(load)),
                        (("missed", f"{load}%"), ("jobs", f"{load}% jobs")))
                for load in UTILISATIONS)))
    return found


def _python(name: str, skipped: dict[str, str]) -> list[Contestant]:
    words: dict[str, list[tuple[str, ...]]] = {
        "yield": [("yield", "16", f"{_PYTHON}")], "spawn": [("spawn", f"{_PYTHON}")],
        "messages": [("messages", "2", "10")],
        "timers": [("timers", f"{count}", f"{_PYTHON}") for count in SLEEPERS]}
    kinds = {"switch": loops.FIBERS, "spawn": loops.FIBERS | loops.EVENT_LOOPS}.get(
        name, loops.EVENT_LOOPS if name in words else {})
    found = []
    for kind in kinds:
        title = loops.TITLES.get(kind, kind)
        if why := loops.lacking(kind):
            skipped[title] = why
            continue
        chosen = [("switch", f"{_SWITCHES // 4}")] if name == "switch" else words[name]
        found.append(Contestant(title, "python", tuple(Command(
            (sys.executable, "-m", "unikit.cli.sched.loops", kind, *each),
            (("own", each[1]), ("random", f"any of {each[1]}")) if name == "timers" else ())
            for each in chosen)))
    return found
