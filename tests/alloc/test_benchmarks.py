"""The benchmarks of allocators measure what they say: the launcher, the losses, the patterns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import allocators as measure  # noqa: E402
import bench_alloc_suite as suite  # noqa: E402

GLIBC = measure.Allocator("glibc")
SMALL = {"alloctest": "2 3000", "cfrac": "1000000016000000063 40 7", "espresso": "20",
         "large": "4", "larson": "2 2 8 1000 100 500", "mleak": "3", "mstress": "2 1 2",
         "rptest": "2 40 100 20", "sh6like": "2 1", "sharing": "scratch 2 10 1 100",
         "simple": "2000", "working": "2 3000", "xmalloc": "2 3 64"}
"""Every pattern with arguments that make it short."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> measure.Bench:
    """The launcher, ready to run things."""
    return measure.Bench(tmp_path_factory.mktemp("bench"), limit=2)


def run(bench: measure.Bench, *command: str, allocator: measure.Allocator = GLIBC) -> measure.Cost:
    """Run a command as a test with one thread."""
    return bench.run(measure.Case("it", command), allocator)


def test_a_library_that_was_not_loaded_is_a_failure(bench: measure.Bench, tmp_path: Path) -> None:
    """The loader only warns: without this check the figures would be glibc's."""
    absent = measure.Allocator("absent", tmp_path / "libabsent.so")
    assert run(bench, "true", allocator=absent).failure == "library not loaded"
    assert run(bench, "true").failure == ""


@pytest.mark.parametrize(("command", "why"), [
    (("false",), "exit status 1"), (("sh", "-c", "kill -SEGV $$"), "signal 11"),
    (("sleep", "9"), "timeout")])
def test_what_did_not_end_well_is_a_failure(bench: measure.Bench, command: tuple[str, ...],
                                            why: str) -> None:
    """A crash is fast; it must not win."""
    assert run(bench, *command).failure == why


def test_the_peak_is_the_command_s_own(bench: measure.Bench) -> None:
    """``ru_maxrss`` of a child begins with that of its parent, here some 100 MiB."""
    ballast = bytearray(b"x" * (100 << 20))
    small = run(bench, "true").peak
    large = run(bench, sys.executable, "-c", "b'x' * (64 << 20)").peak
    assert 0 < small < 16 << 20 < 64 << 20 < large < 160 << 20
    assert len(ballast) == 100 << 20


def test_a_program_that_becomes_another_is_followed(bench: measure.Bench) -> None:
    """Scripts that exec an interpreter are common; each exec stops a traced process."""
    assert run(bench, "sh", "-c", "exec sh -c 'exec true'").failure == ""


def test_a_failure_counts_as_a_loss() -> None:
    """Left out, an allocator that crashes where it is slow would have the better mean."""
    good, bad = measure.Cost(user=1.0), measure.Cost(user=0.1, failure="signal 11")
    half = measure.Cost(user=0.5)
    table = measure.Table({"one": {"glibc": [good, good], "it": [half, half]},
                           "two": {"glibc": [good, good], "it": [half, bad]}})
    assert table.mean("it", ["one"], table.time) == (pytest.approx(0.5), 1)
    mean, completed = table.mean("it", ["one", "two"], table.time)
    assert completed == 1
    assert mean == pytest.approx((0.5 * measure.LOSS) ** 0.5)


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is slow for a while slows both, and their ratio stays."""
    costs = [measure.Cost(user=value) for value in (1.0, 4.0, 2.0)]
    base = [measure.Cost(user=value) for value in (2.0, 8.0, 4.0)]
    assert measure.ratio(costs, base, lambda cost: cost.cpu) == 0.5


def test_every_pattern_of_the_suite_is_tried_here() -> None:
    """A pattern that no test runs would rot."""
    assert sorted(suite.PROGRAMS) == sorted(SMALL)
    assert len(suite.TESTS) == 21


@pytest.mark.parametrize("name", SMALL)
def test_pattern_is_correct_under_sanitizers(name: str, tmp_path: Path) -> None:
    """A pattern with a mistake of its own would blame allocators for it."""
    program = tmp_path / name
    measure.compile_one(measure.SOURCES / f"{name}.c", program, "-O1", "-g",
                        "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    done = subprocess.run([program, *SMALL[name].split()], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
