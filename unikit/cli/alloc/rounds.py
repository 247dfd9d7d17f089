"""The fair method: the same program under every allocator, in rounds of random order.

Each allocator first runs once unmeasured, with a witness that says whose ``malloc`` the processes
of the program really reach: the dynamic linker only warns when it cannot preload. Then come rounds,
each with every allocator once in an order of its own.
"""

from __future__ import annotations

import dataclasses
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

from unikit.alloc.lab.comparison import Row, Run
from unikit.cli.alloc import native
from unikit.cli.alloc.process import Cost, Launch, descendants, ending, ports, tail
from unikit.cli.alloc.references import Candidate

_LONG_S = 10.0  # what runs longer at first may be a server
_BUDGET_S, _FEWEST, _MOST = 60.0, 5, 25
_TRIES = 2  # runs that an allocator may fail before it is left out of further rounds


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How one run went: measured, or failed with a reason and what was printed last."""

    run: Run | None
    failure: str = ""
    printed: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Testimony:
    """Whose ``malloc`` the processes of a run reached.

    :ivar processes: process id to the object that ``malloc`` came from.
    :ivar mapped: all objects mapped into any of them.
    """

    processes: dict[int, Path]
    mapped: frozenset[Path]


class Subject(Protocol):
    """What is run: a program, or a server with its load."""

    def once(self, preload: Sequence[Path], number: int, timeout: float | None,
             environment: dict[str, str]) -> Result:
        """Run it once with libraries preloaded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A program that runs to its end.

    :ivar words: program and arguments.
    :ivar cpu: the only CPU it may use, or ``None``.
    :ivar verbose: gets what it prints, or ``None``.
    :ivar hint: gets advice while it runs for the first time, without a limit.
    """

    words: Sequence[str]
    cpu: int | None = None
    verbose: Callable[[str], None] | None = None
    hint: Callable[[str], None] = lambda text: None

    def once(self, preload: Sequence[Path], number: int, timeout: float | None,
             environment: dict[str, str]) -> Result:
        """Run it to its end."""
        with tempfile.TemporaryFile() as printed, \
                Launch(self.words, preload=preload, cpu=self.cpu, environment=environment,
                       output=printed if self.verbose else None, errors=printed) as launch:
            cost = launch.wait(timeout or _LONG_S)
            if cost is None and timeout is None:
                self._look(launch)
                cost = launch.wait()
            if cost is None:
                launch.kill()
                return Result(None, f"timeout after {timeout:.0f} s", tail(printed))
            if self.verbose:
                self.verbose(tail(printed, 1000))
            if cost.status != 0:
                return Result(None, ending(cost.status), tail(printed))
            return Result(_run(number, cost), printed=tail(printed))


    def _look(self, launch: Launch) -> None:
        """Say so if what does not end looks like a server."""
        found, _ = ports(descendants(launch.pid))
        if found:
            self.hint(f"it listens on port {', '.join(map(str, sorted(found)))}: a server that "
                      "does not end by itself is compared with --load COMMAND; Ctrl-C ends this")


def _run(number: int, cost: Cost) -> Run:
    return Run(number, cost.user + cost.system, cost.wall, cost.peak, cost.minor + cost.major,
               user=cost.user, switches=cost.switches)


def testimony(file: IO[str]) -> Testimony:
    """Read what the witnesses wrote."""
    processes, mapped = {}, set()
    for line in file:
        pid, found, *objects = line.rstrip("\n").split("\t")
        processes[int(pid)] = Path(found)  # a process that executes another program: the last one
        mapped |= {Path(name) for name in objects}
    return Testimony(processes, frozenset(mapped))


def watched(subject: Subject, candidate: Candidate, timeout: float | None
            ) -> tuple[Result, Testimony]:
    """Run once, not to be measured, with a witness in every process."""
    with tempfile.NamedTemporaryFile("r", prefix="unikit-witness-") as file:
        result = subject.once([*candidate.preload, native.witness()], -1, timeout,
                              {**candidate.environment, "UNIKIT_WITNESS": file.name})
        return result, testimony(file)


def reached(found: Testimony, candidate: Candidate) -> str:
    """Return what is wrong with the allocator that the processes reached, or an empty text."""
    wanted = {path.resolve() for path in candidate.preload}
    if not found.processes:
        return "not loaded"
    other = [path for path in found.processes.values() if path.resolve() not in wanted]
    if len(other) == len(found.processes):
        loaded = any(path.resolve() in wanted for path in found.mapped)
        return (f"not used: malloc comes from {other[0].name}" if loaded else "not loaded")
    return ""


def strangers(found: Testimony, candidate: Candidate) -> int:
    """Return how many processes of a run kept another allocator."""
    wanted = {path.resolve() for path in candidate.preload}
    return sum(path.resolve() not in wanted for path in found.processes.values())


class Rounds:
    """Warm-ups, verification and measured rounds over a list of allocators."""

    def __init__(self, subject: Subject, candidates: Sequence[Candidate], *, seed: int = 1,
                 timeout: float | None = None, tell: Callable[[str], None] = lambda text: None
                 ) -> None:
        self._subject = subject
        self._candidates = {candidate.name: candidate for candidate in candidates}
        self.rows = [Row(each.name, each.kind, each.version) for each in candidates]
        self._random = random.Random(seed)
        self._timeout = timeout
        self._tell = tell
        self._out: set[str] = set()  # failed too often
        self._turn = 0.0  # seconds that one round takes

    def warm(self, base: Result) -> None:
        """Run every allocator but the baseline once, and verify that it was really used.

        :param base: the baseline's own warm-up, which is the measure of patience.
        """
        assert base.run is not None
        self._turn = base.run.wall
        if self._timeout is None:
            self._timeout = 10 + 10 * base.run.wall
        for row in self.rows:
            candidate = self._candidates[row.name]
            if not candidate.preload:
                self._turn += base.run.wall if row.kind != "baseline" else 0
                continue
            self._tell(f"warming up: {row.name}")
            self._first(row, candidate)

    def _first(self, row: Row, candidate: Candidate) -> None:
        for _ in range(_TRIES):
            result, found = watched(self._subject, candidate, self._timeout)
            if result.run is None:
                row.failures.append(result.failure)
                if result.failure.startswith("timeout"):
                    break
                continue
            self._turn += result.run.wall
            if wrong := reached(found, candidate):
                row.failures.append(wrong)
                break
            if apart := strangers(found, candidate):
                row.notes.append(f"{apart} of {len(found.processes)} processes kept another malloc")
            return
        self._out.add(row.name)

    def number(self, wish: int | None) -> int:
        """Return how many rounds to run: as wished, else as many as a minute or so allows."""
        if wish is not None:
            return wish
        return max(_FEWEST, min(_MOST, int(_BUDGET_S / max(self._turn, 1e-3))))

    @property
    def turn(self) -> float:
        """Seconds that one round takes, about."""
        return self._turn

    def measure(self, rounds: int) -> None:
        """Run the rounds; an allocator that has failed twice is not tried again."""
        for number in range(rounds):
            order = [row for row in self.rows if row.name not in self._out]
            self._random.shuffle(order)
            for row in order:
                self._tell(f"round {number + 1} of {rounds}: {row.name}")
                candidate = self._candidates[row.name]
                result = self._subject.once(candidate.preload, number, self._timeout,
                                            candidate.environment)
                if result.run is None:
                    row.failures.append(result.failure)
                    if len(row.failures) >= _TRIES or result.failure.startswith("timeout"):
                        self._out.add(row.name)
                    continue
                row.runs.append(result.run)
                if result.note and result.note not in row.notes:
                    row.notes.append(result.note)


def doubts(rounds: int) -> list[str]:
    """Return what a reader of few rounds must know."""
    if rounds < 5:
        return ["fewer than 5 rounds: intervals span all values, and nothing is called certain"]
    return ["fewer than 6 rounds: intervals span all values"] if rounds < 6 else []


def quietest(allowed: set[int] | None = None) -> int:
    """Return the CPU that was busy least in the last moments.
    """
    import time
    allowed = allowed or os.sched_getaffinity(0)
    before = _busy()
    time.sleep(0.2)
    after = _busy()
    return min(sorted(allowed, reverse=True),
               key=lambda cpu: after.get(cpu, 0) - before.get(cpu, 0))


def _busy() -> dict[int, int]:
    found = {}
    for line in Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if words[0].startswith("cpu") and words[0] != "cpu":
            found[int(words[0][3:])] = sum(map(int, words[1:4])) + sum(map(int, words[6:9]))
    return found

