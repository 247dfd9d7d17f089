"""``unikit alloc replay``: a trace on allocators, in one place or several."""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence

from unikit.alloc.lab import places, replayer, units
from unikit.alloc.lab.replayer import Latency, Result
from unikit.alloc.lab.trace import Op, Trace
from unikit.cli.alloc import references, replays, table
from unikit.cli.alloc.references import Candidate
from unikit.cli.output import progress
from unikit.errors import CompositionError, Corrupt, InvalidArgument

_LATENCY_ROUNDS = 5
_HEADERS = ("allocator", "where", "operations", "refused", "ns/op", "warm", "malloc p50", "p99.99",
            "max", "free p50", "p99.99", "max", "peak", "waste")


def do_replay(choice: argparse.Namespace) -> int:
    """Replay, and print a table or JSON; all counts are made sure to be equal."""
    trace = Trace.load(choice.trace)
    if choice.rounds < 1:
        raise InvalidArgument(f"--rounds {choice.rounds}: at least one")
    words = [word for each in choice.allocator for word in each.split(",") if word] or \
        [record.stem() for record in references.components()]
    where = choice.where.split(",")
    for place in where:
        if place.partition(":")[0] not in ("process", "preload", "image"):
            raise InvalidArgument(f"--where {place}: process, preload, image or image:NAME")
    results: list[Result] = []
    for candidate in _candidates(words, where):
        for place in where:
            with progress(f"replaying on {candidate.name} ({place})"):
                found = _replay(choice, trace, candidate, place)
            results.append(dataclasses.replace(found, allocator=candidate.name, where=place))
    same(trace, results)
    if choice.json:
        print(json.dumps([dataclasses.asdict(each) for each in results], indent=2))
    else:
        table.styled(_HEADERS, list(_rows(results)), left=2)
    return 0


def same(trace: Trace, results: Sequence[Result]) -> None:
    """Make sure that every replay carried out what the trace says, no more and no less.

    :raises Corrupt: one did not.
    """
    summary = trace.summary()
    wanted = (summary.allocations, summary.reallocations, summary.frees)
    for each in results:
        done = (each.allocations, each.reallocations, each.frees)
        if done != wanted:
            raise Corrupt(f"the replay on {each.allocator} ({each.where}) did {done} allocations, "
                          f"reallocations and frees; the trace has {wanted}")


def _candidates(words: Sequence[str], where: Sequence[str]) -> list[Candidate]:
    found = [references.glibc() if word == "glibc" else references.one(word) for word in words]
    problems = [f"{each.name}: is no component, so it can be replayed with --where preload only"
                for each in found if each.record is None and set(where) - {"preload"}]
    if problems:
        raise CompositionError(problems)
    return found


def _replay(choice: argparse.Namespace, trace: Trace, candidate: Candidate, place: str) -> Result:
    kind, _, platform = place.partition(":")
    if kind == "preload":
        return through_malloc(trace, candidate, choice.rounds, choice.touch)
    record = candidate.record
    assert record is not None
    if kind == "image":
        return places.replay_in_image(
            trace, record, platform=platform or "linux", rounds=choice.rounds,
            latency_rounds=_LATENCY_ROUNDS, touch=choice.touch, memory=choice.memory)
    return replayer.replay(trace, record, rounds=choice.rounds, latency_rounds=_LATENCY_ROUNDS,
                           touch=choice.touch, memory=choice.memory, parallel=choice.parallel)


def through_malloc(trace: Trace, candidate: Candidate, rounds: int, touch: str) -> Result:
    """Replay in processes of their own, through the malloc of a library that is preloaded.

    Each replay is a process, so every one begins on fresh memory, and none is warm.
    """
    summary = trace.summary()
    with replays.ready(trace) as subject:
        times, peaks, said = [], [], {}
        for _ in range(rounds):
            said = subject.run(candidate.preload, ["time", str(replayer.TOUCHES[touch])], None,
                               candidate.environment)
            times.append(said["wall"][0])
            peaks.append(said["peak"][0])
        give, take, empty = _latency(subject, candidate)
    done = said["done"]
    return Result(
        allocator=candidate.name, where="preload", operations=sum(done),
        allocations=done[Op.ALLOC] + done[Op.ZEROED], reallocations=done[Op.REALLOC],
        frees=done[Op.FREE] + done[Op.SIZED_FREE], failures=said["failures"][0], ns=min(times),
        warm_ns=0, warm_cycles=0, give=give, take=take, empty=empty,
        peak_requested=summary.peak_bytes, peak_used=0, peak_touched=max(peaks), region=0,
        threads=max(1, len(trace.threads)), parallel=False)


def _latency(subject: replays.Replay, candidate: Candidate) -> tuple[Latency, Latency, int]:
    with tempfile.NamedTemporaryFile(dir=subject.folder) as least:
        least.write(b"\xff" * 4 * subject.operations)
        least.flush()
        empty = min(subject.run(candidate.preload, ["latency", least.name], None,
                                candidate.environment)["empty"][0]
                    for _ in range(_LATENCY_ROUNDS))
        said = subject.run((), ["spread", least.name], None, {})
    return Latency(*said["malloc"]), Latency(*said["free"]), empty


def _rows(results: Sequence[Result]) -> Iterator[list[tuple[str, str]]]:
    for each in results:
        operations = each.operations or 1
        cells = [each.allocator, each.where, f"{each.operations:,}", f"{each.failures:,}",
                 f"{each.ns / operations:.1f}",
                 f"{each.warm_ns / operations:.1f}" if each.warm_ns else ""]
        for part in (each.give, each.take):
            cells += [f"{value:,}" if part.count else "" for value in
                      (part.p50, part.p9999, part.max)]
        peak = each.peak_touched or each.peak_used
        cells += [units.size(peak) if peak else "",
                  f"{1 - each.peak_requested / peak:.0%}" if peak > each.peak_requested else ""]
        yield [(cell, "bad" if at == 3 and each.failures else "") for at, cell in enumerate(cells)]
