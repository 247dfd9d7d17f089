"""Claims: what hardened ``shard`` catches of eighty misuse programs, and what it costs.

``python3 benchmarks/bench_alloc_hardening.py`` prints who catches what; with ``--cost`` also the
time of each hardening, over the patterns of the suite, relative to the same allocator without it.
The programs and the rules stand in ``tests/alloc/misuse/README.rst``.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from allocators import (  # noqa: E402
    Allocator,
    geomean,
    huge_page_setting,
    own,
    packaged,
    ratio,
    references,
    write_table,
)
from bench_alloc_suite import measure as measure_suite  # noqa: E402
from harness import Sample, machine, record  # noqa: E402

PROGRAMS = HERE.parent / "tests/alloc/misuse"
SIZES = {"small": 40, "medium": 1000, "border": 16384, "large": 300_000}
MOMENTS = ("once", "later")
FLAGS = ("-std=gnu11", "-O1", "-fno-builtin", "-w")
SCUDO = "/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux/libclang_rt.scudo_standalone-x86_64.so"
COST_TESTS = ("cfrac", "espresso", "alloc-test1", "mstress1", "sh6like1", "larson1", "xmalloc1",
              "malloc-large", "glibc-simple", "glibc-thread1")
ROUNDS = 7
CAUGHT_GOAL, COST_GOAL = 0.80, 1.25


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How one program ended.

    :ivar caught: by a signal, before it could print its success line.
    :ivar blunted: a read after free that found nothing to read.
    :ivar how: for the table: the signal, ``unnoticed`` or ``blunted``.
    """

    caught: bool
    blunted: bool
    how: str

    @property
    def letter(self) -> str:
        """``C`` caught, ``b`` blunted, ``.`` not noticed."""
        return "C" if self.caught else "b" if self.blunted else "."


Verdicts = dict[tuple[str, str, str], Verdict]
"""Kind, size and moment to the verdict."""


def compiled(folder: Path) -> dict[str, Path]:
    """Compile every mistake."""
    found = {}
    for source in sorted(PROGRAMS.glob("*.c")):
        found[source.stem] = folder / source.stem
        subprocess.run(["gcc", *FLAGS, source, "-o", found[source.stem]], check=True)
    return found


def tried(program: Path, words: Sequence[str], one: Allocator) -> Verdict:
    """Run one program with one allocator."""
    more = {"LD_PRELOAD": str(one.library)} if one.library else {}
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False,
                              timeout=20, env={**os.environ, **more}, errors="replace")
    except subprocess.TimeoutExpired:
        return Verdict(False, False, "timeout")
    if done.returncode < 0:
        return Verdict("unnoticed" not in done.stdout, False, f"signal {-done.returncode}")
    if done.returncode != 0:  # some end the process by themselves, with a message
        return Verdict("unnoticed" not in done.stdout, False, f"status {done.returncode}")
    return Verdict(False, "blunted" in done.stdout, done.stdout.strip())


def judged(programs: Mapping[str, Path], one: Allocator) -> Verdicts:
    """Run all programs with one allocator."""
    return {(kind, size, moment): tried(program, (str(SIZES[size]), moment), one)
            for kind, program in programs.items() for size in SIZES for moment in MOMENTS}


def share(found: Verdicts) -> float:
    """Return the part of the programs that did no harm."""
    return sum(each.caught or each.blunted for each in found.values()) / len(found)


def table(results: Mapping[str, Verdicts]) -> str:
    """Return a line for each kind: eight letters for each allocator, sizes by moments."""
    kinds = list(dict.fromkeys(kind for kind, _, _ in next(iter(results.values()))))
    lines = ["C: caught, b: nothing was left to read, .: not noticed; "
             "small, medium, border, large; each at once and later", "",
             f"{'':<18}" + "".join(f"{name[:12]:>13}" for name in results)]
    for kind in kinds:
        rows = ["".join(found[kind, size, moment].letter for size in SIZES for moment in MOMENTS)
                for found in results.values()]
        lines.append(f"{kind:<18}" + "".join(f"{row:>13}" for row in rows))
    lines += ["", f"{'caught':<18}" + "".join(
        f"{sum(each.caught for each in found.values()):>13}" for found in results.values()),
        f"{'and blunted':<18}" + "".join(
            f"{sum(each.blunted for each in found.values()):>13}" for found in results.values()),
        f"{'of 80, percent':<18}" + "".join(f"{100 * share(found):>13.0f}"
                                            for found in results.values())]
    return "\n".join(lines)


def hardened() -> str | None:
    """Return hardened ``shard`` as :func:`allocators.own` takes it; None: it cannot be."""
    from unikit.alloc import Shard
    able = any(spec.name == "hardened" for spec in Shard.options)
    return "shard:hardened=1" if able else None


