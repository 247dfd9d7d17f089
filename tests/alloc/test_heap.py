"""The Python face of allocators: blocks are buffers, misuse raises, nothing dangles."""

from __future__ import annotations

import doctest
import gc
import importlib
import mmap
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from unikit import registry
from unikit.alloc import Allocator, Block, Bump, Firstfit, Heap, Tlsf, region
from unikit.errors import InvalidArgument, NotSupported, OutOfMemory, Panic

pytestmark = pytest.mark.fast

ALL = [Bump, Firstfit, Tlsf]


@pytest.fixture(params=ALL, ids=lambda record: record.id)
def heap(request: pytest.FixtureRequest):
    """A heap of 256 KiB of each built-in allocator."""
    with request.param().open("256K") as heap:
        yield heap
        if not heap.closed:
            heap.check()


def test_block_is_a_writable_buffer(heap: Heap) -> None:
    """memoryview, slices and every function that takes buffers work on a block."""
    block = heap.alloc(1000)
    view = memoryview(block)
    assert (view.format, view.nbytes, view.readonly, len(block)) == ("B", 1000, False, 1000)
    view[:5] = b"hello"
    assert bytes(block[:5]) == b"hello"
    assert block[1] == ord("e")
    block[-1] = 7
    assert view[999] == 7


def test_numpy_views_a_block_without_copying(heap: Heap) -> None:
    """An array over a block writes the heap's memory."""
    block = heap.alloc(8 * 100, 64)
    array = numpy.frombuffer(block, dtype=numpy.float64)
    array[:] = numpy.arange(100)
    assert array.ctypes.data == block.address
    assert memoryview(block).cast("d")[99] == 99.0


def test_freeing_twice_raises(heap: Heap) -> None:
    """A double free in Python is an exception, never a damaged heap."""
    block = heap.alloc(10)
    block.free()
    for misuse in (block.free, lambda: heap.free(block), lambda: heap.realloc(block, 20)):
        with pytest.raises(ValueError, match="freed before"):
            misuse()
    with pytest.raises(ValueError, match="given back"):
        memoryview(block)


def test_block_of_another_heap_is_refused(heap: Heap) -> None:
    """A block goes back to the allocator that made it."""
    with Tlsf().open("64K") as other:
        block = other.alloc(10)
        with pytest.raises(ValueError, match="another heap"):
            heap.free(block)


def test_views_keep_a_block_from_going_away(heap: Heap) -> None:
    """Like mmap and bytearray: no free, realloc or close under an exported buffer."""
    block = heap.alloc(100)
    view = memoryview(block)[10:20]
    array = numpy.frombuffer(block, dtype=numpy.uint8)
    for change in (block.free, lambda: heap.realloc(block, 5000), heap.close):
        with pytest.raises(BufferError):
            change()
    assert block.address
    assert not heap.closed
    view.release()
    with pytest.raises(BufferError):
        block.free()
    del array
    block.free()


