"""What only shard does: slabs, lazily touched memory, large runs, pages given back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikit.alloc import Heap, Shard
from unikit.errors import Corrupt, OutOfMemory
from unikit.testing import check_allocator

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096
pytestmark = pytest.mark.fast

VARIANTS = {
    "sanitized": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "optimised": ("-O2",),
    "threads": ("-O1", "-g", "-fsanitize=thread", "-pthread"),
}


@pytest.fixture
def heap() -> Iterator[Heap]:
    """A heap of 4 MiB whose invariants are checked in the end."""
    with Shard().open("4M") as heap:
        yield heap
        heap.check()


def program(folder: Path, variant: str, *sources: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile a hosted program with the allocator in it."""
    target = folder / variant
    done = subprocess.run(
        ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}",
         "-DCOMPONENT=kit_alloc_shard", *VARIANTS[variant], *flags, *map(str, sources),
         *map(str, Shard.source_files()), str(ROOT / "unikit/rt/host.c"), "-o", str(target)],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def run(target: Path, *arguments: object) -> str:
    """Run a program that must succeed; what it printed."""
    done = subprocess.run([str(target), *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_conforms() -> None:
    """The portable suite is the contract, with small pages and with large ones."""
    assert check_allocator(Shard, ["16K", "40K", "64K", "300K", "1M"]).checks > 100_000


@pytest.mark.parametrize("variant", ["sanitized", "optimised"])
def test_conforms_in_both_harnesses(variant: str, tmp_path: Path) -> None:
    """One source must behave alike under sanitizers and as a release."""
    suite = sorted((ROOT / "unikit/testing").glob("suite_alloc*.c"))
    main = ROOT / "tests/conformance/main_alloc.c"
    run(program(tmp_path, variant, main, *suite), 0)


def test_blocks_of_one_size_lie_side_by_side(heap: Heap) -> None:
    """A slab has no headers: 64 blocks of 48 bytes take 64 times 48 bytes."""
    addresses = [heap.alloc(48).address for _ in range(64)]
    assert [b - a for a, b in zip(addresses, addresses[1:], strict=False)] == [48] * 63


@pytest.mark.parametrize("size", [1, 16, 17, 129, 1000, 1025, 5000, 16384])
def test_a_class_wastes_at_most_a_fifth(heap: Heap, size: int) -> None:
    """Four classes per power of two, and multiples of 16 below 128."""
    usable = heap.alloc(size).usable_size
    assert size <= usable <= max(16, size * 5 // 4 + 16)


def test_the_last_freed_block_comes_first(heap: Heap) -> None:
    """What was freed just now is still in the cache."""
    heap.alloc(100)
    block = heap.alloc(100)
    address = block.address
    block.free()
    assert heap.alloc(100).address == address


def test_a_slab_without_blocks_serves_another_class(heap: Heap) -> None:
    """Memory is not bound to a size: all of it can be used for 64 and then for 1000 bytes."""
    def fill(size: int) -> int:
        blocks = []
        while True:
            try:
                blocks.append(heap.alloc(size))
            except OutOfMemory:
                break
        for block in blocks:
            block.free()
        return len(blocks) * size

    first, second, third = fill(64), fill(1000), fill(64)
    assert first == third > 3_900_000
    assert second > 3_800_000


def test_large_blocks_are_whole_pages_and_grow_in_place(heap: Heap) -> None:
    """A run grows into the free run behind it, and past the last one."""
    block, behind, last = heap.alloc(100_000), heap.alloc(200_000), heap.alloc(20_000)
    assert block.usable_size == 25 * PAGE
    address, end = block.address, last.address
    behind.free()
    heap.realloc(block, 250_000)
    heap.realloc(last, 1_000_000)
    assert (block.address, last.address) == (address, end)
    heap.realloc(block, 50_000)
    assert (block.address, block.usable_size) == (address, 13 * PAGE)


def test_good_fit_takes_the_small_run(heap: Heap) -> None:
    """A large free run is not split while a smaller one is there."""
    blocks = [heap.alloc(size) for size in (40_000, 20_000, 400_000, 20_000)]
    small = blocks[0].address
    blocks[0].free()
    blocks[2].free()
    assert heap.alloc(36_000).address == small


def test_check_finds_an_overwritten_free_block(heap: Heap) -> None:
    """A write to a freed block that breaks its list is found by check()."""
    blocks = [heap.alloc(100) for _ in range(3)]
    link = heap._ffi.cast("uint64_t *", blocks[1].address)
    blocks[0].free()
    blocks[1].free()
    saved = link[0]
    link[0] = saved + 8
    with pytest.raises(Corrupt):
        heap.check()
    link[0] = saved


def test_pool_limits_the_memory_that_is_managed() -> None:
    """`pool` is what the allocator may use; the rest of the region is not touched."""
    memory = bytearray(b"\xaa" * (1 << 20))
    with Shard(pool="64K").open(memory) as heap:
        assert 50_000 < heap.stats().capacity < 65536
        while True:
            try:
                heap.alloc(1000)[:] = bytes(1000)
            except OutOfMemory:
                break
    assert memory[65536:] == b"\xaa" * ((1 << 20) - 65536)


@pytest.mark.parametrize(("variant", "rounds"), [("threads", 20_000), ("optimised", 200_000)])
def test_threads_free_each_others_blocks(variant: str, rounds: int, tmp_path: Path) -> None:
    """Faces come and go, blocks wander between them: no race, no loss, all free in the end."""
    main = ROOT / "tests/alloc/shard_threads.c"
    said = run(program(tmp_path, variant, main, flags=("-pthread",)), rounds, 3)
    assert f"{3 * 4 * rounds} allocations" in said
