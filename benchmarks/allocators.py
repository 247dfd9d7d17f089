"""What the allocator benchmarks share: who takes part, how one run is measured, how runs compare.

Every run is a process of its own under ``alloc/launch.c``, which verifies that the library is
really mapped and reads the peak of resident memory before it is gone. Rounds are interleaved:
within one, every test meets every allocator once, in random order; ratios are taken within a round.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import math
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE / "alloc"
ROOT = HERE.parent
LIBRARIES = {
    "jemalloc": ("libjemalloc.so.2", "libjemalloc2"),
    "mimalloc": ("libmimalloc.so.2", "libmimalloc2.0"),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
    "tbbmalloc": ("libtbbmalloc_proxy.so.2", "libtbbmalloc2"),
}
"""Name of a reference to its library and to the Debian package it comes in."""
ALL = ",".join(LIBRARIES)
"""Every reference but glibc, as the command line takes them."""
LOSS = 10.0
"""What a failure counts as, as a ratio to glibc: lost, not left out."""
NOTICEABLE = 8 << 20
"""Peak resident memory of glibc from which on a test says something about memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Allocator:
    """One that takes part.

    :ivar library: what is preloaded; None: nothing is, the C library's own.
    """

    name: str
    library: Path | None = None
    version: str = ""
    ours: bool = False

    def options(self) -> list[str]:
        """Return what makes ``launch`` preload and verify it."""
        if self.library is None:
            return []
        return ["-p", str(self.library), "-f", self.library.resolve().name]


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What one run cost; times in seconds, memory in bytes.

    :ivar failure: why the run does not count, or "".
    """

    user: float = 0.0
    system: float = 0.0
    wall: float = 0.0
    peak: int = 0
    faults: int = 0
    failure: str = ""

    @property
    def cpu(self) -> float:
        """CPU time of the process and its children."""
        return self.user + self.system


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A test: a command, the number of threads it keeps busy, its environment.

    :ivar foreign: the program is linked to an allocator of its own, so that glibc's, too, has to
        be preloaded.
    :ivar best_of: runs per round, of which the fastest counts.
    :ivar loads: for a server: commands that are run against it, one after the other.
    :ivar socket: for a server: what it listens on.
    """

    name: str
    command: tuple[str, ...]
    threads: int = 1
    variables: tuple[str, ...] = ()
    foreign: bool = False
    best_of: int = 1
    loads: tuple[tuple[str, ...], ...] = ()
    socket: Path | None = None


def packaged(package: str) -> str:
    """Return the version of an installed Debian package, or "unknown"."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True,
                          text=True, check=False)
    return done.stdout.strip() or "unknown"


def references() -> list[Allocator]:
    """Return the C library's allocator and those of the others that are installed."""
    found = [Allocator("glibc", None, platform.libc_ver()[1])]
    for name, (library, package) in LIBRARIES.items():
        path = Path("/usr/lib/x86_64-linux-gnu") / library
        if path.exists():
            found.append(Allocator(name, path, packaged(package)))
    return found


def component(name: str) -> Any:
    """Return the record of one of our allocators.

    :param name: «shard»; layers by a plus sign from the outside in, options after colons:
        «guard+tlsf», «shard:secure=1:batch=8» (those of the innermost component).
    """
    from unikit.image import preload

    layers, *options = name.split(":")
    innermost = layers.split("+")[-1]
    settings = {f"alloc.{innermost}.{key}": value for key, _, value in
                (option.partition("=") for option in options)}
    return preload.choose(layers.replace("+", ","), settings)


def own(names: Iterable[str]) -> list[Allocator]:
    """Return our components, named as in :func:`component`, as preloadable libraries."""
    from unikit.image import preload

    return [Allocator(name, preload.library(component(name)), "this tree", True)
            for name in names]


def chosen(names: str, mine: str) -> list[Allocator]:
    """Return the allocators asked for, glibc always; absent ones are named and left out."""
    from unikit.errors import UnikitError

    wanted = names.split(",")
    found = [one for one in references() if one.name in (*wanted, "glibc")]
    for name in filter(None, mine.split(",")):
        try:
            found += own([name])
        except UnikitError as why:
            print(f"without {name}: {why}", file=sys.stderr)
    return found


def compile_one(source: Path, target: Path, *flags: str) -> None:
    """Compile one C file of the benchmarks as programs are compiled: hosted, -O3."""
    # the operators of C++ are called from C (alloc/operators.h); the library is there without g++
    libraries = () if "-static" in flags else ("-Wl,--as-needed", "-l:libstdc++.so.6", "-lm")
    subprocess.run(["gcc", "-std=gnu11", "-O3", f"-I{ROOT}", *flags, "-pthread", "-o", target,
                    source, *libraries], check=True)


