"""Each allocator under random programs, guided by coverage, with sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from compiled import COMMON, ROOT, VARIANTS, build, run

from unikit import registry
from unikit.alloc import Allocator

BROKEN = [
    ("tlsf", "if (block->tag & PREVIOUS_FREE) {", "if (0) {"),
    ("firstfit", "size > firstfit_size(block) - gap)", "size > firstfit_size(block))"),
    ("bump", "units > bump->limit - first", "units > bump->limit"),
]


def records() -> list[type[Allocator]]:
    """Return unikit's own allocators that stand alone."""
    return [record for record in registry.components("alloc")
            if issubclass(record, Allocator) and record.sources
            and record.__module__.startswith("unikit.") and "layer" not in record.features]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the fuzzer proper: without the instrumentation that calls it."""
    out = tmp_path_factory.mktemp("fuzz") / "driver.o"
    subprocess.run(["gcc", *COMMON, *VARIANTS["sanitized"], "-c",
                    str(ROOT / "tests/fuzz/driver.c"), "-o", str(out)], check=True)
    return out


def fuzzer(driver: Path, record: type[Allocator], sources: list[Path]) -> Path:
    """Build the program that fuzzes one component."""
    values = ",".join(map(str, record().encoded())) or "0"
    return build(["tests/fuzz/alloc.c", *sources, driver], flags=["-fsanitize-coverage=trace-pc"],
                 defines={"COMPONENT": record.symbol(), "OPTIONS": values})


def fuzz(program: Path, runs: int, seed: int, timeout: float) -> None:
    """Fuzz and fail with the input that broke it."""
    done = run(program, runs, seed, 400, timeout=timeout)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    found = re.search(r"(\d+) runs, (\d+) inputs kept, (\d+) edges", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) == runs
    assert int(found[2]) > 50, "nothing new was ever reached: the instrumentation is dead"


@pytest.mark.parametrize("record", records(), ids=lambda record: record.id)
def test_random_programs_do_no_harm(record: type[Allocator], driver: Path) -> None:
    """Thousands of programs with every operation the component claims, huge sizes included."""
    fuzz(fuzzer(driver, record, list(record.source_files())), 10_000, 1, 300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("record", records(), ids=lambda record: record.id)
def test_many_random_programs_do_no_harm(record: type[Allocator], driver: Path, seed: int) -> None:
    """The same for minutes."""
    fuzz(fuzzer(driver, record, list(record.source_files())), 500_000, seed, 3600)


@pytest.mark.parametrize(("name", "right", "wrong"), BROKEN, ids=[each[0] for each in BROKEN])
def test_the_fuzzer_finds_a_mistake(name: str, right: str, wrong: str, driver: Path,
                                    tmp_path: Path) -> None:
    """A fuzzer that finds nothing in a broken allocator says nothing about a whole one."""
    record = registry.find(name, "alloc")
    assert issubclass(record, Allocator)
    files = []
    for source in record.source_files():
        text = source.read_text()
        if right in text:
            source = tmp_path / source.name
            source.write_text(text.replace(right, wrong))
        files.append(source)
    assert any(file.parent == tmp_path for file in files), "the mistake no longer fits the source"
    done = run(fuzzer(driver, record, files), 10_000, 1, 400, timeout=300)
    assert done.returncode != 0
    assert "input: " in done.stderr
