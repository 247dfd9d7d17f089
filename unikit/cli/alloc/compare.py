"""``unikit alloc compare``: a program, a server or a trace under every allocator found."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unikit.alloc.lab import machine, pictures, recorder
from unikit.alloc.lab.comparison import Comparison, Row
from unikit.alloc.lab.trace import Trace
from unikit.cli.alloc import after_dashes, native, programs, references, replays, table
from unikit.cli.alloc.references import Candidate
from unikit.cli.alloc.rounds import (
    Program,
    Result,
    Rounds,
    Subject,
    Testimony,
    doubts,
    quietest,
    watched,
)
from unikit.cli.alloc.server import Server
from unikit.errors import InvalidArgument, Malformed, NotFound, PlatformError

_QUIET_S = 5.0  # a comparison that takes longer says what it is doing


def do_compare(choice: argparse.Namespace) -> int:
    """Compare, print the table, write what else was asked for."""
    check_outputs(choice)
    words = after_dashes(choice)
    if words is None and len(choice.program) == 1 and is_trace(Path(choice.program[0])):
        found = _trace(choice, Path(choice.program[0]))
    else:
        found = compare(choice, choice.program if words is None else words)
    deliver(choice, found)
    return 0


def is_trace(path: Path) -> bool:
    """Return whether a word names a trace rather than a program."""
    if path.suffix == ".trace":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8) == b"KITTRACE"


def _trace(choice: argparse.Namespace, path: Path) -> Comparison:
    for option in ("load", "port", "ready", "metric", "here"):
        if getattr(choice, option):
            raise InvalidArgument(f"--{option} is for programs, and {path} is a trace")
    trace = Trace.load(path)
    with progress() as tell:
        candidates, skipped = allocators(choice, tell)
        found = replays.of_trace(trace, candidates, rounds=choice.rounds, seed=choice.seed,
                                 cpu=_cpu(choice.pin), timeout=choice.timeout, tell=tell)
    found.subject["trace"] = str(path)
    found.notes = [f"{name} left out: {why}" for name, why in skipped.items()] + found.notes
    return found


def check_outputs(choice: argparse.Namespace) -> None:
    """Make sure beforehand that what was asked for can be written.

    :raises InvalidArgument: a folder is missing, or a name has the wrong ending.
    :raises NotSupported: matplotlib is needed and missing.
    """
    if choice.picture:
        pictures.check(Path(choice.picture))
    if choice.report:
        path = Path(choice.report)
        if not path.absolute().parent.is_dir():
            raise InvalidArgument(f"{path}: there is no folder {path.absolute().parent}")


def deliver(choice: argparse.Namespace, found: Comparison) -> None:
    """Print a comparison, draw it and write its page, as the options say."""
    if choice.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        table.show(found)
    if choice.picture:
        pictures.draw(found, Path(choice.picture))
        _say(f"wrote {choice.picture}")
    if choice.report:
        pictures.page(found).write(Path(choice.report))
        _say(f"wrote {choice.report}")


def compare(choice: argparse.Namespace, words: list[str]) -> Comparison:
    """Run a program or server under every allocator and return what came out.

    :raises NotFound: there is no such program.
    :raises PlatformError: it fails under glibc, or nothing can be preloaded into it.
    """
    if not words:
        raise InvalidArgument("say what to run after --, or name a trace, for example: "
                              "unikit alloc compare -- python3 app.py")
    if choice.rounds is not None and choice.rounds < 1:
        raise InvalidArgument(f"--rounds {choice.rounds}: at least one")
    program = programs.examine(words[0])
    if program is None:
        raise programs.missing(words[0])
    if program.obstacle:
        raise PlatformError(f"{words[0]} runs with no allocator but its own: {program.obstacle}")
    cpu = _cpu(choice.pin)
    subject = _subject(choice, words, cpu)
    with progress() as tell:
        candidates, skipped = allocators(choice, tell)
        tell("warming up: glibc")
        base, seen = watched(subject, candidates[0], choice.timeout)
        _usable(words, base, seen)
        own = _own(seen)
        if own is not None:
            candidates = _with_own(candidates, own)
            base, seen = watched(subject, candidates[0], choice.timeout)
            _usable(words, base, seen)
        rounds = Rounds(subject, candidates, seed=choice.seed, timeout=choice.timeout, tell=tell)
        rounds.warm(base)
        number = rounds.number(choice.rounds)
        if rounds.turn * number > _QUIET_S:
            _say(f"{len(candidates)} allocators, {number} rounds: about "
                 f"{_duration(rounds.turn * number)}")
        rounds.measure(number)
        said = []
        if choice.latency:
            said = _operations(subject, rounds.rows, _as_libraries(candidates, own),
                               choice.timeout, cpu, tell)
    found = Comparison(
        {"kind": "server" if choice.load else "program", "words": words, "load": choice.load},
        machine.facts(),
        {"rounds": number, "seed": choice.seed, "pinned to CPU": cpu, "warm-up runs": 1},
        rounds.rows)
    found.notes += [f"{name} left out: {why}" for name, why in skipped.items()] + said
    _remarks(found, program, own)
    return found


def _operations(subject: Subject, rows: list[Row], candidates: list[Candidate],
                timeout: float | None, cpu: int | None, tell: Callable[[str], None]) -> list[str]:
    """Record a run and replay it on every allocator, for what a program alone does not show.

    :return: what a reader must know about it.
    """
    tell("recording a run")
    try:
        trace = recorded(subject, timeout)
    except (PlatformError, Malformed) as error:
        return [f"no latency and fragmentation: {str(error).splitlines()[0]}"]
    operations = trace.summary().operations
    if not operations:
        return ["no latency and fragmentation: the program asked for nothing"]
    with replays.ready(trace, cpu, replays.STUDIED) as ready:
        replays.study(ready, rows, candidates, tell)
    said = ["latency and fragmentation are those of one recorded run, replayed by one thread"]
    return said + [replays.shortened(operations)] * (operations > replays.STUDIED)


def recorded(subject: Subject, timeout: float | None) -> Trace:
    """Return the trace of one run: of the process that asks most.

    :raises PlatformError: the run failed or left no trace.
    """
    with tempfile.TemporaryDirectory(prefix="unikit-record-") as folder:
        base = Path(folder) / "trace"
        result = subject.once([recorder.library()], -1, timeout, {recorder.VARIABLE: str(base)})
        files = recorder.recorded(base)
        if result.run is None or not files:
            raise PlatformError("recording a run failed: "
                                f"{result.failure or 'it left no trace'}\n{result.printed}")
        largest = max(files, key=lambda path: path.stat().st_size)
        return recorder.finish(largest, largest, names=False)


def _subject(choice: argparse.Namespace, words: list[str], cpu: int | None) -> Subject:
    verbose = _printed if choice.verbose else None
    if choice.load:
        _check_metric(choice.metric)
        return Server(words, choice.load, choice.port, choice.ready, choice.grace, choice.metric,
                      choice.here, cpu, verbose)
    for option in ("port", "ready", "metric", "here"):
        if getattr(choice, option):
            raise InvalidArgument(f"--{option} is for servers; give their load with --load")
    return Program(words, cpu, verbose, _say)


def _check_metric(pattern: str | None) -> None:
    """Refuse a pattern before anything has run, not after."""
    try:
        groups = 1 if pattern is None else re.compile(pattern).groups
    except re.error as error:
        raise InvalidArgument(f"--metric {pattern}: no regular expression: {error}") from error
    if groups != 1:
        raise InvalidArgument(f"--metric {pattern}: put one pair of parentheses round the number")


def _cpu(wish: str | None) -> int | None:
    if wish is None:
        return None
    allowed = os.sched_getaffinity(0)
    if wish == "auto":
        return quietest(allowed)
    if not wish.isdigit() or int(wish) not in allowed:
        raise InvalidArgument(f"--pin {wish}: give one of the CPUs "
                              f"{', '.join(map(str, sorted(allowed)))}")
    return int(wish)


def allocators(choice: argparse.Namespace, tell: Callable[[str], None]
               ) -> tuple[list[Candidate], dict[str, str]]:
    """Return what ``--allocator`` names or everything found, and what cannot be used, with why.

    :raises NotFound: there is nothing to compare with.
    """
    if choice.allocator:
        return references.named(choice.allocator), {}
    found, skipped = references.everything(tell)
    if len(found) == 1:
        raise NotFound("no allocator but glibc's was found; install some: "
                       "apt-get install libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4")
    return found, skipped


def _usable(words: list[str], base: Result, seen: Testimony) -> None:
    """Refuse to compare what does not work as it is, or cannot be given another allocator."""
    shown = shlex.join(words)
    if base.run is None:
        printed = f"; it printed last:\n{base.printed}" if base.printed.strip() else ""
        raise PlatformError(f"{shown} fails with glibc's allocator already ({base.failure}), so "
                            f"that a comparison would mean nothing{printed}")
    if not seen.processes:
        raise PlatformError(f"nothing can be preloaded into {shown}: no process of it loaded the "
                            "library; it may be linked statically or change its user at start")


def _own(seen: Testimony) -> Path | None:
    """Return the library whose allocator a program reaches instead of the C library's."""
    for path in seen.processes.values():
        if not path.name.startswith(("libc.so", "libc-", "ld-linux", "ld-musl")):
            return path
    return None


