"""What the two-ended stack does beyond the contract."""

import pytest
from unikit_stack2 import Stack2

from unikit.testing import check_allocator


@pytest.mark.parametrize("large", [0, 64, "4K", "1G"])
def test_conforms(large):
    """The suite of the interface, with either stack or both in use."""
    assert check_allocator(Stack2(large=large)).checks > 100_000


def test_small_and_large_blocks_come_from_opposite_ends():
    """Large blocks do not part small ones."""
    with Stack2(large=1000).open(bytearray(65536)) as heap:
        small, large, next_small = heap.alloc(100), heap.alloc(1000), heap.alloc(100)
        assert next_small.address == small.address + 112
        assert large.address > next_small.address + 50_000


def test_all_is_free_again_with_the_last_block():
    """A round may free in any order."""
    with Stack2().open(bytearray(65536)) as heap:
        capacity = heap.stats().largest_free
        blocks = [heap.alloc(size) for size in (10, 5000, 20, 6000)]
        for block in blocks:
            block.free()
        assert heap.stats().largest_free == capacity
