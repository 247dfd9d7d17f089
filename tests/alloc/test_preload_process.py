"""The preload library in a process: threads, fork, constructors, C++, limits, misuse."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from preload_harness import GUARDED, NAMES, build, features, library, run

every = pytest.mark.parametrize("name", [*NAMES, *GUARDED])
unguarded = pytest.mark.parametrize("name", NAMES)  # a guard takes time and room in proportion


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the programs of this module are compiled."""
    return tmp_path_factory.mktemp("preload")


@every
def test_blocks_outlive_their_threads(folder: Path, name: str) -> None:
    """Threads end while others hold their blocks; destructors allocate after our own has run."""
    done = run(name, build(folder, "threads.c", "-pthread"))
    assert done.returncode == 0, done.stdout + done.stderr


@every
def test_a_child_of_a_busy_process_is_sound(folder: Path, name: str) -> None:
    """fork() while threads are inside malloc: no lock may stay closed, no block be lost."""
    done = run(name, build(folder, "forks.c", "-pthread"),
               60 if "reuses" in features(name) else 3)
    assert done.returncode == 0, done.stdout + done.stderr


@every
def test_it_serves_constructors_and_dlsym(folder: Path, name: str) -> None:
    """Another library in front allocates before main and inside of dlsym, which allocates too."""
    early = build(folder, "early_library.c", "-shared", "-fPIC").rename(folder / "libearly.so")
    program = build(folder, "early.c", f"-L{folder}", "-learly", f"-Wl,-rpath,{folder}")
    done = run(name, program, LD_PRELOAD=f"{early}:{library(name)}")
    assert done.returncode == 0, done.stdout + done.stderr


@every
def test_cpp_operators(folder: Path, name: str) -> None:
    """Plain, array, sized, aligned, nothrow; handlers are called and std::bad_alloc is thrown."""
    done = run(name, build(folder, "operators.cc", "-std=c++17", "-pthread"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_runtime_loaded_late_throws(folder: Path) -> None:
    """A C program may get C++ by dlopen, out of sight of the library's own symbol lookup."""
    late = build(folder, "late_runtime_library.cc", "-shared", "-fPIC")
    done = run("tlsf", build(folder, "late_runtime.c"), late)
    assert done.returncode == 0, done.stdout + done.stderr


def _limit(what: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(what, (300 << 20, 300 << 20))


@pytest.mark.parametrize("what", ["AS", "DATA"])
@unguarded
def test_limits_are_met_with_enomem(folder: Path, name: str, what: str) -> None:
    """Under ulimit the reservation shrinks, the end is ENOMEM, and what can grow gets most of it.

    What cannot grow has half of what there was at the start, and rounds up as it likes.
    """
    program = build(folder, "limits.c")
    variables = os.environ | {"LD_PRELOAD": str(library(name))}
    for size in ("100", "5000", "3000000"):
        if name == "firstfit" and size != "3000000":
            continue  # a search over a hundred thousand blocks for each
        done = subprocess.run([program, size], env=variables, capture_output=True, text=True,
                              preexec_fn=_limit(getattr(resource, f"RLIMIT_{what}")), check=False)
        assert done.returncode == 0, (size, done.stdout, done.stderr)
        least = 200 if "add_region" in features(name) or "pages" in features(name) else 32
        assert int(done.stdout) >= least


@unguarded
def test_a_program_may_have_its_own_size_of_reservation(folder: Path, name: str) -> None:
    """A small reservation is a start, not a limit, where the component can grow."""
    done = run(name, build(folder, "limits.c"), 1 << 20, UNIKIT_ALLOC_RESERVE="64M")
    assert done.returncode == 0
    able = "add_region" in features(name) or "pages" in features(name)
    assert int(done.stdout) > 1000 if able else int(done.stdout) < 65


def test_a_panic_names_component_and_caller(folder: Path) -> None:
    """A double free ends in one line that says who found it and who did it."""
    done = run("tlsf", build(folder, "misuse.c", "-rdynamic", "-Wno-use-after-free"))
    assert done.returncode == -signal.SIGABRT
    assert re.fullmatch(r"unikit: preloaded alloc\.tlsf: alloc\.tlsf: not a block in use, "
                        r"called from 0x\w+ \(free_it_twice\+0x\w+ in \S+/misuse\)\n", done.stderr)


def test_statistics_as_json_are_a_line_for_each_process(tmp_path: Path) -> None:
    """Processes that end at once append to one file without tearing lines."""
    target = tmp_path / "stats.json"
    done = run("tlsf", "bash", "-c", "ls / & ls / & wait; /bin/echo \"done\"",
               UNIKIT_ALLOC_STATS=str(target))
    assert done.returncode == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert sorted(row["program"] for row in rows if row["program"] != "bash") == [
        "echo", "ls", "ls"]
    assert all(row["allocator"] == "tlsf" and row["peak"] >= row["used"] for row in rows)


def test_huge_pages_only_when_asked(folder: Path) -> None:
    """The kernel is asked for transparent huge pages by an option and never otherwise."""
    script = "grep -A25 -m1 rw-p.*00:00.0$ /proc/self/smaps | grep -c '^VmFlags:.* hg'; " \
             "grep -c '^VmFlags:.* hg' /proc/self/smaps"
    for value, many in (("0", False), ("1", True)):
        done = run("tlsf", "sh", "-c", script, UNIKIT_ALLOC_HUGEPAGES=value)
        assert (int(done.stdout.split()[-1]) > 0) == many


@pytest.mark.skipif(not GUARDED, reason="there is no guard")
def test_a_guard_names_all_call_sites(folder: Path) -> None:
    """Who allocated, who freed, who freed again: with names, not only addresses."""
    done = run(GUARDED[0], build(folder, "misuse.c", "-rdynamic", "-Wno-use-after-free"))
    first, *sites = done.stderr.splitlines()
    assert "alloc.guard: freed twice: block 0x" in first and " of 100 bytes" in first
    names = [re.sub(r".*\((\w+)\+0x.*", r"\1", line) for line in sites]
    assert names == ["main", "free_it_twice", "free_it_twice"]
