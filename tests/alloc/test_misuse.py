"""Eighty programs that misuse an allocator, under the preload library (``misuse/README.rst``)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from unikit.image import preload

HERE = Path(__file__).resolve().parent
SOURCES = sorted((HERE / "misuse").glob("*.c"))
SIZES = (40, 1000, 16384, 300_000)
FLAGS = ("-std=gnu11", "-O1", "-g", "-fno-builtin", "-rdynamic", "-w")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compile each mistake once."""
    folder = tmp_path_factory.mktemp("misuse")
    for source in SOURCES:
        subprocess.run(["gcc", *FLAGS, source, "-o", folder / source.stem], check=True)
    return {source.stem: folder / source.stem for source in SOURCES}


def run(program: Path, *words: object, library: Path | None = None, **more: str
        ) -> subprocess.CompletedProcess[str]:
    extra = {"LD_PRELOAD": str(library)} if library else {}
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False,
                          timeout=20, env={**os.environ, **extra, **more})


def test_the_list_is_complete() -> None:
    """What the README says is what there is: ten mistakes, four sizes, two moments."""
    listed = re.findall(r"^``(\w+)``  ", (HERE / "misuse/README.rst").read_text(), re.MULTILINE)
    kinds = [name for name in listed if name not in ("once", "later")]
    assert sorted(kinds) == [source.stem for source in SOURCES]
    assert len(kinds) * len(SIZES) * 2 == 80


@pytest.mark.parametrize("settings", [{}, {"alloc.guard.pages": "1"}], ids=["plain", "pages"])
@pytest.mark.parametrize("names", ["guard,tlsf", "guard,shard"])
def test_the_guard_finds_every_one(programs: dict[str, Path], names: str,
                                   settings: dict[str, str]) -> None:
    """By its message, or because the memory cannot be touched; a read finds nothing to read."""
    library = preload.library(preload.choose(names, settings))
    missed = []
    for kind, program in programs.items():
        for size in SIZES:
            for moment in ("once", "later"):
                done = run(program, size, moment, library=library)
                said = "alloc.guard: " in done.stderr
                caught = (done.returncode == -signal.SIGABRT and said) or \
                    (done.returncode == -signal.SIGSEGV and bool(settings)) or \
                    (kind == "read_after_free" and done.stdout == "blunted\n")
                if not caught:
                    missed.append((kind, size, moment, done.returncode, done.stdout))
    assert not missed


@pytest.mark.parametrize(("option", "least"), [("hardened", 0.8), ("full", 1.0)])
def test_hardened_shard_finds_most_of_them(programs: dict[str, Path], option: str,
                                           least: float) -> None:
    """A read finds the secret in a block that was not overwritten; all else is noticed."""
    library = preload.library(preload.choose("shard", {f"alloc.shard.{option}": "1"}))
    missed = []
    for kind, program in programs.items():
        for size in SIZES:
            for moment in ("once", "later"):
                done = run(program, size, moment, library=library)
                caught = done.returncode == -signal.SIGABRT and "alloc.shard: " in done.stderr
                if not caught and done.stdout != "blunted\n":
                    missed.append((kind, size, moment, done.returncode, done.stdout))
    assert len(missed) <= (1 - least) * 80
    assert {kind for kind, *_ in missed} <= {"read_after_free"}


def test_a_panic_names_the_callers(programs: dict[str, Path]) -> None:
    """Addresses in the program, not in the library."""
    library = preload.library(preload.choose("guard,tlsf"))
    said = run(programs["double_free"], 40, "once", library=library).stderr
    match = re.search(r"alloc\.guard: freed twice: block (0x[0-9a-f]+) of 40 bytes, allocated by "
                      r"(0x[0-9a-f]+), freed by (0x[0-9a-f]+), now by (0x[0-9a-f]+)", said)
    assert match, said
    places = [int(text, 16) for text in match.groups()[1:]]
    called = re.search(r"called from (0x[0-9a-f]+) \(main\+", said)
    assert called, said
    assert int(called[1], 16) == places[2]
    assert max(places) - min(places) < 4096, "all three calls are in one small program"


LEAKY = r"""
#include <stdlib.h>
char *volatile kept[4];
__attribute__((noinline)) void lose(int count)
{
    for (int i = 0; i < count; i++)
        kept[i] = malloc(100);
}
int main(void)
{
    lose(3);
    free(kept[1]);
    kept[1] = calloc(10, 50);
    char *volatile freed = malloc(99);
    free(freed);
    return 0;
}
"""


def test_leaks_are_listed_at_exit(tmp_path: Path) -> None:
    """One line for each place, most bytes first, on standard error or in a file."""
    (tmp_path / "leaky.c").write_text(LEAKY)
    subprocess.run(["gcc", *FLAGS, tmp_path / "leaky.c", "-o", tmp_path / "leaky"], check=True)
    library = preload.library(preload.choose("guard,tlsf"))
    said = run(tmp_path / "leaky", library=library, UNIKIT_ALLOC_LEAKS="1").stderr
    lines = [re.sub(r"0x[0-9a-f]+", "N", line).replace(str(tmp_path), "") for line in
             said.splitlines()]
    assert re.sub(r"process \d+", "process P", lines[0]) == \
        "unikit: alloc.guard,tlsf in leaky (process P): 3 blocks with 700 bytes were never freed"
    assert [re.sub(r"\+N", "", line) for line in lines[1:]] == [
        "unikit:   1 blocks, 500 bytes, allocated by N (main in /leaky)",
        "unikit:   2 blocks, 200 bytes, allocated by N (lose in /leaky)"]
    done = run(tmp_path / "leaky", library=library, UNIKIT_ALLOC_LEAKS=str(tmp_path / "out"))
    assert done.stderr == ""
    assert "3 blocks with 700 bytes" in (tmp_path / "out").read_text()
