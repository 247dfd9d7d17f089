"""What only first fit does: lowest address first, a table of a chosen size, strangers found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unikit.alloc import Firstfit, Heap
from unikit.errors import CompositionError, InvalidArgument, OutOfMemory
from unikit.testing import check_allocator

pytestmark = pytest.mark.fast


@pytest.fixture
def heap() -> Iterator[Heap]:
    """A heap of 64 KiB whose invariants are checked in the end."""
    with Firstfit().open(bytearray(65536)) as heap:
        yield heap
        heap.check()


@pytest.mark.parametrize("blocks", [64, 256])
def test_conforms(blocks: int) -> None:
    """The portable suite is the contract, with a table that runs full and one that does not."""
    assert check_allocator(Firstfit(blocks=blocks), ["16K", "64K"]).checks > 10_000


def test_first_gap_that_fits_is_taken(heap: Heap) -> None:
    """First fit, not best fit: the lowest address wins though a later gap fits exactly."""
    large, _, exact, _ = (heap.alloc(size) for size in (512, 16, 64, 16))
    first = large.address
    exact.free()
    large.free()
    assert heap.alloc(64).address == first


def test_free_coalesces_with_both_neighbours(heap: Heap) -> None:
    """Three free blocks in a row become one, whichever was freed last."""
    whole = heap.walk()
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        blocks = [heap.alloc(160) for _ in range(3)]
        guard = heap.alloc(16)
        for index in order:
            blocks[index].free()
        assert [extent.used for extent in heap.walk()] == [False, True, False]
        assert heap.walk()[0].size == 480
        guard.free()
        assert heap.walk() == whole


def test_a_full_table_refuses_though_memory_is_left() -> None:
    """The option `blocks` is the limit; freeing makes room in the table again."""
    with Firstfit(blocks=4).open(bytearray(65536)) as heap:
        blocks = [heap.alloc(16) for _ in range(3)]
        rest = heap.alloc(16)  # no entry left to split with: the whole rest is given out
        assert rest.usable_size > 60_000
        with pytest.raises(OutOfMemory):
            heap.alloc(16)
        blocks[1].free()
        assert heap.alloc(16).address
        heap.check()


def test_realloc_grows_into_the_free_block_behind(heap: Heap) -> None:
    """In place where possible: no copy, and the border moves."""
    block, behind, _ = heap.alloc(64), heap.alloc(64), heap.alloc(64)
    address = block.address
    behind.free()
    heap.realloc(block, 100)
    assert block.address == address
    assert [extent.size for extent in heap.walk()][:2] == [112, 16]
    heap.realloc(block, 128)
    assert block.address == address
    assert [extent.used for extent in heap.walk()][:2] == [True, True]


def test_further_region_that_touches_is_joined() -> None:
    """Two halves of one buffer are one piece of memory again."""
    memory = memoryview(bytearray(65536))
    with Firstfit().open(memory[:32768]) as heap:
        largest = heap.stats().largest_free
        heap.add_region(memory[32768:])
        assert heap.stats().largest_free == largest + 32768


def test_overlapping_region_is_refused(heap: Heap) -> None:
    """The table knows what it has: managing memory twice would give it out twice."""
    extent = heap.walk()[0]
    with pytest.raises(InvalidArgument):
        heap.add_region(heap._ffi.buffer(heap._ffi.cast("char *", extent.address + 64), 256))


def test_table_size_must_be_positive() -> None:
    """A table of no entries is no allocator."""
    with pytest.raises(CompositionError, match="alloc.firstfit.blocks"):
        Firstfit(blocks=0)
