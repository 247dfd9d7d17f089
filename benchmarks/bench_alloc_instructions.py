"""Claim: ``shard`` needs at most 34 instructions for an allocation and its free.

Counted by cachegrind, so the same on every machine with the same compiler: three patterns
(``alloc/instructions.c``), start-up and loop subtracted. ``python3
benchmarks/bench_alloc_instructions.py`` prints the table. Components are counted twice: as
preloaded library, where the size of a freed block has to be found, and bound directly, where it is
given.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from allocators import (  # noqa: E402
    ALL,
    SOURCES,
    Allocator,
    chosen,
    compile_direct,
    compile_one,
    origin,
    own,
    references,
    write_table,
)
from harness import Sample, record  # noqa: E402

PATTERNS = {"hot": "one block of 64 B again and again", "batch": "256 blocks of 64 B, in order",
            "replace": "a random one of 1000 of 1 to 1024 B"}
SHORT, LONG = 5_120, 20_480
GOAL = 34
Counts = dict[str, float]
"""Pattern to instructions per pair."""


def executed(program: Path, pattern: str, pairs: int, library: Path | None = None) -> int:
    """Return the number of instructions of one run."""
    environment = {"LD_PRELOAD": str(library)} if library else {}
    done = subprocess.run(
        ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
         program, pattern, str(pairs)], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", **environment})
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"{library or program}: {done.stderr[-400:]}")
    return int(found[1].replace(",", ""))


def slope(program: Path, pattern: str, library: Path | None = None) -> float:
    """Return the instructions of one pair, loop included."""
    long, short = (executed(program, pattern, pairs, library) for pairs in (LONG, SHORT))
    return (long - short) / (LONG - SHORT)


def loops(program: Path) -> Counts:
    """Return the instructions of the loops alone: the same for every allocator."""
    return {pattern: slope(program, f"{pattern}*") for pattern in PATTERNS}


def per_pair(program: Path, idle: Counts, library: Path | None = None) -> Counts:
    """Return the instructions of a pair in each pattern, without start-up.

    :param idle: what to subtract, from :func:`loops`.
    """
    return {pattern: round(slope(program, pattern, library) - idle[pattern], 2)
            for pattern in PATTERNS}


def measure(allocators: Sequence[Allocator], direct: Sequence[str]) -> dict[str, Counts | str]:
    """Return the counts of each allocator, or why there are none."""
    def count(program: Path, library: Path | None = None) -> Counts | str:
        try:
            return per_pair(program, bound_idle if library is None and program != plain else idle,
                            library)
        except RuntimeError as why:
            return str(why).splitlines()[0][:120]

    with TemporaryDirectory(prefix="unikit-bench-alloc-") as name, ThreadPoolExecutor(2) as pool:
        plain = Path(name) / "instructions"
        bound = {stem: Path(name) / f"instructions-{stem}" for stem in direct}
        compile_one(SOURCES / "instructions.c", plain)
        for stem, target in bound.items():
            compile_direct(stem, SOURCES / "instructions.c", target)
        idle = loops(plain)
        bound_idle = loops(next(iter(bound.values()))) if bound else idle
        jobs = {one.name: pool.submit(count, plain, one.library) for one in allocators}
        jobs |= {f"{stem}, bound": pool.submit(count, target) for stem, target in bound.items()}
        return {name: job.result() for name, job in jobs.items()}


def record_claim(counts: dict[str, Counts | str], allocators: Sequence[Allocator],
                 ours: str) -> None:
    """Record the claim, and the table."""
    write_table("alloc-instructions", {
        "patterns": PATTERNS, "counts": counts, **origin(allocators)})
    samples = [Sample(name, (row["replace"],)) for name, row in counts.items()
               if not isinstance(row, str)]
    mine = next(sample for sample in samples if sample.name == ours)
    record("alloc_instructions_pair", "instructions per malloc and free, random replacement",
           "instructions", mine, must=GOAL, more=[one for one in samples if one is not mine],
           note="1000 blocks of 1 to 1024 B live; cachegrind; start-up and loop subtracted; "
                "«bound» is the component called directly, sizes given on free")


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_instructions(benchmark: Any) -> None:
    """Count every allocator and record the table and the claim."""
    allocators = [*references(), *own(["shard", "tlsf"])]
    counts = benchmark.pedantic(measure, args=(allocators, ["shard", "tlsf", "halffit"]), rounds=1)
    record_claim(counts, allocators, "shard")


def main() -> None:
    """Count what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description="Instructions of allocators.")
    parser.add_argument("--allocators", default=ALL, metavar="NAME,...", help="references")
    parser.add_argument("--ours", default="shard", metavar="NAME,...", help="our components")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results")
    asked = parser.parse_args()
    allocators = chosen(asked.allocators, asked.ours)
    ours = [one.name for one in allocators if one.ours]
    counts = measure(allocators, [name for name in ours if "+" not in name])
    print(f"{'instructions':<18}" + "".join(f"{pattern:>10}" for pattern in PATTERNS))
    for name, row in counts.items():
        cells = row if isinstance(row, str) else "".join(f"{row[pattern]:>10.1f}"
                                                         for pattern in PATTERNS)
        print(f"{name:<18}{cells}")
    if asked.record and ours:
        record_claim(counts, allocators, ours[0])


if __name__ == "__main__":
    main()
