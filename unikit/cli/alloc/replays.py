"""A trace on every allocator: each replays it in processes of their own, through ``malloc``.

So it is the same for our components and for others. Times come from rounds like those of programs;
the cost of single operations from further replays, of which each operation keeps its least; the
memory taken from one more replay that is looked at meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unikit.alloc.lab import machine, replayer
from unikit.alloc.lab.comparison import Comparison, Row, Run
from unikit.alloc.lab.trace import Trace
from unikit.cli.alloc import native
from unikit.cli.alloc.process import Launch, ending, tail
from unikit.cli.alloc.references import Candidate
from unikit.cli.alloc.rounds import Result, Rounds, doubts, watched
from unikit.errors import InvalidArgument, PlatformError
from unikit.ffi import load

_LATENCY_ROUNDS, _SAMPLES = 7, 200
STUDIED = 2_000_000
"""Operations of which each is timed; longer traces count with their first ones."""
_NAMES = ("count", "p50", "p90", "p99", "p99.9", "p99.99", "max")


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """A trace made ready: something to run like a program.

    :ivar file: the operations.
    :ivar operations: how many.
    :ivar folder: for files in between.
    :ivar cpu: the only CPU to use, or ``None``.
    """

    file: Path
    operations: int
    folder: Path
    cpu: int | None = None

    def once(self, preload: Sequence[Path], number: int, timeout: float | None,
             environment: dict[str, str]) -> Result:
        """Replay it once, timed."""
        try:
            said = self.run(preload, ["time", "2"], timeout, environment)
        except PlatformError as error:
            return Result(None, str(error))
        run = Run(number, said["cpu"][0] / 1e9, said["wall"][0] / 1e9, said["peak"][0])
        refused = said["failures"][0]
        return Result(run, note=f"{refused:,} requests refused" if refused else "")

    def run(self, preload: Sequence[Path], words: Sequence[str], timeout: float | None,
            environment: dict[str, str]) -> dict[str, list[int]]:
        """Run the replayer; returns its answers by name, ``sample`` with all of them in a row.

        :raises PlatformError: it crashed or took too long; the message is short.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, \
                Launch([str(native.replayer()), str(self.file), *words], preload=preload,
                       cpu=self.cpu, environment=environment, output=output, errors=errors
                       ) as launch:
            cost = launch.wait(timeout)
            if cost is None:
                raise PlatformError(f"timeout after {timeout:.0f} s")
            if cost.status != 0:
                said = tail(errors, 1)
                raise PlatformError(ending(cost.status) + (f": {said}" if said else ""))
            said_all: dict[str, list[int]] = {}
            output.seek(0)
            for line in output:
                name, *numbers = line.decode().split()
                said_all.setdefault(name, []).extend(map(int, numbers))
            return said_all


@contextlib.contextmanager
def ready(trace: Trace, cpu: int | None = None, most: int | None = None) -> Iterator[Replay]:
    """Make a trace ready to be replayed by processes; the files are removed at the end.

    :param most: take no more than its first so many operations.
    :raises InvalidArgument: there is nothing in it to replay.
    """
    program = replayer.program(trace)
    count = program.operations if most is None else min(most, program.operations)
    if not count:
        raise InvalidArgument("the trace holds no operation to replay")
    ffi, lib = load.extension("unikit.alloc.lab._lab")
    with tempfile.TemporaryDirectory(prefix="unikit-replay-") as name:
        file = Path(name) / "program"
        with file.open("wb") as out:
            out.write(struct.pack("<IIQ", lib.KIT_REPLAY_MAGIC, program.slots, count))
            out.write(ffi.buffer(program.ops, 16 * count))
        yield Replay(file, count, Path(name), cpu)


