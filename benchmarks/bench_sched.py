"""Claims: a thread switch costs a fiftieth of swapcontext, a yield 10 ns, sleepers cost nothing.

The loops are in ``sched.c``, compiled as an image is; ns of CPU time per operation.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from harness import interleave, paired_ratio, record

from unikit.sched import Coop

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 7
PEERS = {"boost fcontext": "4.7 ns (2026-11-20)", "libco": "3.1 ns (2026-11-20)",
         "minicoro": "10.6 ns (2026-11-20)"}


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """Compile sched.c with sched.coop as its only scheduler."""
    with TemporaryDirectory(prefix="unikit-bench-sched-") as folder:
        target = Path(folder) / "sched"
        subprocess.run(
            ["gcc", "-std=gnu11", "-O2", "-flto", f"-DKIT_SOLE_SCHED={Coop.symbol()}", f"-I{ROOT}",
             "-o", target, ROOT / "benchmarks/sched.c", ROOT / "unikit/testing/virtual.c",
             *Coop().source_files()], check=True)
        yield target


def mode(program: Path, *arguments: object) -> Callable[[], float]:
    """Return a function that measures once."""
    return lambda: float(subprocess.run([program, *map(str, arguments)], check=True,
                                        capture_output=True, text=True).stdout)


def test_switch(benchmark: Any, program: Path) -> None:
    """Two contexts switch to and fro; the C library's swapcontext does the same beside it."""
    found = benchmark.pedantic(
        interleave, args=(ROUNDS, 1), rounds=1,
        kwargs={"ours": mode(program, "switch"), "swapcontext": mode(program, "swapcontext")})
    record("sched_switch", "switch between two stacks", "ns", found["ours"], must=0.02,
           reference=found["swapcontext"], compare="ratio", constants=PEERS,
           ratio=paired_ratio(found["ours"], found["swapcontext"]),
           note="general registers that hold something; control words of SSE and x87 "
                "only for tasks with KIT_TASK_CONTROL, 4 ns more")


def test_yield(benchmark: Any, program: Path) -> None:
    """16 tasks yield through the queue of sched.coop; also whole lives: spawn, run, join."""
    found = benchmark.pedantic(
        interleave, args=(ROUNDS, 1), rounds=1,
        kwargs={"ours": mode(program, "yield"), "life": mode(program, "life")})
    record("sched_yield", "yield through the run queue, 16 tasks", "ns", found["ours"], must=10,
           more=[found["life"]])


def test_sleepers_cost_nothing(benchmark: Any, program: Path) -> None:
    """A yield must not become slower when 100,000 timers are armed; nor arming one absurdly."""
    found = benchmark.pedantic(
        interleave, args=(ROUNDS, 1), rounds=1,
        kwargs={"many": mode(program, "yield", 100_000), "one": mode(program, "yield", 1),
                "change, 1 armed": mode(program, "timer", 1),
                "change, 1000 armed": mode(program, "timer", 1000),
                "change, 100000 armed": mode(program, "timer", 100_000)})
    record("sched_sleepers", "yield with 100,000 timers armed against one", "ns", found["many"],
           must=1.2, reference=found["one"], compare="ratio",
           ratio=paired_ratio(found["many"], found["one"]),
           more=[sample for name, sample in found.items() if name.startswith("change")],
           note="change: cancel a random timer and arm it again, heap of the named size")