def compile_direct(name: str, source: Path, target: Path) -> None:
    """Compile a C file that includes ``subject.h`` with a component as its allocator.

    :param name: as in :func:`own`, without layers.
    """
    record = component(name)
    compile_one(source, target, "-flto", f"-DKIT_SOLE_ALLOC={record.symbol()}",
                *(f"-D{each}" for each in record.sole_defines()),
                "-DOPTIONS=" + (",".join(map(str, record.encoded())) or "0"),
                *map(str, record.source_files()))


class Bench:
    """Compiled programs in a folder, and the means to run them."""

    def __init__(self, folder: Path, *names: str, huge_pages: bool = False,
                 limit: int = 20) -> None:
        """Compile ``launch.c`` and the named patterns into ``folder``.

        :param huge_pages: let the kernel give transparent huge pages as it is set up to.
        :param limit: seconds after which a run is lost.
        """
        self.folder, self.limit, self.huge_pages = folder, limit, huge_pages
        compile_one(SOURCES / "launch.c", folder / "launch", "-static")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: compile_one(SOURCES / f"{name}.c", folder / name), names))

    def command(self, case: Case, allocator: Allocator) -> list[str]:
        """Return the whole command line of a run."""
        line = [str(self.folder / "launch"), "-l", str(self.limit)]
        if case.foreign and allocator.library is None:
            line += ["-p", "/lib/x86_64-linux-gnu/libc.so.6"]
        line += allocator.options()
        if not self.huge_pages:
            line.append("-t")
        if case.threads == 1:
            line += ["-c", str(last_cpu())]
        for variable in case.variables:
            line += ["-e", variable]
        return [*line, "--", *case.command]

    def run(self, case: Case, allocator: Allocator) -> Cost:
        """Run as often as the case wants and return the fastest, or the first that failed."""
        costs = [self.run_once(case, allocator) for _ in range(case.best_of)]
        return min(costs, key=lambda cost: (not cost.failure, cost.cpu))

    def run_once(self, case: Case, allocator: Allocator) -> Cost:
        """Run once: to its end, or as a server until it has carried its loads."""
        with subprocess.Popen(self.command(case, allocator), stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            carried = True
            if case.socket:
                carried = load(case)
                running.terminate()
            line, complaint = running.communicate()
        cost = understood(line, complaint)
        return cost if carried else dataclasses.replace(cost, failure=cost.failure or "load failed")


def load(case: Case) -> bool:
    """Wait for a server, run its loads, and return whether all of them went well."""
    assert case.socket
    for _ in range(200):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(case.socket))
            break
        time.sleep(0.02)
    else:
        return False
    return all(subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              check=False).returncode == 0 for command in case.loads)


def understood(line: str, complaint: str = "") -> Cost:
    """Return what ``launch`` reported."""
    if not line.startswith("{"):
        return Cost(failure=complaint.strip() or "launch said nothing")
    found = json.loads(line)
    failure = ""
    if found["timeout"]:
        failure = "timeout"
    elif found["signal"]:
        failure = f"signal {found['signal']}"
    elif found["status"]:
        failure = f"exit status {found['status']}"
    elif not found["mapped"]:
        failure = "library not loaded"
    return Cost(found["user"], found["system"], found["wall"], found["peak_kib"] << 10,
                found["minor"] + found["major"], failure)


def last_cpu() -> int:
    """Return the CPU that single-threaded tests are pinned to."""
    return max(os.sched_getaffinity(0))


@functools.cache
def huge_page_setting() -> str:
    """Return what the kernel is set up to do with transparent huge pages."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    text = path.read_text() if path.exists() else "[absent]"
    return text[text.index("[") + 1:text.index("]")]


Results = dict[str, dict[str, list[Cost]]]
"""Test to allocator to the cost of each round."""


def rounds(cases: Sequence[Case], allocators: Sequence[Allocator], count: int,
           measure: Callable[[Case, Allocator], Cost], *, seed: int = 1,
           progress: bool = False) -> Results:
    """Measure every case with every allocator ``count`` times, interleaved, in random order.

    An allocator that failed a case twice is not asked again.
    """
    shuffle = random.Random(seed).shuffle
    found: Results = {case.name: {one.name: [] for one in allocators} for case in cases}
    for number in range(count):
        order = list(cases)
        shuffle(order)
        for case in order:
            turn = list(allocators)
            shuffle(turn)
            for one in turn:
                costs = found[case.name][one.name]
                if sum(bool(cost.failure) for cost in costs) >= 2:
                    costs.append(costs[-1])
                else:
                    costs.append(measure(case, one))
        if progress:
            print(f"round {number + 1} of {count}", file=sys.stderr, flush=True)
    return found


def geomean(values: Iterable[float]) -> float:
    """Return the geometric mean; NaN of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def ratio(costs: Sequence[Cost], base: Sequence[Cost],
          value: Callable[[Cost], float]) -> float | None:
    """Return the median over the rounds of the ratio to ``base``; None: any run failed."""
    if any(cost.failure for cost in costs):
        return None
    pairs = [(value(one), value(two)) for one, two in zip(costs, base, strict=True)
             if not two.failure and value(two) > 0]
    return statistics.median(one / two for one, two in pairs) if pairs else None


