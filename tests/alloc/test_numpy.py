"""NumPy in a heap: single arrays, and all that a piece of code makes (NEP 49)."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref

import numpy
import pytest

from unikit.alloc import Bump, Firstfit, Heap, Shard, Tlsf, memory, numpy_handler
from unikit.errors import InvalidArgument, NotSupported, OutOfMemory

pytestmark = pytest.mark.fast

ALL = [Firstfit, Shard, Tlsf]


def inside(array: numpy.ndarray, heap: Heap) -> bool:
    """Whether an array's memory lies in a heap's region."""
    assert heap._pages is not None
    start = heap._pages.address
    return start <= array.ctypes.data < start + len(heap._pages)


@pytest.fixture(params=ALL, ids=lambda record: record.id)
def heap(request: pytest.FixtureRequest):
    """A heap of 16 MiB, over a region; sound and empty of arrays afterwards."""
    with memory.region("16M", "never") as region, request.param().open(region) as heap:
        yield heap
        gc.collect()
        if not heap.closed:
            heap.check()


# ---- single arrays ----------------------------------------------------------------------------

def test_an_array_lives_in_the_heap_and_gives_itself_back(heap: Heap) -> None:
    """Shape, type, order and alignment as asked; views keep it, the last one frees it."""
    array = heap.ndarray((3, 4), "f4", align=128, order="F")
    assert (array.shape, array.dtype, array.flags.f_contiguous) == ((3, 4), numpy.float32, True)
    assert array.ctypes.data % 128 == 0
    assert inside(array, heap)
    array[:] = 7
    part = array[1:, 2:]
    del array
    assert heap.stats().blocks == 1
    assert part.sum() == 28
    with pytest.raises(BufferError, match="1 arrays or objects still live"):
        heap.close()
    del part
    assert heap.stats().blocks == 0


def test_an_array_without_elements_costs_nothing(heap: Heap) -> None:
    """It is an ordinary empty array."""
    array = heap.ndarray((0, 5))
    assert array.shape == (0, 5)
    assert heap.stats().blocks == 0


def test_what_cannot_be_an_array_is_refused(heap: Heap) -> None:
    """Python objects would never be freed, and there is an end to every heap."""
    with pytest.raises(InvalidArgument, match="holds Python objects"):
        heap.ndarray(3, object)
    with pytest.raises(InvalidArgument, match="holds Python objects"):
        heap.ndarray(3, [("a", "i4"), ("b", "O")])
    with pytest.raises(OutOfMemory):
        heap.ndarray(10**9)
    with pytest.raises(InvalidArgument):
        heap.ndarray((-1, 3))
    assert heap.stats().blocks == 0


def test_buffers_of_every_kind_see_a_block() -> None:
    """The example of the README: a block is a buffer, so everything views it."""
    with memory.region("4M", hugepages="try") as m, Tlsf().open(m) as a:
        block = a.alloc(4096, align=64)
        array = numpy.frombuffer(block, "f4")
        array[:] = 1.5
        assert memoryview(block).cast("f")[1023] == 1.5
        same = numpy.from_dlpack(array)
        assert same.ctypes.data == block.address
        with pytest.raises(BufferError):
            block.free()
        del array, same
        block.free()


# ---- the handler ------------------------------------------------------------------------------

def test_all_new_arrays_come_from_the_heap(heap: Heap) -> None:
    """Whatever makes an array; outside of the block it is as before."""
    with numpy_handler(heap) as arrays:
        made = [numpy.empty(10), numpy.zeros((100, 100), "i2"), numpy.arange(1000.0) * 2,
                numpy.array([1, 2, 3]), numpy.frombuffer(bytes(800)).copy(), numpy.empty(0)]
        made[2].resize(50_000, refcheck=False)
        made[0].sort()
    after = numpy.empty(10)
    assert all(inside(array, heap) for array in made)
    assert all(array.ctypes.data % 64 == 0 for array in made)
    assert not inside(after, heap)
    assert not made[1].any()
    assert made[2][:1000].tolist() == [2.0 * i for i in range(1000)]
    assert not made[2][1000:].any()
    assert arrays.live == len(made)
    assert heap.stats().blocks == len(made)
    heap.check()
    made.clear()
    assert arrays.live == heap.stats().blocks == 0
    assert arrays.made >= 6


def test_arrays_from_before_go_back_where_they_came_from(heap: Heap) -> None:
    """Each array knows its own allocator, in both directions."""
    before = numpy.empty(1000)
    with numpy_handler(heap) as arrays:
        before.resize(2000, refcheck=False)
        assert not inside(before, heap)
        del before
        inner = numpy.empty(1000)
    inner.resize(2000, refcheck=False)
    assert inside(inner, heap)
    del inner
    assert arrays.live == 0


def test_a_heap_with_arrays_cannot_be_closed(heap: Heap) -> None:
    """No array may point at memory that is gone."""
    with numpy_handler(heap):
        array = numpy.ones(1000)
    with pytest.raises(BufferError, match="1 arrays or objects still live in the heap"):
        heap.close()
    assert array.sum() == 1000
    del array
    heap.close()


def test_arrays_keep_a_forgotten_heap_alive() -> None:
    """The heap and its region live as long as the last array."""
    heap = Tlsf().open("1M")
    with numpy_handler(heap):
        array = numpy.arange(1000)
    gone = weakref.ref(heap)
    del heap
    gc.collect()
    assert gone() is not None
    assert array.sum() == 499500
    with pytest.warns(ResourceWarning):
        del array
        gc.collect()
    assert gone() is None


def test_handlers_nest_and_end_in_order(heap: Heap) -> None:
    """The innermost one counts; leaving restores the one outside."""
    with Tlsf().open("1M") as other, numpy_handler(heap) as outer:
        first = numpy.empty(5)
        with numpy_handler(other) as inner:
            second = numpy.empty(5)
        third = numpy.empty(5)
        assert (outer.live, inner.live) == (2, 1)
        del first, second, third


def test_an_exception_ends_the_handler(heap: Heap) -> None:
    """As every context manager does."""
    with pytest.raises(RuntimeError), numpy_handler(heap):
        raise RuntimeError
    assert not inside(numpy.empty(10), heap)


def test_a_full_heap_is_a_memory_error(heap: Heap) -> None:
    """NumPy's own exception; the heap goes on."""
    with numpy_handler(heap) as arrays:
        with pytest.raises(MemoryError):
            numpy.empty(10**8)
        assert arrays.refused == 1
        assert numpy.ones(10).sum() == 10


