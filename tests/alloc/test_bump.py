"""What only the bump allocator does: LIFO, scopes, growing the last block where it stands."""

from __future__ import annotations

import pytest

from unikit.alloc import Bump, Heap
from unikit.errors import Panic
from unikit.testing import check_allocator

pytestmark = pytest.mark.fast


@pytest.fixture
def heap() -> Heap:
    """A heap of 64 KiB; its memory goes with it."""
    return Bump().open(bytearray(65536))


@pytest.fixture(autouse=True)
def sound(heap: Heap):
    """After each test every invariant must still hold."""
    yield
    if not heap.closed:
        heap.check()
        heap.close()


def test_conforms() -> None:
    """The portable suite is the contract."""
    assert check_allocator(Bump, ["16K", "64K"]).checks > 10_000


def test_blocks_lie_side_by_side_without_headers(heap: Heap) -> None:
    """No byte is spent per block: that is the point of the allocator."""
    blocks = [heap.alloc(32) for _ in range(10)]
    assert [block.address - blocks[0].address for block in blocks] == list(range(0, 320, 32))
    assert heap.stats().used == 320


def test_free_of_the_last_block_takes_it_back(heap: Heap) -> None:
    """LIFO use runs for ever in constant memory."""
    for _ in range(10_000):
        first, second = heap.alloc(3000), heap.alloc(50_000)
        second.free()
        first.free()
    assert heap.stats().used == 0
    assert heap.stats().peak == 3008 + 50_000


def test_free_of_an_earlier_block_only_counts(heap: Heap) -> None:
    """Memory below the top does not come back before a release."""
    first, second = heap.alloc(100), heap.alloc(100)
    first.free()
    assert heap.stats().used == 224
    assert heap.stats().blocks == 1
    second.free()
    assert heap.stats().used == 112


def test_last_block_grows_and_shrinks_in_place(heap: Heap) -> None:
    """Building a string by realloc costs no copies."""
    block = heap.alloc(16)
    address = block.address
    for size in (100, 10_000, 60_000, 17):
        heap.realloc(block, size)
        assert block.address == address
    assert heap.stats().used == 32


def test_earlier_block_moves_to_grow(heap: Heap) -> None:
    """Only the last block has room behind it; contents move along."""
    first = heap.alloc(16)
    first[:] = bytes(range(16))
    second = heap.alloc(16)
    heap.realloc(first, 64)
    assert bytes(first[:16]) == bytes(range(16))
    assert first.address > second.address


def test_release_returns_to_the_mark(heap: Heap) -> None:
    """A request's memory is given back in one step, whatever was allocated."""
    kept = heap.alloc(100)
    before = heap.stats()
    mark = heap.mark()
    blocks = [heap.alloc(size) for size in range(1, 200, 7)]
    blocks[3].free()
    heap.release(mark)
    after = heap.stats()
    assert (after.used, after.blocks, after.largest_free) == \
        (before.used, before.blocks, before.largest_free)
    assert after.allocations - after.frees == 1
    assert list(heap.blocks()) == [kept]


def test_release_after_the_block_below_was_freed_does_nothing(heap: Heap) -> None:
    """A mark above the top must not bring freed memory back into use."""
    block = heap.alloc(100)
    mark = heap.mark()
    block.free()
    heap.release(mark)
    assert heap.stats().used == 0


def test_scope_frees_on_leaving_even_by_an_exception(heap: Heap) -> None:
    """``with heap.scope()`` is how Python uses marks."""
    with pytest.raises(KeyError), heap.scope():
        heap.alloc(1000)
        raise KeyError
    assert heap.stats().used == 0


def test_alignment_costs_the_gap_only(heap: Heap) -> None:
    """A page-aligned block right after a small one leaves a gap, no header."""
    small = heap.alloc(16)
    page = heap.alloc(4096, 4096)
    assert page.address % 4096 == 0
    assert heap.stats().used == page.address + 4096 - small.address


def test_a_block_above_the_top_panics(heap: Heap) -> None:
    """Freeing what a release took away is found: it lies in memory that is not in use."""
    block = heap.alloc(64)
    raw = heap._ffi.cast("void *", block.address)
    block.free()
    assert heap._lib.kit_alloc_free(heap._ptr, raw, 64, 0) == -18
    from unikit.ffi import load
    with pytest.raises(Panic, match="alloc.bump: a block that is not in use"):
        load.check_panic("freeing")
