"""Claim: an allocator costs the same instructions in a program, a process and an image, within 5 %.

One loop, compiled for three places: a Linux program with the component's preload library, a program
that embeds the component and calls it through its table, and an image that runs as a Linux process.
valgrind counts; the same loop without its calls is subtracted, so a figure is one malloc and one
free with everything that lies between the loop and the allocator.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import Sample, record

from unikit import registry
from unikit.alloc.api import Allocator
from unikit.cli.alloc import loading
from unikit.image import Image, preload, toolchain

HERE = Path(__file__).parent / "alloc_paths"
SHORT, LONG = 100_000, 1_100_000
NAMES = [each.stem() for each in registry.components("alloc")
         if each.sources and "layer" not in each.features and each.stem() != "firstfit"]
"""All but one that searches a thousand blocks for each request."""


def instructions(command: Sequence[object], variables: dict[str, str]) -> int:
    """Return how many instructions a program executes."""
    done = subprocess.run(["valgrind", "--tool=cachegrind", "--cache-sim=no",
                           "--cachegrind-out-file=/dev/null", *map(str, command)],
                          capture_output=True, text=True, env=variables, check=False)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert done.returncode == 0 and found, done.stdout + done.stderr
    return int(found[1].replace(",", ""))


def in_program(alloc: Allocator, folder: Path, defines: Sequence[str]) -> int:
    """Return the instructions of the loop over the preload library."""
    target = folder / "preload"
    toolchain.run((*toolchain.compiler(), "-O2", "-fno-builtin", *defines, HERE / "preload.c", "-o",
                   target))
    return instructions([target], loading.environment(preload.library(alloc)))


def in_process(alloc: Allocator, folder: Path, defines: Sequence[str]) -> int:
    """Return the instructions of the loop over the component in a shared library, as embedded."""
    library, target = folder / "libcomponent.so", folder / "process"
    common = (*toolchain.compiler(), "-O2", f"-I{toolchain.ROOT}")
    toolchain.run((*common, "-fPIC", "-shared", *alloc.source_files(), "-o", library))
    options = "".join(f"{value}," for value in alloc.encoded())
    toolchain.run((*common, "-rdynamic", *defines, f"-DCOMPONENT={alloc.symbol()}",
                   f"-DOPTIONS={options}", HERE / "process.c", library, f"-Wl,-rpath,{folder}",
                   "-o", target))
    return instructions([target], dict(os.environ))


def in_image(alloc: Allocator, folder: Path, defines: Sequence[str]) -> int:
    """Return the instructions of the loop as an application; without the system call filter, which
    valgrind does not know."""
    image = Image("paths", [HERE / "image.c"], alloc=alloc, platforms=("linux",), events=False,
                  flags=defines).build()
    return instructions([image, "seccomp=off", "memory=64M"], dict(os.environ))


PLACES = {"preload": in_program, "process": in_process, "image": in_image}


def per_pair(place: str, alloc: Allocator, folder: Path) -> float:
    """Return instructions per malloc and free at one place."""
    def run(pairs: int, *more: str) -> int:
        return PLACES[place](alloc, folder, [f"-DPAIRS={pairs}", *more])

    with_calls = run(LONG) - run(SHORT)
    return (with_calls - (run(LONG, "-DEMPTY") - run(SHORT, "-DEMPTY"))) / (LONG - SHORT)


def measured(folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each component with its figures."""
    for name in NAMES:
        alloc = preload.choose(name)
        yield name, {place: per_pair(place, alloc, folder) for place in PLACES}


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_paths(benchmark: Any, tmp_path: Path) -> None:
    """Counts are exact: the same on every run of the same compiler and C library."""
    found = benchmark.pedantic(lambda: dict(measured(tmp_path)), rounds=1)
    apart = {name: max(places.values()) / min(places.values()) - 1
             for name, places in found.items()}
    rows = [Sample(f"{name}, {place}", (round(value, 2),)) for name, places in found.items()
            for place, value in places.items()]
    record("alloc_paths", "instructions per malloc and free: most apart of shard in a program, a "
           "process and an image", "%", Sample("shard", (round(100 * apart["shard"], 2),)), must=5,
           more=rows, note="random replacement of 1000 live blocks of 1 to 1024 bytes; cachegrind, "
           "the loop without calls subtracted; the call itself and the jump through the program's "
           "PLT are in it. Most apart, in %: "
           + ", ".join(f"{name} {100 * value:.1f}" for name, value in apart.items())
           + ". bump needs the sizes of its blocks, which the preload library keeps in a header.")
    assert apart["shard"] < 0.15
