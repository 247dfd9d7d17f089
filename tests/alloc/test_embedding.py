"""Heaps inside other programs: batches, threads, JSON, misuse, and C projects."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import threading
import weakref
from array import array
from pathlib import Path

import pytest

import unikit
from unikit import registry
from unikit.alloc import Bump, Firstfit, Heap, Shard, Tlsf, memory, numpy_handler, sources
from unikit.errors import InvalidArgument, NotSupported, OutOfMemory, Panic
from unikit.ffi import load

pytestmark = pytest.mark.fast

ALL = [record for record in registry.components("alloc") if "layer" not in record.features]


@pytest.fixture(params=ALL, ids=lambda record: record.id)
def heap(request: pytest.FixtureRequest):
    """A heap of 4 MiB of each allocator, sound afterwards."""
    with request.param().open("4M") as heap:
        yield heap
        if not heap.closed:
            heap.check()


# ---- batches ------------------------------------------------------------------------------------

def test_a_batch_is_many_blocks_by_one_call(heap: Heap) -> None:
    """They are told apart, aligned, viewed one by one, and freed together."""
    sizes = [100, 0, 5000, 64]
    batch = heap.alloc_many(sizes, 64)
    assert (len(batch), list(batch.sizes)) == (4, sizes)
    assert all(address % 64 == 0 for address in batch.addresses)
    for number, view in enumerate(batch):
        view[:] = bytes([number]) * len(view)
    assert bytes(batch[2]) == b"\x02" * 5000
    assert bytes(batch[-1]) == b"\x03" * 64
    assert heap.stats().blocks == 4
    spans = sorted(zip(batch.addresses, batch.sizes, strict=True))
    assert all(low + size <= high for (low, size), (high, _) in zip(spans, spans[1:], strict=False))
    with pytest.raises(IndexError):
        batch[4]
    del view
    batch.free()
    assert heap.stats().blocks == 0
    assert (len(batch), list(batch.addresses)) == (0, [])
    with pytest.raises(ValueError, match="freed before"):
        batch.free()


def test_a_batch_takes_arrays_of_words_as_they_are(heap: Heap) -> None:
    """Anything iterable, and nothing but sizes."""
    with heap.alloc_many(array("Q", [16] * 200)) as batch:
        assert heap.stats().blocks == 200
        assert len(set(batch.addresses)) == 200
    with heap.alloc_many(range(10)), heap.alloc_many([]):
        assert heap.stats().blocks == 10
    for wrong in ([-1], ["x"], [1.5], [1 << 63], [1 << 64]):
        with pytest.raises(InvalidArgument):
            heap.alloc_many(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="power of two"):
        heap.alloc_many([1], 3)
    assert heap.stats().blocks == 0


def test_a_batch_is_all_or_nothing(heap: Heap) -> None:
    """If the last one has no room, the first ones are given back."""
    with pytest.raises(OutOfMemory, match="of which there was room for"):
        heap.alloc_many([100_000] * 100)
    assert heap.stats().blocks == 0


def test_views_keep_a_batch_and_the_heap(heap: Heap) -> None:
    """No free and no close under an exported buffer; a foreign batch is refused."""
    batch = heap.alloc_many([10, 20])
    view = batch[1]
    for use in (batch.free, heap.close):
        with pytest.raises(BufferError, match="have views that others hold"):
            use()
    view.release()
    with Tlsf().open("64K") as other, pytest.raises(ValueError, match="another heap"):
        other.free_many(batch)
    heap.close()
    assert len(batch) == 0


def test_a_released_mark_takes_batches_along() -> None:
    """Like blocks."""
    with Bump().open("64K") as heap:
        before = heap.alloc_many([10])
        with heap.scope():
            inside = heap.alloc_many([10, 10])
        assert (len(before), len(inside)) == (1, 0)


# ---- misuse, life -------------------------------------------------------------------------------

@pytest.mark.parametrize(("size", "align"), [("x", 0), (None, 0), (1.5, 0), (1, "16"), (b"1", 0)])
def test_sizes_that_are_no_numbers_are_refused(heap: Heap, size: object, align: object) -> None:
    """With our own error, in alloc and realloc."""
    with pytest.raises(InvalidArgument, match="give whole numbers"):
        heap.alloc(size, align)  # type: ignore[arg-type]
    if align == 0:
        block = heap.alloc(10)
        with pytest.raises(InvalidArgument, match="give whole numbers"):
            heap.realloc(block, size)  # type: ignore[arg-type]
        assert len(block) == 10


def test_numbers_of_other_libraries_are_numbers(heap: Heap) -> None:
    """Whatever has ``__index__``."""
    numpy = pytest.importorskip("numpy")
    block = heap.alloc(numpy.int64(100), numpy.uint8(64))
    assert (len(block), block.align) == (100, 64)


def test_heaps_and_blocks_can_be_referred_to_weakly(heap: Heap) -> None:
    """For caches that must not keep memory."""
    block = heap.alloc(10)
    weak_heap, weak_block = weakref.ref(heap), weakref.ref(block)
    assert weak_heap() is heap
    assert weak_block() is block


def test_one_call_tells_all_in_json(heap: Heap) -> None:
    """For logs and dashboards; the figures are those of stats()."""
    heap.alloc(1000)
    told = json.loads(heap.json())
    stats = heap.stats()
    assert told["component"] == heap.record.id
    assert (told["used"], told["blocks"], told["peak"]) == (stats.used, 1, stats.peak)
    assert told["threads"] == "one"
    assert told["pages"] in ("4K", "thp", "2M")
    assert told["regions"] == [4 << 20]
    assert 0 <= told["fragmentation"] <= 1
    assert told["layers"] == [heap.record.id]
    with Shard().open("1M", threads=True) as other:
        assert json.loads(other.json())["threads"] == "faces"
    with Tlsf().open(bytearray(65536), threads=True) as other:
        told = json.loads(other.json())
        assert (told["threads"], told["pages"], told["options"]) == ("lock", None, {"pool": 0})


# ---- threads ------------------------------------------------------------------------------------

@pytest.mark.parametrize("record", [Firstfit, Shard, Tlsf], ids=lambda record: record.id)
def test_a_heap_for_threads(record: type) -> None:
    """Blocks are made and freed by many threads at once, each other's among them."""
    with record().open("16M", threads=True) as heap:
        basket, lock, wrong = [], threading.Lock(), []

        def work(mark: int) -> None:
            for turn in range(1000):
                block = heap.alloc(1 + (turn * 37 + mark) % 700)
                block[:] = bytes([mark]) * len(block)
                with lock:
                    basket.append(block)
                    other = basket.pop(0) if len(basket) > 20 else None
                if other is not None:
                    if len(set(bytes(other))) != 1:
                        wrong.append(turn)
                    other.free()
                if turn % 100 == 0:
                    heap.alloc_many([10] * 50).free()

        threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        heap.check()
        assert heap.stats().blocks == len(basket) == sum(each.used for each in heap.walk())


