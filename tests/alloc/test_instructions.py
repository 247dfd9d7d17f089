"""Allocators do not become slower unnoticed: instructions of an allocation and its free.

Instruction counts are the one figure of speed that a shared machine does not disturb, but another
compiler does. ``python3 tests/alloc/test_instructions.py`` writes them anew.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import allocators  # noqa: E402
import bench_alloc_instructions as bench  # noqa: E402

RECORDED = Path(__file__).with_name("instructions.json")
COMPONENTS = ("shard", "tlsf", "halffit", "buddy")
TOLERANCE = 1.03


def compiler() -> str:
    """Return the first line of what the compiler says of itself."""
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True,
                          check=True).stdout.splitlines()[0]


_loops: bench.Counts = {}


def counts(name: str, folder: Path) -> bench.Counts:
    """Return the instructions of a component that is bound directly."""
    target = folder / name
    allocators.compile_direct(name, allocators.SOURCES / "instructions.c", target)
    if not _loops:
        _loops.update(bench.loops(target))
    return bench.per_pair(target, _loops)


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
@pytest.mark.parametrize("name", COMPONENTS)
def test_a_pair_takes_no_more_instructions_than_recorded(name: str, tmp_path: Path) -> None:
    """Three percent more in any of the three patterns is a loss that somebody has to decide for."""
    recorded = json.loads(RECORDED.read_text())
    if recorded["compiler"] != compiler():
        pytest.skip(f"recorded with {recorded['compiler']}, this is {compiler()}")
    allowed = {pattern: count * TOLERANCE for pattern, count in recorded["counts"][name].items()}
    found = counts(name, tmp_path)
    worse = {pattern: (count, recorded["counts"][name][pattern])
             for pattern, count in found.items() if count > allowed[pattern]}
    assert not worse, f"{name}: {worse} (now, recorded); if that is wanted, run this file"


def main() -> None:
    """Record the counts of this tree."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        found = {name: counts(name, Path(folder)) for name in COMPONENTS}
    RECORDED.write_text(json.dumps({"compiler": compiler(), "counts": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
