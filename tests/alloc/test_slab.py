"""What only slabs do: caches of one size each, magazines, pages that come and go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unikit.alloc import Heap, Slab
from unikit.errors import InvalidArgument, OutOfMemory, Panic
from unikit.testing import check_allocator

pytestmark = pytest.mark.fast
PAGE = 4096


@pytest.fixture
def heap() -> Iterator[Heap]:
    """A heap of 1 MiB with pages of 4 KiB, whose invariants are checked in the end."""
    with Slab().open(bytearray(1 << 20)) as heap:
        yield heap
        heap.check()


@pytest.mark.parametrize("page", [0, 512, 4096])
def test_conforms(page: int) -> None:
    """The portable suite is the contract, with small pages and with large ones."""
    sizes = ["256K", "1M"] if page == PAGE else ["16K", "64K", "1M"]
    assert check_allocator(Slab(page=page), sizes).checks > 10_000


def test_four_classes_per_doubling(heap: Heap) -> None:
    """At most a quarter of an object is lost to rounding, less above 64 bytes."""
    for size in (1, 16, 17, 64, 65, 80, 81, 129, 1000, 1025, 1281, 5000, 8192):
        usable = heap.alloc(size).usable_size
        assert size <= usable <= max(size + 15, size * 5 // 4)
    assert heap.alloc(8193).usable_size == 3 * PAGE


def test_objects_of_a_size_share_a_page(heap: Heap) -> None:
    """Objects lie one behind the other in a slab, without headers."""
    first, *others = [heap.alloc(48) for _ in range(50)]
    assert [block.address - first.address for block in others] == [48 * i for i in range(1, 50)]


def test_sizes_do_not_share_a_page(heap: Heap) -> None:
    """Another size is another cache, hence another slab."""
    assert heap.alloc(48).address // PAGE != heap.alloc(64).address // PAGE


def test_a_magazine_gives_the_latest_object_first(heap: Heap) -> None:
    """What was freed last is still in the cache of the processor."""
    blocks = [heap.alloc(100) for _ in range(20)]
    places = [block.address for block in blocks]
    for block in blocks:
        block.free()
    heap.check()
    assert [heap.alloc(100).address for _ in range(20)] == places[::-1]


def test_full_magazines_go_to_the_depot_and_come_back(heap: Heap) -> None:
    """More frees than two magazines hold: the order of whole magazines is kept, none is lost."""
    keep = heap.alloc(100)
    blocks = [heap.alloc(100) for _ in range(400)]
    places = {block.address for block in blocks}
    for block in blocks:
        block.free()
        heap.check()
    again = {heap.alloc(100).address for _ in range(400)}
    assert len(again & places) >= 150  # those in magazines at least
    assert keep.address not in again


def test_magazines_are_emptied_when_pages_run_out(heap: Heap) -> None:
    """Free objects of other sizes must not make a request fail."""
    keep = heap.alloc(16)
    for size in (32, 100, 500, 1000):
        for block in [heap.alloc(size) for _ in range(300)]:
            block.free()
    count = 0
    while True:
        try:
            heap.alloc(PAGE * 4)
        except OutOfMemory:
            break
        count += 1
    assert count >= (heap.stats().capacity // PAGE - 1) // 4 - 1  # `keep` may lie in between
    keep.free()


def test_an_empty_slab_gives_its_pages_back() -> None:
    """A burst of one size must not keep its pages from the others for ever."""
    with Slab().open(bytearray(1 << 20)) as heap:
        keep = heap.alloc(16)
        largest = heap.stats().largest_free
        for block in [heap.alloc(1000) for _ in range(500)]:
            block.free()
        assert heap.alloc(largest).usable_size >= largest
        keep.free()


def test_runs_of_pages_join(heap: Heap) -> None:
    """Three runs in a row become one, whichever was freed last; at the end the frontier sinks."""
    keep = heap.alloc(16)
    whole = heap.stats().largest_free
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        blocks = [heap.alloc(3 * PAGE) for _ in range(3)]
        guard = heap.alloc(5 * PAGE)
        gap = blocks[0].address
        for index in order:
            blocks[index].free()
        joined = heap.alloc(9 * PAGE)
        assert joined.address == gap
        guard.free()
        joined.free()
        assert heap.stats().largest_free == whole
    keep.free()


def test_a_free_page_is_no_block(heap: Heap) -> None:
    """A run freed twice is noticed by its page."""
    keep, block = heap.alloc(16), heap.alloc(20_000)
    pointer = heap._ffi.cast("void *", block.address)
    block.free()
    assert heap._lib.kit_alloc_free(heap._ptr, pointer, 20_000, 0) != 0
    with pytest.raises(Panic, match=r"alloc\.slab: not a block in use"):
        heap._refuse("freeing twice")
    keep.free()


def test_page_must_be_a_power_of_two() -> None:
    """An option that cannot be kept is an error."""
    with pytest.raises(InvalidArgument):
        Slab(page=5000).open(bytearray(1 << 20))
