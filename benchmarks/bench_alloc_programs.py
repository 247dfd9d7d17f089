"""Claim: ``shard`` under eight real programs, in time; none of them may become slower.

The programs are those of the distribution, their inputs are made from seeds (``alloc/inputs.py``).
``python3 benchmarks/bench_alloc_programs.py`` prints the table; CPU time, paired ratios to glibc.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from alloc import inputs  # noqa: E402
from allocators import (  # noqa: E402
    ALL,
    SOURCES,
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

ROUNDS = 5
TIME_GOAL, WORST_GOAL = 0.85, 1.05


def compiler(name: str) -> str | None:
    """Return the compiler proper of gcc, or None."""
    done = subprocess.run(["gcc", f"-print-prog-name={name}"], capture_output=True, text=True,
                          check=False)
    return shutil.which(done.stdout.strip())


def redis(folder: Path) -> Case:
    """Return the server with its two loads: small writes of all kinds, then lists and their reads.

    Debian's is linked to jemalloc.
    """
    socket = folder / "redis.sock"
    client = ("redis-benchmark", "-s", str(socket), "-q", "-P", "16", "-r", "20000", "-c", "20")
    return Case("redis", ("redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "",
                          "--appendonly", "no", "--dir", str(folder)),
                foreign=True, socket=socket,
                loads=((*client, "-n", "60000", "-d", "64", "-t", "set,get,incr,lpush,hset,zadd"),
                       (*client, "-n", "12000", "-d", "300", "-t", "set,lpush,lrange_100,sadd")))


def cases(folder: Path, only: Sequence[str] = ()) -> list[Case]:
    """Return the programs that are installed, or those of them that are named."""
    inputs.write(folder)
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    script = (python, str(SOURCES / "work.py"), "25000")
    found = [
        Case("python-pymalloc", script),
        Case("python-malloc", script, variables=("PYTHONMALLOC=malloc",)),
        Case("sqlite3", ("sqlite3", ":memory:", f".read {folder}/work.sql")),
        Case("cc1", (compiler("cc1") or "cc1", "-quiet", "-O2", "-fpreprocessed",
                     f"{folder}/work.i", "-o", "/dev/null")),
        Case("cc1plus", (compiler("cc1plus") or "cc1plus", "-quiet", "-O0", "-fpreprocessed",
                         f"{folder}/work.ii", "-o", "/dev/null")),
        Case("lua", (shutil.which("lua5.4") or "lua", str(SOURCES / "work.lua"), "40000")),
        # jq runs at one of two speeds, a third apart, as address randomisation happens to lay out
        # its stack, whichever the allocator is: several runs, so that each meets the faster one
        Case("jq", ("jq", inputs.FILTER, f"{folder}/work.json"), best_of=5),
        redis(folder),
    ]
    absent = [case.name for case in found if not shutil.which(case.command[0])]
    if absent:
        print(f"not installed: {', '.join(absent)}", file=sys.stderr)
    return [case for case in found
            if case.name not in absent and (not only or case.name in only)]


def measure(allocators: Sequence[Allocator], count: int, only: Sequence[str] = (), *,
            huge_pages: bool = False, progress: bool = False) -> Table:
    """Make the inputs, run everything and return the table."""
    with TemporaryDirectory(prefix="unikit-bench-alloc-") as name:
        bench = Bench(Path(name), huge_pages=huge_pages)
        return Table(rounds(cases(Path(name), only), allocators, count, bench.run,
                            progress=progress))


def record_claims(table: Table, ours: str) -> None:
    """Record the mean and the worst program."""
    tests = list(table.results)
    means = {name: table.mean(name, tests, table.time)[0] for name in table.names()}
    more = [Sample(name, (mean,)) for name, mean in means.items() if name not in (ours, "glibc")]
    note = "median over rounds of the ratio to glibc; redis carries an allocator of its own, so " \
           "that there glibc's is preloaded as well; a failure counts as 10"
    record("alloc_programs_time", f"{len(tests)} real programs, CPU time, geometric mean",
           "x glibc",
           Sample(ours, (means[ours],)), must=TIME_GOAL, more=more, note=note)
    worst = {name: max((table.time(test, name) or 10.0, test) for test in tests)
             for name in table.names()}
    record("alloc_programs_worst", f"real program that suffers most ({worst[ours][1]}), CPU time",
           "x glibc", Sample(ours, (worst[ours][0],)), must=WORST_GOAL, note=note,
           more=[Sample(f"{name}, {worst[name][1]}", (worst[name][0],)) for name in table.names()
                 if name not in (ours, "glibc")])


def test_programs(benchmark: Any) -> None:
    """Run every program with every allocator and record the table and the claims."""
    allocators = [*references(), *own(["shard", "tlsf"])]
    table = benchmark.pedantic(measure, args=(allocators, ROUNDS), rounds=1)
    write_table("alloc-programs", run_facts(table, allocators))
    record_claims(table, "shard")


def main() -> None:
    """Measure what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description="Real programs under allocators.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", metavar="PROGRAM,...", help="these alone")
    parser.add_argument("--allocators", default=ALL, metavar="NAME,...", help="references")
    parser.add_argument("--ours", default="shard", metavar="NAME,...", help="our components")
    parser.add_argument("--huge-pages", action="store_true",
                        help="leave transparent huge pages as the kernel has them")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results")
    asked = parser.parse_args()
    allocators = chosen(asked.allocators, asked.ours)
    table = measure(allocators, asked.rounds, [name for name in asked.only.split(",") if name],
                    huge_pages=asked.huge_pages, progress=True)
    print(table.text(table.time, "CPU time"), table.text(table.memory, "peak RSS"), sep="\n\n")
    ours = [one.name for one in allocators if one.ours]
    if asked.record:
        write_table("alloc-programs", run_facts(table, allocators, asked.huge_pages))
        if ours:
            record_claims(table, ours[0])


if __name__ == "__main__":
    main()