def test_threads_that_end_give_their_faces_back() -> None:
    """A face per thread must not mean memory per thread that ever was."""
    with Shard().open("16M", threads=True) as heap:
        def work() -> None:
            heap.alloc(100).free()

        def run(count: int) -> None:
            for _ in range(count):
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()

        run(20)
        before = heap.stats().largest_free
        run(300)
        # join() may return a moment before the thread has given its face back.
        assert before - heap.stats().largest_free < 1 << 20
        heap.check()


def test_threads_outlive_their_heap() -> None:
    """A thread that had a face ends after the heap was closed."""
    closed, used = threading.Event(), threading.Event()
    heap = Shard().open("4M", threads=True)

    def work() -> None:
        heap.alloc(100).free()
        used.set()
        closed.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    used.wait(10)
    heap.close()
    closed.set()
    thread.join()
    gc.collect()


def test_a_panic_leaves_no_lock_behind() -> None:
    """A broken heap raises again and again; it never hangs."""
    heap = Tlsf().open("64K", threads=True)
    block = heap.alloc(100)
    pointer = heap._ffi.cast("void *", block.address)
    free = heap._lib.kit_alloc_free
    load.check(free(heap._ptr, pointer, 100, 0), "freeing")
    for _ in range(2):
        with pytest.raises(Panic, match="not a block in use"):
            load.check(free(heap._ptr, pointer, 100, 0), "freeing")
    heap._blocks.clear()
    heap.close()


@pytest.mark.parametrize("record", [Shard, Tlsf], ids=lambda record: record.id)
def test_a_fork_amid_threads_has_a_sound_copy(record: type) -> None:
    """The child of a busy parent can use the heap at once."""
    with record().open("16M", threads=True) as heap:
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                heap.alloc_many([100] * 100).free()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        outcomes = []
        for _ in range(10):
            pid = os.fork()
            if not pid:
                heap.alloc_many([100] * 100).free()
                os._exit(0)
            outcomes.append(os.waitpid(pid, 0)[1])
        stop.set()
        for thread in threads:
            thread.join()
        assert outcomes == [0] * 10


# ---- C projects ---------------------------------------------------------------------------------

PROGRAM = r"""
#include <stdio.h>
#include <unikit/alloc/alloc.h>

extern const struct kit_alloc_component NAME;
static _Alignas(4096) char arena[1 << 20];

int main(void)
{
    const uint64_t options[32] = {OPTIONS};
    struct kit_alloc *heap;
    if (NAME.open(options, arena, sizeof arena, &heap) != 0)
        return 1;
    char *block = kit_alloc_alloc(heap, 1000, 64);
    if (!block || (uintptr_t)block % 64)
        return 2;
    for (int i = 0; i < 1000; i++)
        block[i] = (char)i;
    kit_alloc_free(heap, block, 1000, 64);
    puts(NAME.id);
    return kit_alloc_check(heap);
}
"""


