"""``unikit alloc advise``: which component, with which options, for a trace or a program."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from unikit.alloc.lab import advice, pictures
from unikit.alloc.lab.advice import Advice
from unikit.alloc.lab.comparison import Comparison
from unikit.alloc.lab.page import Page
from unikit.alloc.lab.trace import Trace
from unikit.cli.alloc import after_dashes, programs, references, replays, table
from unikit.cli.alloc.compare import allocators, check_outputs, is_trace, progress, recorded
from unikit.cli.alloc.references import Candidate
from unikit.cli.alloc.rounds import Program
from unikit.errors import InvalidArgument, PlatformError

_HUGE = {"UNIKIT_ALLOC_HUGEPAGES": "1"}


def do_advise(choice: argparse.Namespace) -> int:
    """Replay on all candidates and their variations; say what to use, with the evidence."""
    check_outputs(choice)
    words = after_dashes(choice)
    with progress() as tell:
        if words is None and len(choice.program) == 1 and is_trace(Path(choice.program[0])):
            trace, name = Trace.load(choice.program[0]), choice.program[0]
        else:
            words = choice.program if words is None else words
            tell("recording a run")
            trace, name = _recorded(words), shlex.join(words)
        candidates, _ = allocators(choice, tell)
        found = replays.of_trace(trace, [*candidates, *variations(candidates)],
                                 rounds=choice.rounds, seed=choice.seed, tell=tell)
    found.subject["trace"] = name
    given = advice.advise(found, choice.aim, trace.summary().duration_ns / 1e9)
    use = commands(given, found, words)
    if choice.json:
        print(json.dumps({"format": "unikit alloc advise", "version": 1, **given.to_json(),
                          "commands": use, "comparison": found.to_json()}, indent=2))
    else:
        _print(given, found, use)
    if choice.picture:
        pictures.draw(found, Path(choice.picture))
        sys.stderr.write(f"unikit: wrote {choice.picture}\n")
    if choice.report:
        _page(given, found, use).write(Path(choice.report))
        sys.stderr.write(f"unikit: wrote {choice.report}\n")
    return 0


def _recorded(words: list[str]) -> Trace:
    if not words:
        raise InvalidArgument("say what to advise on: a trace, or a program after --")
    program = programs.examine(words[0])
    if program is None:
        raise programs.missing(words[0])
    if program.obstacle:
        raise PlatformError(f"{words[0]} cannot be recorded: {program.obstacle}")
    return recorded(Program(words), None)


def variations(candidates: list[Candidate]) -> Iterator[Candidate]:
    """Yield each component with one option changed, and with huge pages where the kernel has any.

    Sizes and numbers are left alone: they follow from the program, not from trying.
    """
    thp = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    huge = thp.exists() and "[madvise]" in thp.read_text()
    for each in candidates:
        if each.record is None:
            continue
        if huge:
            yield Candidate(f"{each.name} --hugepages", each.kind, each.version, each.preload,
                            each.record, {**each.environment, **_HUGE})
        if "+" in each.name or ":" in each.name:
            continue  # its options were chosen by hand
        for spec in each.record.options:
            now = getattr(each.record, spec.name)
            words = [str(not now).lower()] if spec.kind == "bool" else \
                [one for one in spec.choices if one != now] if spec.kind == "choice" else []
            for word in words:
                yield references.one(f"{each.name}:{spec.name}={word}")


def commands(given: Advice, found: Comparison, words: list[str] | None) -> list[str]:
    """Return the commands that use what is advised."""
    if given.best is None or not given.change:
        return []
    name, _, huge = given.best.row.name.partition(" ")
    parts = [part.split(":") for part in name.split("+")]
    run = ["unikit", "alloc", "run", "--allocator", ",".join(part[0] for part in parts)]
    options = [("--set", f"alloc.{part[0]}.{option}") for part in parts for option in part[1:]]
    run += [word for pair in options for word in pair] + ([huge] if huge else [])
    program = shlex.join(words) if words else str(found.subject.get("program") or "PROGRAM")
    image = ["unikit", "build", "APPLICATION", "--alloc", ",".join(part[0] for part in parts),
             *(word for pair in options for word in pair)]
    return [f"{shlex.join(run)} -- {program}", shlex.join(image)]


def _weights(given: Advice) -> str:
    weights = advice.WEIGHTS[given.aim]
    return ("score: geometric mean of ratios to glibc, weighted "
            + ", ".join(f"{name} {weight:g}" for name, weight in weights.items() if weight)
            + f" (--for {given.aim}); less is better")


def _print(given: Advice, found: Comparison, use: list[str]) -> None:
    print(pictures.subject(found))
    print()
    for line in given.text():
        print(line)
    for line in use:
        print(f"  {line}")
    print()
    table.styled(advice.HEADERS, advice.rows(given))
    print()
    print(_weights(given))
    print("tail and worst: the slower of malloc and free at 99.99 % and at most")
    for row in found.rows:
        if row.lost:
            print(f"- {row.name}: {pictures.remarks(row)}")
    for note in found.notes:
        print(f"- {note}")
    print(table.conditions(found))


def _page(given: Advice, found: Comparison, use: list[str]) -> Page:
    made = Page(f"Advice on {pictures.subject(found)}", found.machine.get("date", ""))
    for line in given.text():
        made.text(line, "lead")
    if use:
        made.code("\n".join(use))
    made.heading("Scores")
    made.text(_weights(given) + ". Tail and worst: the slower of malloc and free at 99.99 % and "
              "at most.", "sub")
    made.table(advice.HEADERS, advice.rows(given))
    pictures.fill(made, found)
    return made