def test_view_outlives_every_name(heap: Heap) -> None:
    """A view alone keeps block, heap and memory alive."""
    made = Tlsf().open("64K")
    view = memoryview(made.alloc(100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del made
        gc.collect()
        view[:] = b"z" * 100
        assert bytes(view) == b"z" * 100
        view.release()
        gc.collect()


def test_realloc_keeps_the_object_and_the_contents(heap: Heap) -> None:
    """The same Block shows the new memory."""
    block = heap.alloc(100)
    heap.alloc(16)
    block[:] = b"a" * 100
    assert heap.realloc(block, 10_000) is block
    assert len(block) == 10_000
    assert bytes(block[:100]) == b"a" * 100
    assert len(heap.realloc(block, 3)) == 3


def test_block_in_with_is_freed(heap: Heap) -> None:
    """Leaving the statement frees it; freeing inside is fine."""
    with heap.alloc(100) as block:
        assert heap.stats().blocks == 1
    assert not block.address
    with heap.alloc(100) as block:
        block.free()
    assert heap.stats().blocks == 0


def test_close_is_idempotent_and_final(heap: Heap) -> None:
    """After close every call says so; blocks are gone."""
    block = heap.alloc(10)
    heap.close()
    heap.close()
    assert heap.closed
    assert not block.address
    for call in (lambda: heap.alloc(1), heap.stats, heap.check, heap.__enter__):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_dropping_an_open_heap_warns() -> None:
    """Nothing is torn down silently by the garbage collector."""
    with pytest.warns(ResourceWarning, match="was not closed"):
        Tlsf().open("64K")
        gc.collect()


def test_exhaustion_raises_memory_error_with_the_facts(heap: Heap) -> None:
    """The message says what was asked and what is left."""
    with pytest.raises(OutOfMemory, match=r"allocating 1048576 bytes: alloc\.\w+ has \d+ bytes"):
        heap.alloc(1 << 20)
    with pytest.raises(MemoryError):
        heap.alloc((1 << 63) - 1)
    block = heap.alloc(50)
    with pytest.raises(OutOfMemory, match="resizing a block of 50 bytes to 1048576"):
        heap.realloc(block, 1 << 20)
    assert heap.stats().failures == 3
    assert heap.stats().blocks == 1


@pytest.mark.parametrize(("size", "align"), [(-1, 0), (1 << 63, 0), (10, 3), (10, -16),
                                             (10, 1 << 64)])
def test_impossible_arguments_are_refused(heap: Heap, size: int, align: int) -> None:
    """What C could not even be told is a ValueError before the call."""
    with pytest.raises(InvalidArgument):
        heap.alloc(size, align)


@pytest.mark.parametrize("memory", [b"constant", "no size", -5, 0, 3.5, None,
                                    memoryview(bytearray(4096))[::2]])
def test_unusable_memory_is_refused(memory: object) -> None:
    """Read-only, strided and absent memory: one clear error each."""
    with pytest.raises((InvalidArgument, OutOfMemory)):
        Tlsf().open(memory)  # type: ignore[arg-type]


@pytest.mark.parametrize("record", ALL)
def test_too_little_memory_is_refused(record: type[Allocator]) -> None:
    """Not enough for the allocator's own state."""
    with pytest.raises(OutOfMemory, match="opening alloc"):
        record().open(bytearray(40))


def test_memory_is_pinned_while_the_heap_is_open() -> None:
    """The buffer below cannot be resized or unmapped under the heap."""
    array = bytearray(65536)
    mapping = mmap.mmap(-1, 65536)
    with Tlsf().open(array), Tlsf().open(mapping):
        with pytest.raises(BufferError):
            array.extend(b"x")
        with pytest.raises(BufferError):
            mapping.close()
    array.extend(b"x")
    mapping.close()


def test_a_failed_open_pins_nothing() -> None:
    """The buffer is free again after an error."""
    array = bytearray(40)
    with pytest.raises(OutOfMemory):
        Tlsf().open(array)
    array.extend(b"x")


def test_features_the_allocator_lacks_are_refused_by_name() -> None:
    """NotSupported says what it has instead."""
    with Bump().open("64K") as bump, Tlsf().open("64K") as tlsf:
        for call in (bump.walk, lambda: bump.owns(1), lambda: bump.add_region(bytearray(4096)),
                     tlsf.mark):
            with pytest.raises(NotSupported, match=r"alloc\.\w+ has no \w+; it has"):
                call()


def test_walk_and_owns_see_what_was_given_out() -> None:
    """The view of the whole heap agrees with the blocks."""
    with Tlsf().open("64K") as heap:
        blocks = [heap.alloc(100) for _ in range(5)]
        blocks[2].free()
        used = [extent.address for extent in heap.walk() if extent.used]
        assert used == [block.address for block in heap.blocks()]
        assert heap.owns(blocks[0])
        assert not heap.owns(blocks[0].address + 16)
        assert not heap.owns(blocks[2])


def test_release_under_a_view_frees_nothing() -> None:
    """All or nothing: a scope with a view inside stays as it is."""
    with Bump().open("64K") as heap:
        mark = heap.mark()
        blocks = [heap.alloc(10) for _ in range(3)]
        view = memoryview(blocks[1])
        with pytest.raises(BufferError):
            heap.release(mark)
        assert all(block.address for block in blocks)
        view.release()
        heap.release(mark)
        assert not any(block.address for block in blocks)


def test_a_panic_raises_and_names_the_reason() -> None:
    """A contract broken behind Python's back unwinds to the call that met it."""
    with Firstfit().open("64K") as heap:
        block = heap.alloc(100)
        heap._lib.kit_alloc_free(heap._ptr, heap._ffi.cast("void *", block.address), 100, 0)
        with pytest.raises(Panic, match="alloc.firstfit: not a block in use"):
            block.free()


def test_many_heaps_live_side_by_side() -> None:
    """No state outside the region: a hundred heaps know nothing of each other."""
    heaps = [ALL[index % 3]().open("16K") for index in range(99)]
    blocks = [heap.alloc(500) for heap in heaps]
    for index, block in enumerate(blocks):
        block[:] = bytes([index]) * 500
    assert all(bytes(block[:]) == bytes([index]) * 500 for index, block in enumerate(blocks))
    for heap in heaps:
        heap.check()
        heap.close()


def test_found_by_name_and_open() -> None:
    """The registry's records are the very classes."""
    assert registry.find("tlsf", "alloc") is Tlsf
    with registry.find("alloc.bump")().open(4096) as heap:
        assert isinstance(heap.alloc(1), Block)


def test_importing_the_records_loads_no_extension() -> None:
    """Import stays cheap: extensions come with the first open()."""
    code = ("import sys; from unikit.alloc import Tlsf; Tlsf(); "
            "sys.exit(any(m.startswith('unikit') and m.rpartition('.')[2].startswith('_') "
            "for m in sys.modules) or 'mmap' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_region_says_what_backs_it() -> None:
    """A region is zeroed, writable, and honest about its pages."""
    with region("64K") as small, region("4M") as large, region(5, hugepages="never") as tiny:
        assert small.pages == "4K"
        assert large.pages in ("2M", "thp", "4K")
        assert (len(tiny), tiny.pages) == (5, "4K")
        assert small[:] == bytes(65536)
        small[0] = 1
    assert repr(small) == "<Region: closed>"


@pytest.fixture
def reserved_page() -> Iterator[None]:
    """See to it that a reserved 2 MiB page is there, for this test only if it was not."""
    pool = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    try:
        free, total = (int((pool / name).read_text()) for name in ("free_hugepages",
                                                                   "nr_hugepages"))
        if not free:
            (pool / "nr_hugepages").write_text(str(total + 1))
            free = int((pool / "free_hugepages").read_text())
    except OSError as error:
        pytest.skip(f"no reserved 2 MiB page, and none to be had: {error.strerror}")
    try:
        if not free:
            pytest.skip("the kernel has no free 2 MiB page to reserve")
        yield
    finally:
        if os.access(pool / "nr_hugepages", os.W_OK):
            (pool / "nr_hugepages").write_text(str(total))


def test_region_on_reserved_huge_pages(reserved_page: None) -> None:
    """"require" maps whole reserved pages, "try" takes them too; a heap works on them."""
    with region(1, hugepages="require") as memory:
        assert memory.pages == "2M"
        assert len(memory) == 2 << 20
        with Tlsf().open(memory) as heap:
            heap.alloc(1_000_000)[:] = bytes(1_000_000)
            heap.check()
    with region("2M") as memory:
        assert memory.pages == "2M"


def test_required_pages_that_are_not_there_come_with_a_remedy() -> None:
    """More than any machine has reserved: the message says how to reserve them."""
    with pytest.raises(OutOfMemory, match="reserve 8388608 pages of 2 MiB with: sysctl vm.nr_"):
        region("16T", hugepages="require")


@pytest.mark.parametrize(("size", "pages"), [(0, "try"), ("x", "try"), (-1, "try"), (1, "maybe")])
def test_impossible_region_is_refused(size: int | str, pages: str) -> None:
    """One error class for every wrong argument."""
    with pytest.raises(InvalidArgument, match="mapping"):
        region(size, pages)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["unikit.alloc.api", "unikit.alloc.heap",
                                    "unikit.alloc.memory.create", "unikit.alloc.memory.mappings",
                                    "unikit.testing.alloc"])
def test_the_examples_in_docstrings_run(module: str) -> None:
    """What the reference shows is what happens."""
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_two_heaps_cannot_live_in_the_same_memory() -> None:
    """The second would lay its own bookkeeping over the first one's blocks."""
    with region("1M", hugepages="never") as memory, Tlsf().open(memory) as first:
        block = first.alloc(100)
        with pytest.raises(InvalidArgument, match=r"another heap of alloc\.tlsf lives there"):
            Bump().open(memory)
        with pytest.raises(InvalidArgument, match="lives there"):
            Tlsf().open(memoryview(memory)[4096:])
        block.free()
        first.check()
        first.close()
        with Bump().open(memoryview(memory)[:1 << 19]) as low, \
                Bump().open(memoryview(memory)[1 << 19:]) as high:
            assert low.alloc(10).address < high.alloc(10).address