def of_trace(trace: Trace, candidates: Sequence[Candidate], *, rounds: int | None = None,
             seed: int = 1, cpu: int | None = None, timeout: float | None = None,
             tell: Callable[[str], None] = lambda text: None) -> Comparison:
    """Replay a trace on candidates, the baseline first among them.

    :raises PlatformError: not even the baseline can replay it.
    """
    with ready(trace, cpu) as subject:
        tell("warming up: glibc")
        base, _ = watched(subject, candidates[0], timeout)
        if base.run is None:
            raise PlatformError(f"the trace cannot be replayed: {base.failure}")
        turns = Rounds(subject, candidates, seed=seed, timeout=timeout, tell=tell)
        turns.warm(base)
        number = turns.number(rounds)
        turns.measure(number)
        operations = subject.operations
        if operations <= STUDIED:
            study(subject, turns.rows, candidates, tell)
    if operations > STUDIED:
        with ready(trace, cpu, STUDIED) as subject:
            study(subject, turns.rows, candidates, tell)
    method = {"rounds": number, "seed": seed, "pinned to CPU": cpu, "warm-up runs": 1,
              "latency": f"least of {_LATENCY_ROUNDS} replays for each operation, the cost of "
                         "measuring taken off"}
    found = Comparison({"kind": "trace", "trace": "", "operations": operations,
                        "program": str(trace.facts.get("command")
                                       or trace.facts.get("program") or "")},
                       machine.facts(), method, turns.rows)
    if operations > STUDIED:
        found.notes.append(shortened(operations))
    if len(trace.threads) > 1:
        found.notes.append(f"the operations of {len(trace.threads)} threads are replayed by one, "
                           "in the recorded order: what threads cost each other does not show")
    if any(row.lost for row in found.rows):
        found.notes.append("failures count as losses: such a row comes last whatever its times")
    if trace.damaged or not trace.complete:
        found.notes.append("the trace was cut short; what it has was replayed")
    found.notes += doubts(number)
    return found


def study(subject: Replay, rows: Sequence[Row], candidates: Sequence[Candidate],
          tell: Callable[[str], None]) -> None:
    """Add latency of single operations and the use of memory to rows that did not fail."""
    by_name = {candidate.name: candidate for candidate in candidates}
    taken: dict[str, list[tuple[int, int, int]]] = {}
    for row in rows:
        candidate = by_name.get(row.name)
        if candidate is None or row.failures:
            continue
        tell(f"single operations: {row.name}")
        try:
            row.operations = _latency(subject, candidate)
            taken[row.name] = _memory(subject, candidate)
        except PlatformError as error:
            row.notes.append(f"not looked into: {error}")
    # What a process has before it asks for anything is in every sample; nobody has less than this.
    bare = min((samples[0][2] for samples in taken.values() if samples), default=0)
    for row in rows:
        if row.operations is not None and row.name in taken:
            row.operations |= waste(taken[row.name][1:], bare)


def _latency(subject: Replay, candidate: Candidate) -> dict[str, Any]:
    """Return percentiles in ns of what gives memory and what takes it."""
    with tempfile.NamedTemporaryFile(dir=subject.folder) as least:
        least.write(b"\xff" * 4 * subject.operations)
        least.flush()
        ticks = wall = 0
        empty = 1 << 32
        for _ in range(_LATENCY_ROUNDS):
            said = subject.run(candidate.preload, ["latency", least.name], None,
                               candidate.environment)
            ticks, wall = ticks + said["ticks"][0], wall + said["wall"][0]
            empty = min(empty, said["empty"][0])
        said = subject.run((), ["spread", least.name], None, {})
    rate = wall / ticks if ticks else 0.0
    found: dict[str, Any] = {}
    for what in ("malloc", "free"):
        numbers = dict(zip(_NAMES, said[what], strict=True))
        if not numbers.pop("count"):
            found[what] = None
            continue
        most = numbers["max"]  # the others are upper edges of bins
        found[what] = {name: round(max(0, min(cycles, most) - empty) * rate, 1)
                       for name, cycles in numbers.items()}
    return found


def _memory(subject: Replay, candidate: Candidate) -> list[tuple[int, int, int]]:
    """Return operations done, bytes requested and bytes taken, over a replay; the start first."""
    said = subject.run(candidate.preload, ["sample", "3", str(_SAMPLES)], None,
                       candidate.environment)
    numbers = said["sample"]
    return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def shortened(operations: int) -> str:
    """Say that not all operations of a trace were timed one by one."""
    return (f"latency and fragmentation are those of the first {STUDIED:,} of {operations:,} "
            "operations")


def waste(samples: Sequence[tuple[int, int, int]], bare: int) -> dict[str, Any]:
    """Return the part of the memory taken that held no requested byte, and the curve itself.

    :param samples: operations done, bytes requested, bytes taken.
    :param bare: bytes that a process has before it asks for anything.
    """
    requested = sum(each[1] for each in samples)
    taken = sum(max(each[2] - bare, each[1]) for each in samples)
    return {"fragmentation": 1 - requested / taken if taken else None,
            "samples": [[done, asked, max(0, got - bare)] for done, asked, got in samples]}
