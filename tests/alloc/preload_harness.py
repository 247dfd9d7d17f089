"""What the tests of the preload library share: libraries, small programs, and running both."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from unikit import registry
from unikit.cli.alloc import loading
from unikit.image import preload

SOURCES = Path(__file__).parent / "preload"
NAMES = [record.stem() for record in registry.components("alloc")
         if record.sources and "layer" not in record.features]
"""Every allocator, third parties' included."""
GUARDED = [f"{record.stem()},tlsf" for record in registry.components("alloc")
           if record.stem() == "guard"]
"""The layer that finds out misuse; programs without any must not be stopped by it."""


@functools.cache
def library(names: str) -> Path:
    """Return the preload library of an allocator with options for whole programs."""
    return preload.library(preload.choose(names))


def features(names: str) -> frozenset[str]:
    """Return what an allocator can do."""
    return preload.choose(names).features


def build(folder: Path, name: str, *flags: str) -> Path:
    """Compile a program of this folder."""
    target = folder / Path(name).stem
    compiler = "g++" if name.endswith(".cc") else "gcc"
    done = subprocess.run(
        [compiler, "-O1", "-g", "-fno-builtin", "-Wall", "-Wextra", "-Wno-alloc-size-larger-than",
         str(SOURCES / name), *flags, "-o", str(target)], capture_output=True, text=True,
        check=False)
    assert done.returncode == 0, done.stderr
    return target


def run(names: str, *command: object, timeout: float = 120, **more: str
        ) -> subprocess.CompletedProcess[str]:
    """Run a command with an allocator in it and in everything that it starts."""
    variables = loading.environment(library(names)) | more
    return subprocess.run([str(word) for word in command], env=variables, capture_output=True,
                          text=True, errors="replace", timeout=timeout, check=False,
                          stdin=subprocess.DEVNULL)