@pytest.mark.parametrize("record", ALL, ids=lambda record: record.id)
def test_a_c_program_embeds_an_allocator(record: type, tmp_path: Path) -> None:
    """get_include() and sources() are all that a build needs; no warning comes up."""
    options = ", ".join(str(value) for value in record().encoded()) or "0"
    (tmp_path / "main.c").write_text(
        PROGRAM.replace("NAME", record.symbol()).replace("OPTIONS", options))
    subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror",
                    "-I", unikit.get_include(), tmp_path / "main.c", *sources(record),
                    "-o", tmp_path / "program"], check=True)
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{record.id}\n")


def test_regions_on_huge_pages_carry_heaps() -> None:
    """The opening example of the documentation, as it stands."""
    with memory.region("256M", hugepages="try") as m, Tlsf().open(m) as a:
        block = a.alloc(4096, align=64)
        assert block.address % 64 == 0
        assert m.backing().size == 256 << 20


# ---- growth and give-back -----------------------------------------------------------------------

PAGED = [Shard, Tlsf]


@pytest.mark.parametrize("record", PAGED, ids=lambda record: record.id)
def test_a_heap_grows_into_what_is_reserved(record: type) -> None:
    """Until there is no more; what it grew into is gone with it, and the region as before."""
    with memory.region("4M", "never", reserve="256M") as m:
        with record().open(m) as heap:
            blocks = []
            with pytest.raises(OutOfMemory):
                while True:
                    blocks.append(heap.alloc(10 << 20))
            assert 18 <= len(blocks) <= 25
            for number, block in enumerate(blocks):
                block[-100_000:] = bytes([number]) * 100_000
            assert all(bytes(block[-3:]) == bytes([number]) * 3
                       for number, block in enumerate(blocks))
            assert all(m.address <= block.address < m.address + m.reserved for block in blocks)
            heap.check()
            assert m.backing().resident >= len(blocks) * 100_000
            with pytest.raises(InvalidArgument, match="a heap grows by itself"):
                m.grow("1M")
            assert len(m) == 4 << 20
            for block in blocks:
                block.free()
        assert m.backing().size == 4 << 20
        m.grow("1M").release()


@pytest.mark.parametrize("record", PAGED, ids=lambda record: record.id)
def test_free_memory_goes_back_at_once_or_by_and_by(record: type) -> None:
    """``trim`` gives all, ``tick`` what lay free for some time; the heap goes on as before."""
    with memory.region("64M", "never") as m, record().open(m) as heap:
        def fill() -> None:
            blocks = [heap.alloc(1 << 20) for _ in range(40)]
            for block in blocks:
                block[:] = b"x" * len(block)
            for block in blocks:
                block.free()

        fill()
        assert m.backing().resident > 40 << 20
        assert heap.trim() >= 38 << 20
        assert m.backing().resident < 2 << 20
        fill()
        assert heap.trim(keep=20 << 20) <= 45 << 20
        assert m.backing().resident >= 18 << 20
        fill()
        given = sum(heap.tick() for _ in range(5000))
        assert given >= 38 << 20
        assert m.backing().resident < 3 << 20
        heap.check()


@pytest.mark.parametrize("record", PAGED, ids=lambda record: record.id)
def test_growing_and_trimming_for_ever_loses_no_address_space(record: type) -> None:
    """What was given back is grown into again, in whatever order it went."""
    with memory.region("2M", "never", reserve="512M") as m, record().open(m) as heap:
        for turn in range(30):
            blocks = [heap.alloc(30 << 20) for _ in range(12)]
            for block in blocks[turn % 2::2] + blocks[1 - turn % 2::2]:
                block.free()
            heap.trim()
        heap.check()


@pytest.mark.parametrize("record", PAGED, ids=lambda record: record.id)
def test_memory_given_back_reads_as_zero(record: type) -> None:
    """``numpy.zeros`` is zero, whatever was there before."""
    numpy = pytest.importorskip("numpy")
    with record().open("64M") as heap, numpy_handler(heap):
        for size in (1000, 100_000, 3_000_000):
            for _ in range(5):
                array = numpy.zeros(size)
                assert not array.any()
                array[:] = 7
                del array
                heap.trim()
                heap.alloc_many([5000] * 100).free()


def test_other_memory_is_not_given_back() -> None:
    """A bytearray is Python's, a file keeps its contents, and not every allocator can."""
    with Tlsf().open(bytearray(1 << 20)) as heap, pytest.raises(NotSupported, match="no private"):
        heap.trim()
    with memory.region("1M", shared=True) as m, Tlsf().open(m) as heap, \
            pytest.raises(NotSupported, match="no private"):
        heap.tick()
    with Bump().open("1M") as heap, pytest.raises(NotSupported, match="has no pages"):
        heap.trim()