def contestants(more: Sequence[str] = ()) -> list[Allocator]:
    """Return everybody: what apt has, and ours plain, hardened and guarded."""
    found = references()
    if Path(SCUDO).exists():
        found.append(Allocator("scudo", Path(SCUDO), packaged("libclang-rt-14-dev")))
    names = ["shard", *filter(None, [hardened()]), "shard:full=1", *more]
    for one in [*own(names), *own(["guard+tlsf"])]:
        shown = "hardened" if one.name == hardened() else one.name
        found.append(dataclasses.replace(one, name=shown))
    return found


def cost(pairs: Sequence[tuple[Allocator, Allocator]], rounds: int) -> dict[str, dict[str, Any]]:
    """Return, for each hardened allocator, its time relative to the plain one, per test."""
    glibc = [one for one in references() if one.name == "glibc"]
    everybody = {one.name: one for one in (*glibc, *(one for pair in pairs for one in pair))}
    found = measure_suite(list(everybody.values()), rounds, COST_TESTS, progress=True)
    out: dict[str, dict[str, Any]] = {}
    for hard, plain in pairs:
        rows = {test: ratio(costs[hard.name], costs[plain.name], lambda cost: cost.cpu)
                for test, costs in found.results.items()}
        good = [value for value in rows.values() if value is not None]
        out[hard.name] = {"to": plain.name, "tests": rows, "geomean": geomean(good),
                          "failed": len(rows) - len(good)}
    return out


def pairs_of(everybody: Sequence[Allocator]) -> list[tuple[Allocator, Allocator]]:
    """Return (hardened, plain) for what costs are asked of."""
    by_name = {one.name: one for one in [*everybody, *own(["tlsf"])]}
    wanted = [("hardened", "shard"), ("shard:full=1", "shard"), ("guard+tlsf", "tlsf"),
              ("scudo", "glibc")]
    return [(by_name[hard], by_name[plain]) for hard, plain in wanted if hard in by_name]


def facts(results: Mapping[str, Verdicts], costs: Mapping[str, Any],
          everybody: Sequence[Allocator]) -> dict[str, Any]:
    """Return everything as it is kept."""
    return {"programs": {name: {" ".join(key): each.how for key, each in found.items()}
                         for name, found in results.items()},
            "caught": {name: share(found) for name, found in results.items()}, "cost": dict(costs),
            "versions": {one.name: one.version for one in everybody},
            "huge_pages": huge_page_setting(), "date": datetime.date.today().isoformat(),
            "machine": machine()}


def judge(everybody: Sequence[Allocator]) -> dict[str, Verdicts]:
    """Compile the programs and run them with everybody."""
    with TemporaryDirectory(prefix="unikit-misuse-") as name:
        programs = compiled(Path(name))
        return {one.name: judged(programs, one) for one in everybody}


def record_claims(results: Mapping[str, Verdicts], costs: Mapping[str, Any]) -> None:
    """Record what hardened ``shard`` lets pass and what it costs; plain if there is no other."""
    ours = "hardened" if "hardened" in results else "shard"
    record("alloc_hardening", "misuse programs of 80 that an allocator lets pass", "part",
           Sample(ours, (1 - share(results[ours]),)), must=round(1 - CAUGHT_GOAL, 2),
           more=[Sample(name, (1 - share(found),)) for name, found in results.items()
                 if name != ours],
           note="a program counts if it ends by a signal before its success line, or if a read "
                "after free finds nothing (tests/alloc/misuse/README.rst)")
    if ours in costs:
        record("alloc_hardening_cost", f"time of hardened shard, {len(COST_TESTS)} patterns",
               "x plain", Sample(ours, (costs[ours]["geomean"],)), must=COST_GOAL,
               more=[Sample(f"{name} / {row['to']}", (row["geomean"],))
                     for name, row in costs.items() if name != ours],
               note="geometric mean over single-threaded patterns of the paired median ratio")


def test_hardening(benchmark: Any) -> None:
    """Run everything and record the table and the claims."""
    everybody = contestants()
    results = judge(everybody)
    costs = benchmark.pedantic(cost, args=(pairs_of(everybody), ROUNDS), rounds=1)
    write_table("alloc-hardening", facts(results, costs, everybody))
    record_claims(results, costs)


def main() -> None:
    """Judge and measure what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description="What allocators catch, and what that costs.")
    parser.add_argument("--cost", action="store_true", help="measure time as well")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", default="", metavar="NAME,...",
                        help="more of ours: shard:OPTION=1, guard+shard")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results")
    asked = parser.parse_args()
    everybody = contestants([name for name in asked.ours.split(",") if name])
    results = judge(everybody)
    print(table(results))
    costs = cost(pairs_of(everybody), asked.rounds) if asked.cost else {}
    for name, row in costs.items():
        print(f"\n{name}: {row['geomean']:.3f} x {row['to']}"
              + (f", {row['failed']} tests failed" if row["failed"] else ""))
        print("  " + ", ".join(f"{test} {'FAIL' if value is None else f'{value:.2f}'}"
                               for test, value in row["tests"].items()))
    if asked.record:
        write_table("alloc-hardening", facts(results, costs, everybody))
        record_claims(results, costs)


if __name__ == "__main__":
    main()
