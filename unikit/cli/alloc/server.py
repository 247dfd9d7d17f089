"""A server under test: started, waited for, loaded, ended; nothing of it stays behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from unikit.alloc.lab.comparison import Run
from unikit.cli.alloc.process import Cost, Launch, descendants, ending, ports, tail
from unikit.cli.alloc.rounds import Result

_POLL_S = 0.01
_LOCAL_S = 0.3  # a server that has opened a local socket only may still open a port
_ENDED = (0, -15, 143)  # exits that SIGTERM commonly has
_RATES = (
    r"^\s*Requests/sec:\s+([\d.]+)",                       # wrk, hey
    r"Requests per second:\s+([\d.]+)",                    # ab
    r"(?<!:)\b([\d.]+) requests per second",               # redis-benchmark
    r"^Totals\s+([\d.]+)",                                 # memtier_benchmark
    r"^tps = ([\d.]+)",                                    # pgbench
    r"transactions:\s+\d+\s+\(([\d.]+) per sec",           # sysbench
    r"^finished in [\d.]+\w+, ([\d.]+) req/s",             # h2load
)


def throughput(text: str, pattern: str | None = None) -> float | None:
    """Return what a load generator says it reached, per second; ``None``: it does not say.

    Several lines, as of redis-benchmark with several tests, count by their harmonic mean: that of
    the same number of requests in each.

    :param pattern: with one group, instead of the known ones.
    """
    text = text.replace("\r", "\n")
    for each in [pattern] if pattern else _RATES:
        found = [float(word) for word in re.findall(each, text, re.MULTILINE)]
        if found and all(found):
            return statistics.harmonic_mean(found)
    return None


def memory(pid: int) -> int | None:
    """Return the bytes of memory of a process and its descendants, each its share of a page."""
    total = 0
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            match = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
            total += int(match[1]) << 10 if match else 0
    return total or None


class _Failed(Exception):
    """A run that came to nothing, with what was printed."""

    def __init__(self, failure: str, printed: str = "") -> None:
        self.printed = printed
        super().__init__(failure)


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """A server and what loads it.

    :ivar words: program and arguments.
    :ivar load: shell command that puts it under load; its success is that of the run.
    :ivar port: where it must listen; ``None``: any port or local socket of it will do.
    :ivar ready: shell command that succeeds once it is ready, instead of looking at its sockets.
    :ivar grace: seconds between SIGTERM and SIGKILL.
    :ivar metric: finds the throughput in what the load prints.
    :ivar here: run in this folder instead of an empty one.
    :ivar cpu: the only CPU the server may use; the load then gets the others.
    :ivar verbose: gets what the load prints, or ``None``.
    """

    words: Sequence[str]
    load: str
    port: int | None = None
    ready: str | None = None
    grace: float = 5.0
    metric: str | None = None
    here: bool = False
    cpu: int | None = None
    verbose: Callable[[str], None] | None = None

    def once(self, preload: Sequence[Path], number: int, timeout: float | None,
             environment: dict[str, str]) -> Result:
        """Start the server, load it, end it."""
        with contextlib.ExitStack() as undo:
            printed = undo.enter_context(tempfile.TemporaryFile())
            folder = None if self.here else Path(undo.enter_context(
                tempfile.TemporaryDirectory(prefix="unikit-server-")))
            launch = undo.enter_context(
                Launch(self._words(), preload=preload, cpu=self.cpu, environment=environment,
                       folder=folder, output=printed, errors=printed))
            try:
                self._await(launch, printed, timeout or 60.0)
                wall, rate = self._loaded(launch, printed, timeout)
                settled = memory(launch.pid)
                cost, note = self._end(launch, printed)
            except _Failed as failed:
                return Result(None, str(failed), failed.printed)
            cpu = cost.user + cost.system
            run = Run(number, cpu, wall, cost.peak, cost.minor + cost.major, settled, rate,
                      cost.user, cost.switches, cpu / (rate * wall) if rate and wall else None)
            return Result(run, printed=tail(printed), note=note)

    def _words(self) -> list[str]:
        """Return the words, files among them by their full names: the folder is another one."""
        if self.here:
            return list(self.words)
        return [_absolute(word, at) for at, word in enumerate(self.words)]

    def _await(self, launch: Launch, printed: IO[bytes], timeout: float) -> None:
        begin = time.monotonic()
        while time.monotonic() - begin < timeout:
            if cost := launch.wait(0):
                raise _Failed(f"{ending(cost.status)} before it was ready", tail(printed))
            if self._is_ready(launch.pid, time.monotonic() - begin):
                return
            time.sleep(_POLL_S)
        found, _ = ports(descendants(launch.pid))
        opened = f"; it listens on {', '.join(map(str, sorted(found)))}" if found else ""
        wish = f"port {self.port}" if self.port else "any port"
        what = "--ready never succeeded" if self.ready else f"it did not open {wish}{opened}"
        raise _Failed(f"not ready after {timeout:.0f} s: {what}", tail(printed))

    def _is_ready(self, pid: int, waited: float) -> bool:
        if self.ready:
            with Launch(["sh", "-c", self.ready]) as probe:
                cost = probe.wait(5.0)
                return cost is not None and cost.status == 0
        found, local = ports(descendants(pid))
        if self.port:
            return self.port in found
        return bool(found) or (local and waited > _LOCAL_S)

    def _loaded(self, launch: Launch, printed: IO[bytes], timeout: float | None
                ) -> tuple[float, float | None]:
        """Run the load; returns seconds and throughput."""
        with tempfile.TemporaryFile() as said, \
                Launch(["sh", "-c", self.load], output=said, errors=said) as load:
            others = os.sched_getaffinity(0) - {self.cpu}
            if self.cpu is not None and others:
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(load.pid, others)
            done = load.wait(timeout)
            text = tail(said, 1000)
            if self.verbose:
                self.verbose(text)
            if cost := launch.wait(0):
                raise _Failed(f"{ending(cost.status)} under load", tail(printed))
            if done is None:
                raise _Failed(f"timeout of the load after {timeout:.0f} s", tail(said))
            if done.status != 0:
                raise _Failed(f"the load failed: {ending(done.status)}", tail(said))
            return done.wall, throughput(text, self.metric)

    def _end(self, launch: Launch, printed: IO[bytes]) -> tuple[Cost, str]:
        launch.terminate()
        cost, note = launch.wait(self.grace), ""
        if cost is None:
            launch.kill()
            cost = launch.wait(10.0)
            note = f"killed: still there {self.grace:g} s after SIGTERM"
            if cost is None:
                raise _Failed("it cannot be killed", tail(printed))
        elif cost.status not in _ENDED:
            raise _Failed(f"{ending(cost.status)} at its end", tail(printed))
        return cost, note


def _absolute(word: str, at: int) -> str:
    """Return a word as it is, or the full name if it names a file from here."""
    if at == 0 and "/" not in word:
        return word  # found on the PATH
    path = Path(word)
    return str(path.resolve()) if not word.startswith("-") and word and path.exists() else word
