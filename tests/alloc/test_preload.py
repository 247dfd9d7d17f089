"""The preload library: semantics of the malloc family, for every component."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest
from preload_harness import GUARDED, NAMES, build, features, library, run

from unikit.alloc import Tlsf
from unikit.cli.alloc import loading
from unikit.image import preload


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the programs of this module are compiled."""
    return tmp_path_factory.mktemp("preload")


@pytest.mark.parametrize("name", [*NAMES, *GUARDED])
def test_the_whole_family_keeps_its_contract(folder: Path, name: str) -> None:
    """Programs depend on the corners: zero sizes, errno, refusals, alignment, zeroed memory."""
    family = build(folder, "family.c")
    again = name in NAMES and "reuses" in features(name)  # a guard fills gigabytes with poison
    done = run(name, family, *(["reuses"] if again else []))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_library_needs_nothing_but_libc() -> None:
    """A preloaded library that pulls in others changes the program it serves."""
    shown = subprocess.run(["readelf", "-dW", library("tlsf")], capture_output=True, text=True,
                           check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", shown))
    assert needed <= {"libc.so.6", "ld-linux-x86-64.so.2"}


def test_only_the_family_is_exported() -> None:
    """Any other name could take the place of a function of the program."""
    shown = subprocess.run(["nm", "-D", "--defined-only", library("tlsf")], capture_output=True,
                           text=True, check=True).stdout
    names = {line.split()[-1] for line in shown.splitlines()}
    strange = {name for name in names if not re.match(
        r"(__libc_|__posix_)?(malloc|calloc|realloc|free|memalign|valloc|pvalloc)|reallocarray$"
        r"|aligned_alloc$|posix_memalign$|malloc_|mall(opt|info)|c?free|_Z(nw|na|dl|da)", name)}
    assert not strange
    assert {"malloc", "free_aligned_sized", "cfree", "malloc_info", "_Znwm",
            "_ZdaPvSt11align_val_tRKSt9nothrow_t"} <= names


def test_a_library_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second use must not wait for a compiler, and options make another library."""
    first = library("tlsf")
    monkeypatch.setenv("CC", "/nonexistent")
    assert preload.library(preload.choose("tlsf")) == first
    monkeypatch.undo()
    assert preload.library(Tlsf(pool="64M")) != first


def test_a_third_partys_component_serves_programs(folder: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that stand elsewhere are taken from there, and nothing of ours has to know them."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "plugin/stack2")
    record = importlib.import_module("unikit_stack2.stack2").Stack2()
    variables = loading.environment(preload.library(record)) | {"UNIKIT_ALLOC_STATS": "1"}
    done = subprocess.run([build(folder, "family.c")], env=variables, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "alloc.stack2 in family" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_printed_at_exit(name: str) -> None:
    """The counts are the component's own; a program that allocates has some."""
    done = run(name, "/bin/ls", "/", UNIKIT_ALLOC_STATS="1")
    match = re.search(rf"alloc\.{name} in ls .*: (\d+) allocations, (\d+) frees", done.stderr)
    assert match and int(match[1]) > int(match[2]) > 0
