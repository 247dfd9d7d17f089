"""What only the buddy system does: slots at their own multiples, exact blocks, a lazy start."""

from __future__ import annotations

import mmap
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from unikit.alloc import Buddy, Heap, region
from unikit.errors import NotSupported, OutOfMemory
from unikit.testing import check_allocator

pytestmark = pytest.mark.fast
SIZE = 1 << 20


@pytest.fixture(params=[True, False], ids=["exact", "whole"])
def heap(request: pytest.FixtureRequest) -> Iterator[Heap]:
    """A heap of 1 MiB from a border of 1 MiB on, whose invariants are checked in the end."""
    with mmap.mmap(-1, 2 * SIZE) as memory:
        with Buddy().open(memory) as probe:
            offset = -probe.walk()[0].address % SIZE
        with Buddy(exact=request.param).open(memoryview(memory)[offset:offset + SIZE]) as heap:
            yield heap
            heap.check()


def is_exact(heap: Heap) -> bool:
    """Whether blocks are cut to what was asked for."""
    return bool(heap.record.exact)  # type: ignore[attr-defined]


@pytest.mark.parametrize("exact", [True, False])
def test_conforms(exact: bool) -> None:
    """The portable suite is the contract."""
    assert check_allocator(Buddy(exact=exact), ["16K", "64K", "1M"]).checks > 10_000


def test_a_block_stands_at_a_multiple_of_its_power_of_two(heap: Heap) -> None:
    """The buddy of a slot differs in one bit of the address: so slots must be aligned to size."""
    for size in (1, 32, 33, 100, 1000, 1025, 5000, 70_000):
        block = heap.alloc(size)
        assert block.address % (1 << max(5, (size - 1).bit_length())) == 0


def test_the_tail_of_a_slot_is_given_back(heap: Heap) -> None:
    """A request just above a power of two must not cost the next one, unless that is the choice."""
    block = heap.alloc(4097)
    assert heap.stats().used == (4128 if is_exact(heap) else 8192)
    assert block.usable_size == heap.stats().used
    behind = heap.alloc(2048)
    assert (behind.address - block.address < 8192) == is_exact(heap)


def test_buddies_join_in_any_order(heap: Heap) -> None:
    """Two halves become one when the later of them is freed, up to the whole."""
    whole = heap.walk()
    for seed in range(8):
        blocks = [heap.alloc(512) for _ in range(64)]
        random.Random(seed).shuffle(blocks)
        for block in blocks:
            block.free()
            heap.check()
        assert heap.walk() == whole


def test_neighbours_that_are_no_buddies_stay_apart(heap: Heap) -> None:
    """The second and the third quarter are neighbours, and not halves of one slot."""
    first, second, third, fourth = (heap.alloc(1024) for _ in range(4))
    second.free()
    third.free()
    free = [extent.size for extent in heap.walk() if not extent.used]
    assert free[:2] == [1024, 1024]
    first.free()
    assert [extent.size for extent in heap.walk()][:2] == [2048, 1024]
    fourth.free()


def test_the_frontier_comes_down_again(heap: Heap) -> None:
    """All memory freed is memory never touched: the next large request finds it whole."""
    largest = heap.stats().largest_free
    blocks = [heap.alloc(size) for size in (30, 700, 5000, 100_000, 64)]
    for block in blocks:
        block.free()
    assert len(heap.walk()) == 1
    assert heap.alloc(largest).usable_size >= largest


def test_the_smallest_slot_that_fits_is_taken(heap: Heap) -> None:
    """Large slots are kept whole as long as there is a smaller one."""
    _, small, _, large, _ = (heap.alloc(size) for size in (64, 64, 4096, 4096, 32))
    gap = small.address
    large.free()
    small.free()
    assert heap.alloc(64).address == gap


def test_resize_takes_the_free_slots_behind(heap: Heap) -> None:
    """A block grows within the slot that its address allows, and gives all of it back."""
    block, guard = heap.alloc(64), heap.alloc(4096, 4096)
    address = block.address
    for size in (65, 200, 1000, 3000, 4096, 2049, 31):
        heap.realloc(block, size)
        heap.check()
        assert block.address == address
    heap.realloc(block, 4097)  # its slot would have to reach over the guard
    assert block.address != address
    guard.free()


def test_large_blocks_know_their_size_without_a_header(heap: Heap) -> None:
    """Above 2 KiB the size is kept in the map, below it is read from the bits: at both sides."""
    for size in (2016, 2048, 2049, 2080, 4064, 4096, 50_000):
        block = heap.alloc(size)
        exact = -(-size // 32) * 32
        assert block.usable_size == (exact if is_exact(heap) else 1 << (size - 1).bit_length())
        block.free()


def test_garbage_in_blocks_and_map_is_never_believed() -> None:
    """Map words inside large blocks hold anything: even what looks like a free buddy."""
    draw = random.Random(4)
    words = [bytes(8), b"\xff" * 8] + [order.to_bytes(8, "little") for order in range(5, 20)]
    for seed in range(6):
        memory = bytearray(b"".join(draw.choice(words) for _ in range(SIZE // 8)))
        with Buddy().open(memory) as heap:
            blocks = []
            for _ in range(300):
                if blocks and draw.random() < 0.45:
                    blocks.pop(draw.randrange(len(blocks))).free()
                else:
                    size = draw.randrange(1, 1 << draw.randrange(6, 18))
                    try:
                        block = heap.alloc(size)
                    except OutOfMemory:
                        continue
                    block[:] = (words[draw.randrange(2 + 15)] * (size // 8 + 1))[:size]
                    blocks.append(block)
                if blocks and seed & 1:
                    with suppress(OutOfMemory):
                        heap.realloc(draw.choice(blocks), draw.randrange(1, 60_000))
                heap.check()


def test_memory_at_any_place_is_used_to_the_end() -> None:
    """A region need not be aligned to its size: only single blocks are."""
    memory = bytearray(SIZE + 4096)
    for offset in (0, 32, 2048, 4000):
        with Buddy().open(memoryview(memory)[offset:offset + SIZE]) as heap:
            count = 0
            while True:
                try:
                    heap.alloc(1024)
                except OutOfMemory:
                    break
                count += 1
            assert count * 1024 > SIZE * 0.98


def test_opening_a_large_region_touches_one_page() -> None:
    """Start-up is O(1) whatever the size: nothing but the state is written."""
    with region("1G", hugepages="never") as memory:
        with Buddy().open(memory) as heap:
            assert heap.stats().capacity > (1 << 30) * 127 // 128 - 65536
            address = heap.walk()[0].address
            text = Path("/proc/self/smaps").read_text()
        part = next(each for each in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text)
                    if int(each.split("-")[0], 16) <= address
                    < int(each.split()[0].split("-")[1], 16))
        found = re.search(r"^Rss:\s+(\d+)", part, re.MULTILINE)
        assert found is not None and int(found[1]) <= 4


def test_worst_memory_is_promised_for_whole_slots() -> None:
    """The bound after the proof in views.c; blocks cut to size have none."""
    assert Buddy(exact=False).worst_memory(1 << 20, 4096) < 17.5 * (1 << 20)
    assert Buddy(exact=False).worst_memory(1 << 20, 32) < 2.1 * (1 << 20)
    with pytest.raises(NotSupported):
        Buddy().worst_memory(1 << 20, 4096)
