"""What only half-fit does: powers of two, lists of which every block fits, a bound on memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unikit.alloc import Halffit, Heap
from unikit.errors import Corrupt, OutOfMemory
from unikit.testing import check_allocator

pytestmark = pytest.mark.fast


@pytest.fixture
def heap() -> Iterator[Heap]:
    """A heap of 256 KiB whose invariants are checked in the end."""
    with Halffit().open(bytearray(1 << 18)) as heap:
        yield heap
        heap.check()


def test_conforms() -> None:
    """The portable suite is the contract."""
    assert check_allocator(Halffit, ["16K", "64K", "1M"]).checks > 10_000


def test_blocks_are_powers_of_two(heap: Heap) -> None:
    """With its 8 bytes a block has 2^k: the bound on memory rests on it."""
    sizes = [heap.alloc(size).usable_size + 8 for size in (0, 1, 24, 25, 56, 57, 1016, 1017)]
    assert sizes == [32, 32, 32, 64, 64, 128, 1024, 2048]


def test_aligned_blocks_are_not_rounded(heap: Heap) -> None:
    """An aligned request looks for its size and the alignment: twice that would be a waste."""
    assert heap.alloc(1100, 256).usable_size == 1112


def test_the_largest_request_is_the_power_of_two_below_the_largest_block(heap: Heap) -> None:
    """Half of a block may be out of reach: what stats() says is what can be had."""
    assert heap.stats().largest_free == (1 << 17) - 8
    heap.alloc((1 << 17) - 8)
    assert heap.stats().largest_free == (1 << 16) - 8


def test_no_list_is_searched(heap: Heap) -> None:
    """A block of the right list that is too small is not looked past: the next list serves."""
    first, _, second, _ = (heap.alloc(size) for size in (1016, 24, 1016, 24))
    heap.realloc(first, 500)  # 512 bytes behind it are free now, of 1024 of the list of 512
    gap = second.address
    second.free()
    assert heap.alloc(1000).address == gap
    assert heap.alloc(1000).address > gap


def test_the_block_freed_last_is_given_out_first(heap: Heap) -> None:
    """Within a list the latest comes first: it is still in the cache."""
    one, _, two, _ = (heap.alloc(200) for _ in range(4))
    places = [one.address, two.address]
    one.free()
    two.free()
    assert [heap.alloc(200).address for _ in range(2)] == places[::-1]


def test_free_coalesces_with_both_neighbours(heap: Heap) -> None:
    """Three in a row become one at once, whichever was freed last."""
    whole = heap.walk()
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        blocks = [heap.alloc(120) for _ in range(3)]
        guard = heap.alloc(24)
        for index in order:
            blocks[index].free()
        assert [extent.used for extent in heap.walk()] == [False, True, False]
        assert heap.walk()[0].size == 3 * 128 - 8
        guard.free()
        assert heap.walk() == whole


def test_worst_memory_grows_with_the_logarithm_of_the_largest_request() -> None:
    """2 M (1 + log2 n), n counted in smallest blocks, and what the heap itself needs."""
    live = 1 << 20
    for largest, order in ((24, 5), (56, 6), (4088, 12), (65_528, 16)):
        bound = 2 * live * (1 + order - 5)
        assert bound < Halffit().worst_memory(live, largest) < bound + (1 << order) + 1024


def test_check_finds_an_overwritten_border(heap: Heap) -> None:
    """An application that writes past its block is found by check()."""
    block, behind = heap.alloc(24), heap.alloc(100)
    border = heap._ffi.cast("uint64_t *", behind.address - 8)
    saved = border[0]
    border[0] = 0x4141414141414140
    with pytest.raises(Corrupt):
        heap.check()
    border[0] = saved
    block.free()


def test_exhaustion_leaves_less_than_a_power_of_two(heap: Heap) -> None:
    """A request is refused only if no free block has its power of two."""
    while True:
        try:
            heap.alloc(1016)
        except OutOfMemory:
            break
    assert max((extent.size for extent in heap.walk() if not extent.used), default=0) < 1024
