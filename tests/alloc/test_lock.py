"""``alloc.lock``: any allocator for several threads and processors."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unikit.alloc import Allocator, Bump, Firstfit, Guard, Lock, Shard, Tlsf, Trace
from unikit.testing import check_allocator

ROOT = Path(__file__).resolve().parents[2]
fast = pytest.mark.fast


@fast
@pytest.mark.parametrize("record", [
    Lock(Tlsf()), Lock(Shard()), Lock(Firstfit()), Lock(Bump()),
    Lock(Guard(Tlsf(), quarantine=0)), Guard(Lock(Tlsf())), Lock(Trace(Tlsf(), size=8192))],
    ids=lambda record: "-".join(part.stem() for part in record.layers()))
def test_conforms_over_every_allocator(record: Allocator) -> None:
    """A locked allocator is an allocator, with all that the one below can do."""
    check_allocator(record, ["64K", "256K"], offsets=[0, 8])


@fast
def test_whatever_stands_below_several_may_use_it() -> None:
    """The composer takes an image of several processors by these words."""
    for inner in (Tlsf(), Bump(), Guard(Tlsf())):
        assert {"shared", "threads"} <= Lock(inner).features
        assert "bounded" not in Lock(inner).features, "who waits for others has no bound"


@pytest.mark.parametrize(("flags", "rounds"), [
    (("-O1", "-fsanitize=thread"), 3000), (("-O2",), 100_000)], ids=("threads", "optimised"))
def test_threads_do_not_meet_inside(flags: tuple[str, ...], rounds: int, tmp_path: Path) -> None:
    """Threads that allocate and free each other's blocks at once: no race, nothing lost."""
    sources = [path for record in (Lock, Tlsf) for path in record.source_files()]
    built = subprocess.run(
        ["gcc", "-std=gnu11", "-g", *flags, f"-I{ROOT}", ROOT / "tests/alloc/lock_threads.c",
         *sources, ROOT / "unikit/rt/host_panic.c", "-pthread", "-o", tmp_path / "lock"],
        capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "lock", str(rounds)], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]

