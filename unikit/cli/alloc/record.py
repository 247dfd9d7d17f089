"""``unikit alloc record``: a program, or one that runs already, and the trace of what it asks."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from unikit.alloc.lab import recorder
from unikit.alloc.lab.trace import Trace
from unikit.cli import complain
from unikit.cli.alloc import after_dashes, loading, programs
from unikit.cli.alloc.process import ending
from unikit.cli.output import progress
from unikit.errors import InvalidArgument, NoPermission, NotFound, NotSupported


def do_record(choice: argparse.Namespace) -> int:
    """Record; a program's exit status is passed on."""
    target = Path(choice.output).absolute()
    if not target.parent.is_dir():
        raise NotFound(f"-o {choice.output}: there is no folder {target.parent} to write to")
    if not os.access(target.parent, os.W_OK):
        raise NoPermission(f"-o {choice.output}: {target.parent} may not be written to; name a "
                           "file in a folder of yours")
    words = after_dashes(choice)
    if (words is None or not words) == (choice.pid is None):
        raise InvalidArgument("say what to record: a program after --, or a running one with --pid")
    if choice.pid is not None:
        return _attach(choice, target)
    if choice.duration is not None:
        raise InvalidArgument("--for goes with --pid: a program is recorded until it ends")
    return _program(choice, words or [], target)


def _program(choice: argparse.Namespace, words: list[str], target: Path) -> int:
    examined = programs.examine(words[0])
    if examined is None:
        raise programs.missing(words[0])
    if examined.obstacle:
        raise NotSupported(f"{words[0]} cannot be recorded: {examined.obstacle}")
    if examined.inside:
        complain(f"{words[0]} has {examined.inside} compiled into it; what it asks of that is not "
                 "seen")
    with progress("making the recorder"):
        library = recorder.library()
    variables = loading.environment(library) | {recorder.VARIABLE: str(target)}
    loading.verify(examined.path, library, variables)
    before = set(recorder.recorded(target))
    status, pid = _run(words, variables)
    fresh = [path for path in recorder.recorded(target) if path not in before]
    own = [path for path in fresh if recorder.pid_of(path, target) == pid]
    if not own:
        raise NotFound(f"{words[0]} left no trace: it ended before the recorder began, or could "
                       f"not write {target}.{pid}")
    ended = ending(status)
    with progress("putting the trace in order"):
        main = recorder.finish(own[-1], target, ended=ended, names=choice.names)
        others = [(path, recorder.finish(path, path, names=choice.names)) for path in fresh
                  if path != own[-1]]
    tell(target, main)
    for path, trace in others:
        tell(path, trace)
    return status if status >= 0 else 128 - status


def _run(words: list[str], variables: dict[str, str]) -> tuple[int, int]:
    """Run a program in the foreground; Ctrl-C is for it alone."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(words, env=variables, preexec_fn=_interruptible)
        with _passed_on(process):
            return process.wait(), process.pid
    except PermissionError as error:
        raise NoPermission(f"{words[0]} cannot be executed") from error
    finally:
        signal.signal(signal.SIGINT, before)


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass SIGTERM on to the program, whose trace is finished all the same."""
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _attach(choice: argparse.Namespace, target: Path) -> int:
    from unikit.alloc.lab import attach
    stopping = choice.duration is None
    with attach.Recording(choice.pid, target, names=choice.names) as recording:
        note = f"recording process {choice.pid} ({recording.allocator})"
        if stopping:
            note += "; Ctrl-C ends it"
        sys.stderr.write(f"unikit: {note}\n")
        with contextlib.suppress(KeyboardInterrupt):
            recording.wait(choice.duration)
    assert recording.trace is not None
    tell(target, recording.trace)
    longest = max(recording.stops) * 1e3
    sys.stderr.write(f"unikit: the process was stopped {len(recording.stops)} times, at most "
                     f"{longest:.1f} ms; {recording.slots} calls were redirected\n")
    return 0


def tell(path: Path, trace: Trace) -> None:
    """Say in a line what a trace holds."""
    found = trace.summary()
    program = Path(str(trace.facts.get("program", "?"))).name
    sys.stderr.write(
        f"unikit: {path}: {program} ({trace.facts.get('pid')}): {found.events} events, "
        f"{found.threads} threads, {found.sites} call sites, at most {found.peak_bytes} bytes in "
        f"{found.peak_blocks} blocks\n")
    if trace.facts.get("cut"):
        complain(f"{path}: the recording ended before the program: no room for more in "
                 f"{path.parent}, or the folder is out of the program's reach")
