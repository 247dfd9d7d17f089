"""What only shard does: slabs, lazily touched memory, large runs, pages given back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikit.alloc import Heap, Shard
from unikit.errors import Corrupt, OutOfMemory, Panic
from unikit.ffi import load
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
    said = run(tmp_path / variant, rounds // 4, 3, "hardened")
    assert f"{3 * 4 * (rounds // 4)} allocations" in said


# ---- bounds --------------------------------------------------------------------------------------

def test_memory_of_the_published_size_refuses_nothing() -> None:
    """After Robson: fill, keep one block of each slab, go on with the next size."""
    live, largest = 1 << 19, 4096
    with Shard().open(Shard().worst_memory(live, largest)) as heap:
        assert heap.stats().capacity >= 32 << 20
        size, held = 16, 0
        while size <= largest:
            blocks = [take(heap, size) for _ in range((live - held) // size)]
            each = max(1, 131072 // size) if size >= 128 else 1024
            for index, block in enumerate(blocks):
                if index % each:
                    free(heap, block)
            held += size * len(blocks[::each])
            size += max(16, size // 4)
        stats = heap.stats()
        assert stats.failures == 0
        assert stats.blocks > 100
        heap.check()


# ---- hardening -----------------------------------------------------------------------------------

SWITCHES = ("checks", "links", "canary", "poison", "shuffle", "quarantine")
BLOCK = 1000


def free(heap: Heap, address: int) -> None:
    """Free any address, as C could; raise what the allocator panics with."""
    heap._lib.kit_alloc_free(heap._ptr, heap._ffi.cast("void *", address), 2**64 - 1, 0)
    load.check_panic("freeing")


def take(heap: Heap, size: int) -> int:
    """Allocate as C would, without an object that guards the block."""
    address = heap._lib.kit_alloc_alloc(heap._ptr, size, 0)
    load.check_panic("allocating")
    assert address
    return int(heap._ffi.cast("uintptr_t", address))


def write(heap: Heap, address: int, data: bytes) -> None:
    """Write anywhere."""
    heap._ffi.memmove(heap._ffi.cast("char *", address), data, len(data))


@pytest.mark.parametrize("switch", [*SWITCHES, "hardened", "full"])
def test_conforms_hardened(switch: str) -> None:
    """No switch changes what an allocator must do."""
    record = Shard(**{switch: 5 if switch == "quarantine" else True})
    assert check_allocator(record, ["64K", "300K"], offsets=[0, 8]).checks > 100_000


@pytest.mark.parametrize("record", [Shard(checks=True), Shard(hardened=True)], ids=repr)
@pytest.mark.parametrize("size", [40, BLOCK, 16384, 300_000])
@pytest.mark.parametrize("offset", [1, 16])
def test_checks_refuse_what_is_no_block(record: Shard, size: int, offset: int) -> None:
    """An address within a block, or outside all memory, is not freed."""
    with record.open("16M") as heap:
        block = take(heap, size)
        with pytest.raises(Panic, match="alloc.shard: not a block in use"):
            free(heap, block + offset)
        stack = heap._ffi.new("char[64]")
        with pytest.raises(Panic, match="alloc.shard: not a block of this allocator"):
            free(heap, int(heap._ffi.cast("uintptr_t", stack)))
        free(heap, block)
        assert heap.stats().used == 0


@pytest.mark.parametrize("record", [Shard(canary=True), Shard(hardened=True)], ids=repr)
@pytest.mark.parametrize("size", [0, 1, 40, BLOCK, 1016, 1017, 16384, 300_000])
def test_a_canary_finds_one_byte_too_many(record: Shard, size: int) -> None:
    """Not the class but the request is what counts, byte by byte."""
    with record.open("16M") as heap:
        block = take(heap, size)
        write(heap, block, b"x" * size)
        free(heap, block)
        block = take(heap, size)
        write(heap, block, b"x" * (size + 1))
        with pytest.raises(Panic, match="alloc.shard: written to behind its end"):
            free(heap, block)


@pytest.mark.parametrize("record", [Shard(canary=True), Shard(quarantine=4), Shard(hardened=True)],
                         ids=repr)
@pytest.mark.parametrize("size", [40, BLOCK])
def test_a_block_freed_twice_is_found(record: Shard, size: int) -> None:
    """By its seal, or because it still waits."""
    with record.open("16M") as heap:
        take(heap, size)
        block = take(heap, size)
        free(heap, block)
        with pytest.raises(Panic, match="alloc.shard: freed twice"):
            free(heap, block)


@pytest.mark.parametrize("size", [40, BLOCK, 16384, 300_000])
def test_a_write_after_free_is_found_when_the_block_has_waited(size: int) -> None:
    """Poison must be as it was; three more frees and it is looked at."""
    with Shard(poison=True, quarantine=3).open("16M") as heap:
        block, *others = (take(heap, size) for _ in range(4))
        free(heap, block)
        write(heap, block + 8, b"x")
        for other in others[:2]:
            free(heap, other)
        with pytest.raises(Panic, match="alloc.shard: written to after it was freed"):
            free(heap, others[2])


def test_hardened_a_block_of_pages_waits_and_is_looked_at() -> None:
    """What is written to it meanwhile is found; up to then its memory is nobody else's."""
    with Shard(hardened=True).open("16M") as heap:
        block, *others = (take(heap, 300_000) for _ in range(9))
        free(heap, block)
        write(heap, block + 56, b"x")
        assert take(heap, 300_000) != block
        for other in others[:7]:
            free(heap, other)
        with pytest.raises(Panic, match="alloc.shard: written to after it was freed"):
            free(heap, others[7])


def test_a_secret_hides_what_lies_behind_a_block() -> None:
    """A seal that is copied to another block, with all that is before it, does not fit there."""
    with Shard(hardened=True).open("16M") as heap:
        one, other = take(heap, 40), take(heap, 40)
        write(heap, other, bytes(heap._ffi.buffer(heap._ffi.cast("char *", one), 48)))
        with pytest.raises(Panic, match="alloc.shard: written to behind its end"):
            free(heap, other)


def test_poison_leaves_nothing_to_read() -> None:
    """A secret does not outlive its block."""
    with Shard(poison=True).open("16M") as heap:
        for size in (40, BLOCK, 300_000):
            block = take(heap, size)
            write(heap, block, b"secret! " * (size // 8))
            free(heap, block)
            assert b"ecret" not in bytes(heap._ffi.buffer(
                heap._ffi.cast("char *", block), size))


@pytest.mark.parametrize("record", [Shard(links=True), Shard(hardened=True)], ids=repr)
def test_a_link_out_of_its_slab_is_not_followed(record: Shard) -> None:
    """What was written over a free block's link must not become an address that is given out."""
    with record.open("16M") as heap:
        blocks = [take(heap, 64) for _ in range(4)]
        free(heap, blocks[0])
        free(heap, blocks[1])
        write(heap, blocks[1], bytes(range(8)))
        with pytest.raises(Panic, match="alloc.shard: written to after it was freed"):
            take(heap, 64)


def test_shuffled_blocks_do_not_come_in_order() -> None:
    """Whoever overflows a block does not know whose comes next."""
    with Shard(shuffle=True).open("16M") as heap:
        addresses = [take(heap, 64) for _ in range(200)]
        assert len(set(addresses)) == 200
        rising = sum(b - a == 64 for a, b in zip(addresses, addresses[1:], strict=False))
        assert rising < 198
