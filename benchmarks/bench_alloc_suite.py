"""Claims: ``shard`` over the patterns of the usual allocator suite, in time and in memory.

``python3 benchmarks/bench_alloc_suite.py --quick`` answers in about a minute how our allocators
stand; without ``--quick`` it takes longer and is steadier. ``pytest`` runs the full one and records
it. The programs are ``alloc/*.c``; CPU time, paired ratios to glibc, medians.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from allocators import (  # noqa: E402
    ALL,
    Allocator,
    Bench,
    Case,
    Table,
    chosen,
    own,
    references,
    rounds,
    run_facts,
    write_table,
)
from harness import Sample, record  # noqa: E402

PROGRAMS = ("alloctest", "cfrac", "espresso", "large", "larson", "mleak", "mstress", "rptest",
            "sh6like", "sharing", "simple", "working", "xmalloc")
TESTS = {
    "cfrac": ("cfrac 16247762100156195444856064422951 150", 1),
    "espresso": ("espresso 400", 1),
    "alloc-test1": ("alloctest 1 4000000", 1), "mstress1": ("mstress 1 50 150", 1),
    "sh6like1": ("sh6like 1 200", 1), "larson1": ("larson 1 8 8 1000 5000 500000", 1),
    "xmalloc1": ("xmalloc 1 4000 64", 1), "malloc-large": ("large 400", 1),
    "glibc-simple": ("simple 200000", 1), "glibc-thread1": ("working 1 10000000", 1),
    "cscratch1": ("sharing scratch 1 1000 1 300000", 1),
    "alloc-test2": ("alloctest 2 3000000", 2), "sh6like4": ("sh6like 4 60", 2),
    "larson2": ("larson 2 5 8 1000 5000 500000", 2), "xmalloc2": ("xmalloc 2 2000 64", 2),
    "cscratch2": ("sharing scratch 2 1000 1 300000", 2),
    "cthrash2": ("sharing thrash 2 1000 1 300000", 2), "mstress2": ("mstress 2 50 50", 2),
    "rptest2": ("rptest 2 4000 1000 100", 2), "mleak10": ("mleak 500", 2),
    "glibc-thread2": ("working 2 5000000", 2),
}
"""Name of the test to its command and the number of threads it keeps busy."""
QUICK_ROUNDS, ROUNDS = 3, 7
TIME_GOAL, BEST_GOAL, MEMORY_GOAL = 0.60, 0.95, 0.95


def cases(folder: Path, only: Sequence[str] = ()) -> list[Case]:
    """Return the tests, or those of them that are named."""
    unknown = set(only) - set(TESTS)
    if unknown:
        raise SystemExit(f"no such test: {', '.join(sorted(unknown))}; there are "
                         f"{', '.join(TESTS)}")
    found = []
    for name, (line, threads) in TESTS.items():
        program, *arguments = line.split()
        if not only or name in only:
            found.append(Case(name, (str(folder / program), *arguments), threads))
    return found


def measure(allocators: Sequence[Allocator], count: int, only: Sequence[str] = (), *,
            huge_pages: bool = False, progress: bool = False) -> Table:
    """Compile and run everything and return the table."""
    with TemporaryDirectory(prefix="unikit-bench-alloc-") as name:
        bench = Bench(Path(name), *PROGRAMS, huge_pages=huge_pages)
        return Table(rounds(cases(Path(name), only), allocators, count, bench.run,
                            progress=progress))


def group(table: Table, threads: int) -> list[str]:
    """Return the tests of the table that keep so many threads busy."""
    return [test for test in table.results if TESTS[test][1] == threads]


def report(table: Table, ours: Sequence[str]) -> str:
    """Return the tables of time and memory, and where our allocators are furthest behind."""
    parts = [table.text(table.time, title, tests) for title, threads in
             (("CPU time, 1 thread", 1), ("CPU time, 2", 2)) if (tests := group(table, threads))]
    means = {name: table.mean(name, table.results, table.time)[0] for name in table.names()}
    parts.append("all: " + ", ".join(f"{name} {mean:.3f}" for name, mean in means.items()))
    parts.append(table.text(table.memory, "peak RSS"))
    if heavy := table.heavy():
        parts.append("peak RSS where glibc has > 8 MiB: " + ", ".join(
            f"{name} {table.mean(name, heavy, table.memory)[0]:.3f}" for name in table.names()))
    others = [name for name in table.names() if name not in ours]
    for name in ours:
        parts.append("\n  ".join([f"{name}, furthest behind:", *table.worst(name, others)]))
    return "\n\n".join(parts)


def claim(name: str, what: str, table: Table, ours: str, values: dict[str, float], must: float,
          note: str) -> None:
    """Record a geometric mean, with those of the others beside it."""
    record(name, what, "x glibc", Sample(ours, (values[ours],)), must=must, note=note,
           more=[Sample(other, (value,)) for other, value in values.items()
                 if other not in (ours, table.base)])


def record_claims(table: Table, ours: str, names: Sequence[str]) -> None:
    """Record the three claims about the suite.

    :param names: the references among the allocators, without glibc.
    """
    note = "geometric mean over tests of the median ratio to glibc; a failure counts as 10"
    every = list(table.results)
    time = {name: table.mean(name, every, table.time)[0] for name in table.names()}
    claim("alloc_suite_time", f"{len(every)} allocation patterns, CPU time", table, ours, time,
          TIME_GOAL, note)
    best = min(names, key=time.__getitem__)
    record("alloc_suite_best", f"{len(every)} allocation patterns, against the best packaged",
           "x glibc", Sample(ours, (time[ours],)), must=BEST_GOAL, compare="ratio",
           reference=Sample(best, (time[best],)), note=note)
    heavy = table.heavy()
    memory = {name: table.mean(name, heavy, table.memory)[0] for name in table.names()}
    claim("alloc_suite_memory", f"peak resident memory, {len(heavy)} patterns above 8 MiB", table,
          ours, memory, MEMORY_GOAL, "transparent huge pages forbidden to every process; " + note)


def test_suite(benchmark: Any) -> None:
    """Run every test with every allocator and record the table and the claims."""
    allocators = [*references(), *own(["shard", "tlsf"])]
    table = benchmark.pedantic(measure, args=(allocators, ROUNDS), rounds=1)
    write_table("alloc-suite", run_facts(table, allocators))
    record_claims(table, "shard", [one.name for one in allocators
                                   if one.library and not one.ours])


def main() -> None:
    """Measure what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description="The allocator suite.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer references")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}, quick {QUICK_ROUNDS}")
    parser.add_argument("--only", default="", metavar="TEST,...", help="these tests alone")
    parser.add_argument("--allocators", metavar="NAME,...", help="references (all installed)")
    parser.add_argument("--ours", default="shard", metavar="NAME,...", help="our components")
    parser.add_argument("--huge-pages", action="store_true",
                        help="leave transparent huge pages as the kernel has them")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results")
    asked = parser.parse_args()
    default = "mimalloc,tcmalloc" if asked.quick else ALL
    allocators = chosen(asked.allocators or default, asked.ours)
    ours = [one.name for one in allocators if one.ours]
    count = asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS)
    table = measure(allocators, count, [name for name in asked.only.split(",") if name],
                    huge_pages=asked.huge_pages, progress=True)
    print(report(table, ours))
    if asked.record:
        write_table("alloc-suite", run_facts(table, allocators, asked.huge_pages))
        if ours:
            record_claims(table, ours[0], [one.name for one in allocators
                                           if one.library and not one.ours])


if __name__ == "__main__":
    main()
