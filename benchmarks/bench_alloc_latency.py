"""Claims: no single operation of ``shard`` is slow, with 50,000 blocks live.

Cycles of every operation, the least of eleven replays of the same sequence (``alloc/latency.c``);
two mixes of sizes. The references are preloaded and grow their heaps as they go, our components are
bound directly over mapped memory, as in an image. ``python3 benchmarks/bench_alloc_latency.py``
prints the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from allocators import (  # noqa: E402
    ALL,
    SOURCES,
    Allocator,
    chosen,
    compile_direct,
    compile_one,
    last_cpu,
    origin,
    own,
    references,
    write_table,
)
from harness import Sample, record  # noqa: E402

MIXES = {"uniform": "1 to 1024 B, evenly", "log": "8 B to 8 KiB, every doubling as frequent"}
SHARES = ("p50", "p99", "p99.9", "p99.99", "max")
RUNS = 2
GOALS = {"malloc p99.99": 250, "malloc max": 500, "free max": 800}
Table = dict[str, dict[str, dict[str, list[int]]]]
"""Mix, allocator and «malloc», «free» or «empty» to cycles by :data:`SHARES`."""


def run(program: Path, mix: str, library: Path | None = None) -> dict[str, list[int]] | None:
    """Run once, pinned; None: it failed."""
    command = ["taskset", "-c", str(last_cpu()), "env",
               *([f"LD_PRELOAD={library}"] if library else []), str(program), mix]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode else json.loads(done.stdout)


def least(runs: Sequence[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Return the least of each figure: a neighbour only ever adds."""
    return {name: [min(values) for values in zip(*(one[name] for one in runs), strict=True)]
            for name in runs[0]}


def measure(allocators: Sequence[Allocator], direct: Sequence[str], count: int = RUNS) -> Table:
    """Return the cycles of each allocator in each mix; who fails is left out."""
    with TemporaryDirectory(prefix="unikit-bench-alloc-") as name:
        preloaded = Path(name) / "latency"
        compile_one(SOURCES / "latency.c", preloaded)
        subjects: list[tuple[str, Path, Path | None]] = [
            (one.name, preloaded, one.library) for one in allocators]
        for stem in direct:
            target = Path(name) / f"latency-{stem}"
            compile_direct(stem, SOURCES / "latency.c", target)
            subjects.append((f"{stem}, bound", target, None))
        found: Table = {}
        for mix in MIXES:
            runs = {who: [run(program, mix, library) for _ in range(count)]
                    for who, program, library in subjects}
            found[mix] = {who: least([one for one in some if one]) for who, some in runs.items()
                          if all(some)}
        return found


def worst(table: Table, who: str, figure: str) -> int:
    """Return a figure such as «malloc max» in the worse of the mixes."""
    call, share = figure.split()
    return max(rows[who][call][SHARES.index(share)] for rows in table.values())


def record_claims(table: Table, allocators: Sequence[Allocator], ours: str) -> None:
    """Record one claim for each goal, and the table."""
    write_table("alloc-latency", {
        "mixes": MIXES, "shares": SHARES, "cycles": table, **origin(allocators)})
    complete = [who for who in table["uniform"] if all(who in rows for rows in table.values())]
    for figure, must in GOALS.items():
        samples = {who: Sample(who, (float(worst(table, who, figure)),)) for who in complete}
        mine = samples.pop(ours)
        record(f"alloc_latency_{figure.replace(' ', '_').replace('.', '')}",
               f"cycles, {figure} of single operations with 50,000 live, worse of two mixes",
               "cycles", mine, must=must, more=list(samples.values()),
               note=f"least of eleven replays; reading the clock is within the figures "
                    f"({worst(table, ours, 'empty p50')} cycles); references preloaded, their "
                    "growth included; components bound directly over mapped memory")


def test_latency(benchmark: Any) -> None:
    """Measure every allocator and record the table and the claims."""
    allocators = [*references(), *own(["shard"])]
    table = benchmark.pedantic(measure, args=(allocators, ["shard", "tlsf", "halffit"]), rounds=1)
    record_claims(table, allocators, "shard, bound")


def main() -> None:
    """Measure what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description="Latency of single operations.")
    parser.add_argument("--allocators", default=ALL, metavar="NAME,...", help="references")
    parser.add_argument("--ours", default="shard", metavar="NAME,...", help="our components")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results")
    asked = parser.parse_args()
    allocators = chosen(asked.allocators, asked.ours)
    ours = [one.name for one in allocators if one.ours and "+" not in one.name]
    table = measure(allocators, ours, asked.runs)
    for mix, rows in table.items():
        print(f"{MIXES[mix]}\n{'':<18}{'malloc ' + ' / '.join(SHARES):<42}free")
        for who, row in rows.items():
            print(f"{who:<18}{' / '.join(map(str, row['malloc'])):<42}"
                  f"{' / '.join(map(str, row['free']))}")
    if asked.record and ours:
        record_claims(table, allocators, f"{ours[0]}, bound")


if __name__ == "__main__":
    main()
