"""The monitor's code for hostile memory, as plain C programs under sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unikit.image import toolchain

ROOT = toolchain.ROOT
VMM = ROOT / "unikit/platform/kvm/vmm"
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=undefined", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}")


def program(folder: Path, source: Path, parts: str) -> Path:
    """Compile a C test with parts of the monitor."""
    target = folder / source.stem
    toolchain.run((*toolchain.compiler(), *FLAGS, source,
                   *(VMM / f"{part}.c" for part in parts.split()), "-lpthread", "-o", target))
    return target


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tests/fuzz/ring.c``."""
    return program(tmp_path_factory.mktemp("ring"), ROOT / "tests/fuzz/ring.c",
                   "memory layout tables queue console net sync")


def hostile(ring: Path, seed: int, rounds: int) -> None:
    """Run it, and see that it both broke contracts and moved frames."""
    done = subprocess.run([ring, str(seed), str(rounds)], capture_output=True, text=True,
                          timeout=rounds / 50, check=False)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert int(words[2]) > rounds // 12, "the contracts are hardly ever broken"
    assert int(words[5]) > rounds * 3, "the device hardly ever works"


@pytest.mark.fast
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hostile_queues_break_nothing(ring: Path, seed: int) -> None:
    """No access outside guest memory, no write outside device buffers, whatever the rings say."""
    hostile(ring, seed, 6000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
def test_hostile_queues_for_long(ring: Path, seed: int) -> None:
    """The same for minutes."""
    hostile(ring, seed, 100_000)


@pytest.mark.fast
def test_layouts_and_tables(tmp_path: Path) -> None:
    """Page tables say what the layout says, for hundreds of images, sizes and protections."""
    tables = program(tmp_path, Path(__file__).with_name("tables.c"), "memory layout tables queue")
    done = subprocess.run([tables, "7", "300"], capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