@dataclasses.dataclass(frozen=True)
class Table:
    """Ratios to glibc of every test and allocator, from the costs of the rounds."""

    results: Results
    base: str = "glibc"

    def time(self, test: str, name: str) -> float | None:
        """CPU time."""
        return self._ratio(test, name, lambda cost: cost.cpu)

    def memory(self, test: str, name: str) -> float | None:
        """Peak resident memory."""
        return self._ratio(test, name, lambda cost: float(cost.peak))

    def faults(self, test: str, name: str) -> float | None:
        """Page faults."""
        return self._ratio(test, name, lambda cost: float(cost.faults))

    def _ratio(self, test: str, name: str, value: Callable[[Cost], float]) -> float | None:
        rows = self.results[test]
        return ratio(rows[name], rows[self.base], value)

    def heavy(self) -> list[str]:
        """Return the tests in which glibc takes noticeable memory."""
        return [test for test, rows in self.results.items()
                if statistics.median(cost.peak for cost in rows[self.base]) > NOTICEABLE]

    def mean(self, name: str, tests: Iterable[str],
             of: Callable[[str, str], float | None]) -> tuple[float, int]:
        """Return the geometric mean, failures as losses, and the number of tests completed."""
        values = [of(test, name) for test in tests]
        return (geomean(LOSS if value is None else value for value in values),
                sum(value is not None for value in values))

    def names(self) -> list[str]:
        """Return who took part."""
        return list(next(iter(self.results.values())))

    def text(self, of: Callable[[str, str], float | None], title: str,
             tests: Sequence[str] | None = None) -> str:
        """Return a table for the terminal."""
        tests = list(self.results) if tests is None else list(tests)
        names = [name for name in self.names() if name != self.base]
        lines = [f"{title:<18}" + "".join(f"{name[:10]:>11}" for name in names)]
        for test in tests:
            cells = [of(test, name) for name in names]
            lines.append(f"{test:<18}" + "".join(f"{'FAIL' if cell is None else f'{cell:.3f}':>11}"
                                                 for cell in cells))
        means = [self.mean(name, tests, of) for name in names]
        lines.append(f"{'geomean':<18}" + "".join(f"{mean:>11.3f}" for mean, _ in means))
        if any(done < len(tests) for _, done in means):
            lines.append(f"{'completed':<18}" + "".join(f"{done:>11}" for _, done in means))
        return "\n".join(lines)

    def worst(self, name: str, others: Sequence[str], count: int = 6) -> list[str]:
        """Return the tests in which an allocator is furthest behind the best of the others."""
        rows = []
        for test in self.results:
            mine = self.time(test, name) or LOSS
            best = min((self.time(test, other) or LOSS, other) for other in others)
            rows.append((mine / best[0], test, mine, best))
        return [f"{test}: {mine:.3f} of glibc, {behind:.2f} x {best[1]} ({best[0]:.3f})"
                for behind, test, mine, best in sorted(rows, reverse=True)[:count]]

    def facts(self) -> dict[str, Any]:
        """Return everything as it stands in a result file."""
        out: dict[str, Any] = {}
        for test, rows in self.results.items():
            out[test] = {}
            for name, costs in rows.items():
                good = [cost for cost in costs if not cost.failure]
                row: dict[str, Any] = {"failure": next((cost.failure for cost in costs
                                                        if cost.failure), "")}
                if good:
                    row |= {"cpu_s": rounded(statistics.median(cost.cpu for cost in good)),
                            "peak_kib": round(statistics.median(cost.peak for cost in good)) >> 10,
                            "faults": round(statistics.median(cost.faults for cost in good))}
                if not row["failure"]:
                    row |= {"time": rounded(self.time(test, name)),
                            "memory": rounded(self.memory(test, name))}
                out[test][name] = row
        return out


def origin(allocators: Iterable[Allocator]) -> dict[str, Any]:
    """Return what a reader must know of every table: versions, machine, date."""
    from harness import machine

    return {"versions": {one.name: one.version for one in allocators},
            "date": datetime.date.today().isoformat(), "machine": machine()}


def run_facts(table: Table, allocators: Sequence[Allocator],
              huge_pages: bool = False) -> dict[str, Any]:
    """Return a table of ratios as it is kept."""
    return {"tests": table.facts(), "ours": [one.name for one in allocators if one.ours],
            "huge_pages": huge_page_setting() if huge_pages else "forbidden to every process",
            "rounds": len(next(iter(table.results.values()))[table.base]), **origin(allocators)}


def rounded(value: float | None) -> float | None:
    """Return three significant digits or so: files that people read in a diff."""
    return None if value is None else round(value, 4)


def write_table(name: str, table: Mapping[str, Any]) -> None:
    """Write a table beside the claims; the page of the documentation draws it."""
    from harness import RESULTS

    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")