def _with_own(candidates: list[Candidate], own: Path) -> list[Candidate]:
    """Return the list for a program that is linked to an allocator of its own.

    Its own is a row without preloading; the baseline preloads glibc's; a library that would be
    preloaded and is its own already is not compared with itself.
    """
    if ".so" not in own.name:
        raise PlatformError(f"the program brings an allocator of its own in {own}, which no "
                            "preloaded library can replace")
    places = {path.resolve(): name for name, path in references.installed().items()}
    name = places.get(own.resolve(), own.name.partition(".so")[0].removeprefix("lib"))
    baseline = Candidate("glibc", "baseline", references.glibc().version, (native.glibc(),))
    rest = [each for each in candidates[1:]
            if own.resolve() not in {path.resolve() for path in each.preload}]
    return [baseline, Candidate(f"{name} (its own)", "own", references.version_of(own)), *rest]


def _as_libraries(candidates: list[Candidate], own: Path | None) -> list[Candidate]:
    """Return candidates for the replayer, to which a program's own allocator is preloaded too."""
    return [dataclasses.replace(each, preload=(own,)) if each.kind == "own" and own else each
            for each in candidates]


def _remarks(found: Comparison, program: programs.Program, own: Path | None) -> None:
    """Add what a reader of the table must know."""
    if own is not None:
        found.notes.append(f"the program is linked to {own.name}; the glibc row preloads glibc's "
                           "allocator in its place")
    if program.path.name.startswith("python") and not os.environ.get("PYTHONMALLOC"):
        found.notes.append("CPython keeps objects of up to 512 bytes in pools of its own, whatever "
                           "the allocator; PYTHONMALLOC=malloc gives it all of them")
    if program.inside:
        found.notes.append(f"an allocator ({program.inside}) is compiled into {program.path}: what "
                           "it serves is the same in every row")
    if any(row.lost for row in found.rows):
        found.notes.append("failures count as losses: such a row comes last whatever its times")
    found.notes += doubts(found.method["rounds"])




def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _printed(text: str) -> None:
    sys.stderr.write(text + "\n" if text else "")


def _say(text: str) -> None:
    sys.stderr.write(f"unikit: {text}\n")
    sys.stderr.flush()


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show what is being done: in one changing line on a terminal, else now and then."""
    if sys.stderr.isatty():
        from rich.console import Console
        with Console(stderr=True).status("") as status:
            yield status.update
        return
    last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last > 30:
            last = time.monotonic()
            _say(text)

    yield tell