def test_the_handler_is_of_this_context_alone(heap: Heap) -> None:
    """Threads start without it, tasks and copied contexts with it."""
    found = []
    with numpy_handler(heap):
        copied = contextvars.copy_context()
        thread = threading.Thread(target=lambda: found.append(inside(numpy.empty(9), heap)))
        thread.start()
        thread.join()

        async def task() -> bool:
            await asyncio.sleep(0)
            return inside(numpy.empty(9), heap)

        found.append(asyncio.run(task()))
    found.append(copied.run(lambda: inside(numpy.empty(9), heap)))
    assert found == [False, True, True]


def test_a_context_that_outlives_the_heap_gets_nothing() -> None:
    """A closed heap is never touched: NumPy reports that there is no memory."""
    with Tlsf().open("1M") as heap, numpy_handler(heap):
        copied = contextvars.copy_context()
    with pytest.raises(MemoryError):
        copied.run(numpy.empty, 10)


@pytest.mark.parametrize("record", [Shard, Tlsf], ids=lambda record: record.id)
def test_threads_hammer_one_heap(record: type) -> None:
    """Arrays are made and freed in many threads at once, also by others than their makers."""
    with record().open("32M") as heap:
        heap._share()
        basket: list[numpy.ndarray] = []
        lock = threading.Lock()
        wrong = []

        def work(seed: int) -> None:
            random = numpy.random.default_rng(seed)
            with numpy_handler(heap):
                for turn in range(300):
                    array = numpy.full(int(random.integers(1, 3000)), seed, "i4")
                    block = heap.alloc(int(random.integers(1, 500)))
                    with lock:
                        basket.append(array)
                        other = basket.pop(int(random.integers(len(basket))))
                    if not (other == other[0]).all():
                        wrong.append(turn)
                    del array, other
                    block.free()

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert heap.stats().blocks == len(basket)
        basket.clear()
        heap.check()
        assert heap.stats().blocks == 0


def test_blocks_that_have_no_size_of_their_own() -> None:
    """An allocator without ``unsized`` gets it back on free; bump keeps what it gave."""
    with Bump().open("1M") as heap:
        with numpy_handler(heap, align=4096) as arrays:
            array = numpy.arange(100)
            assert array.ctypes.data % 4096 == 0
            array.resize(200, refcheck=False)
            assert array[:100].tolist() == list(range(100))
        del array
        assert arrays.live == 0


def test_bad_alignments_and_shared_heaps_are_refused() -> None:
    """Both before NumPy sees anything."""
    with Tlsf().open("1M") as heap, pytest.raises(InvalidArgument, match="power of two up to"), \
            numpy_handler(heap, align=48):
        pass
    with memory.region("1M", shared=True) as m, Tlsf().open(m) as heap:
        with pytest.raises(NotSupported, match=r"heap\.ndarray"), numpy_handler(heap):
            pass
        array = heap.ndarray(10)
        del array


def test_without_numpy_the_error_says_what_to_do() -> None:
    """NumPy is optional: nothing else needs it."""
    code = ("import sys; sys.modules['numpy'] = None\n"
            "from unikit.alloc import Tlsf, numpy_handler\n"
            "with Tlsf().open('1M') as heap:\n"
            "    heap.alloc(10)\n"
            "    for use in (lambda: heap.ndarray(3), numpy_handler(heap).__enter__):\n"
            "        try: use()\n"
            "        except ImportError as error: print(error)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "NumPy is not installed; get it with: pip install numpy\n" * 2


def test_arrays_at_the_end_of_the_process_do_no_harm() -> None:
    """The interpreter may tear down in any order."""
    code = ("import numpy\nfrom unikit.alloc import Tlsf, numpy_handler\n"
            "heap = Tlsf().open('1M')\nhandler = numpy_handler(heap)\nhandler.__enter__()\n"
            "a = numpy.arange(1000)\nb = heap.ndarray(10)\nb[:] = 0\nprint(a.sum())")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "499500\n", "")
