"""What only TLSF does: classes, borders, constant cost, a small footprint at the start."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from unikit.alloc import Heap, Tlsf, region
from unikit.errors import Corrupt, OutOfMemory
from unikit.testing import check_allocator

pytestmark = pytest.mark.fast


@pytest.fixture
def heap() -> Iterator[Heap]:
    """A heap of 256 KiB whose invariants are checked in the end."""
    with Tlsf().open(bytearray(1 << 18)) as heap:
        yield heap
        heap.check()


def test_conforms() -> None:
    """The portable suite is the contract."""
    assert check_allocator(Tlsf, ["16K", "64K", "1M"]).checks > 10_000


def test_free_coalesces_with_both_neighbours(heap: Heap) -> None:
    """Immediate coalescing: three in a row become one at once, whichever was freed last."""
    whole = heap.walk()
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        blocks = [heap.alloc(152) for _ in range(3)]
        guard = heap.alloc(24)
        for index in order:
            blocks[index].free()
        assert [extent.used for extent in heap.walk()] == [False, True, False]
        assert heap.walk()[0].size == 3 * 160 - 8
        guard.free()
        assert heap.walk() == whole


def test_a_block_costs_eight_bytes(heap: Heap) -> None:
    """The border lies half in the block before: 24, 40, 56 ... bytes waste nothing."""
    blocks = [heap.alloc(size) for size in (24, 40, 56, 1016)]
    assert [block.usable_size for block in blocks] == [24, 40, 56, 1016]
    distances = [b.address - a.address for a, b in zip(blocks, blocks[1:], strict=False)]
    assert distances == [32, 48, 64]


def test_good_fit_takes_the_small_gap(heap: Heap) -> None:
    """A small request must not eat a large block while a small one is free."""
    small, _, large, _ = (heap.alloc(size) for size in (104, 24, 5000, 24))
    gap = small.address
    small.free()
    large.free()
    assert heap.alloc(104).address == gap


def test_a_request_as_large_as_the_largest_free_block_succeeds(heap: Heap) -> None:
    """Rounding up to a class must not hide a block that fits: all memory can be had at once."""
    for _ in range(3):
        size = heap.stats().largest_free
        block = heap.alloc(size)
        assert heap.stats().largest_free == 0
        assert block.usable_size == size
        block.free()


@pytest.mark.parametrize("align", [32, 64, 256, 4096, 65536])
def test_alignment_gives_the_gap_back(heap: Heap, align: int) -> None:
    """What lies before an aligned block stays free and is joined again."""
    whole = heap.stats().largest_free
    heap_blocks = [heap.alloc(40, align) for _ in range(3 if align < 65536 else 2)]
    assert all(block.address % align == 0 for block in heap_blocks)
    for block in heap_blocks:
        block.free()
    assert heap.stats().largest_free == whole


def test_realloc_grows_forward_in_place(heap: Heap) -> None:
    """The free block behind is used before anything is copied."""
    block, behind, _ = heap.alloc(100), heap.alloc(1000), heap.alloc(24)
    address = block.address
    behind.free()
    heap.realloc(block, 1000)
    assert block.address == address


def test_realloc_grows_backward(heap: Heap) -> None:
    """With room only before it, the block slides down: it succeeds in a heap that is full."""
    before, block = heap.alloc(2000), heap.alloc(1000)
    heap.alloc(heap.stats().largest_free)
    block[:] = bytes(index % 251 for index in range(1000))
    address = before.address
    before.free()
    heap.realloc(block, 2500)
    assert block.address == address
    assert bytes(block[:1000]) == bytes(index % 251 for index in range(1000))


def test_realloc_backward_keeps_the_alignment(heap: Heap) -> None:
    """The place before may be misaligned for the block: then it must move elsewhere."""
    before, block, _ = heap.alloc(2000), heap.alloc(1000, 1024), heap.alloc(24)
    before.free()
    heap.realloc(block, 1900)
    assert block.address % 1024 == 0


def test_pool_limits_the_memory_that_is_managed() -> None:
    """`pool` is what the allocator may use; the rest of the region is not touched."""
    memory = bytearray(b"\xaa" * (1 << 20))
    with Tlsf(pool="64K").open(memory) as heap:
        assert 60_000 < heap.stats().capacity < 65536
        while True:
            try:
                heap.alloc(1000)[:] = bytes(1000)
            except OutOfMemory:
                break
    assert memory[65536:] == b"\xaa" * ((1 << 20) - 65536)


def test_pool_larger_than_the_memory_is_refused() -> None:
    """An option that cannot be kept is an error, not a smaller heap."""
    with pytest.raises(OutOfMemory):
        Tlsf(pool="2M").open(bytearray(1 << 20))


def test_opening_a_large_region_touches_little_of_it() -> None:
    """Start-up is O(1): of 1 GiB at most four pages become resident."""
    def resident(address: int) -> int:
        """KiB of the mapping at an address that are in memory."""
        text = open("/proc/self/smaps").read()  # noqa: PTH123, SIM115
        for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
            first, last = (int(each, 16) for each in part.split()[0].split("-"))
            if first <= address < last:
                found = re.search(r"^Rss:\s+(\d+)", part, re.MULTILINE)
                assert found
                return int(found[1])
        raise AssertionError(hex(address))

    with region("1G", hugepages="never") as memory, Tlsf().open(memory) as heap:
        address = heap.walk()[0].address
        assert heap.stats().capacity > (1 << 30) - 16384
        assert resident(address) <= 16


def test_further_larger_region_gets_its_own_classes(heap: Heap) -> None:
    """Growing a 256 KiB heap by 8 MiB must make blocks of 8 MiB possible, old ones stay."""
    old = heap.alloc(1000)
    old[:] = b"x" * 1000
    free = [heap.alloc(size) for size in (48, 96, 600, 3000)]
    for block in free[::2]:
        block.free()
    heap.add_region(region("8M", hugepages="never"))
    heap.check()
    assert heap.alloc(8_000_000)
    assert bytes(old[:]) == b"x" * 1000
    addresses = [extent.address for extent in heap.walk()]
    assert addresses == sorted(addresses)


def test_check_finds_an_overwritten_border(heap: Heap) -> None:
    """An application that writes past its block is found by check()."""
    block, behind = heap.alloc(100), heap.alloc(100)
    border = heap._ffi.cast("uint64_t *", behind.address - 8)
    saved = border[0]
    border[0] = 0x4141414141414140
    with pytest.raises(Corrupt):
        heap.check()
    border[0] = saved
    block.free()
