"""The interpreter's own objects in a heap: installed, full, stopped, removed, at the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

HEAD = """
import gc, sys, threading
from unikit.alloc import Shard, Tlsf, Firstfit, memory, python_allocator
from unikit.errors import AlreadyExists, InvalidArgument, NotSupported

def program(size=3000):
    words = {str(i): [i] * (i % 50) for i in range(size)}
    text = " ".join(sorted(words)) * 3
    assert sum(len(v) for v in words.values()) == sum(i % 50 for i in range(size))
    return len(text)

want = program()
"""


def run(code: str) -> str:
    """Run a program of its own: a hook is for the whole process. Its output."""
    done = subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", HEAD + code],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("record", ["Tlsf()", "Shard()", "Firstfit(blocks=100000)"])
@pytest.mark.parametrize("domains", [("mem", "obj"), ("raw", "mem", "obj"), ("obj",)], ids="+".join)
def test_objects_come_from_the_heap_and_go_back(record: str, domains: tuple[str, ...]) -> None:
    """The program computes the same; the heap is sound, whatever lives there still."""
    run(f"""
with python_allocator({record}, domains={domains}, size="64M") as hook:
    assert program() == want
    made = hook.made
    kept = [object() for _ in range(100)]
assert made > 3000, made
assert hook.live >= 100
assert not hook.closed
hook.heap.check()
assert hook.heap.stats().blocks == hook.live
before = hook.live
del kept
gc.collect()
assert hook.live <= before - 100
assert program() == want
assert hook.made - made < 200
""")


def test_it_can_be_taken_out_when_nothing_lives_there() -> None:
    """The heap is empty then, and closes; taking it out twice does nothing."""
    run("""
with Tlsf().open("16M") as heap:
    heap.stats()                     # what it needs once must not lie in the heap
    with python_allocator(heap, domains=("mem",)) as hook:
        numbers = [0] * 100_000      # the items of lists are of this domain
        assert heap.stats().used > 800_000
        numbers += numbers
        del numbers
    assert hook.closed and hook.live == 0 and hook.made >= 1, hook
    hook.close()
    assert heap.stats().blocks == 0
    after = [0] * 100_000
    assert heap.stats().blocks == 0
""")


def test_kept_objects_refuse_closing_the_heap() -> None:
    """Neither the hook nor its heap goes away under a living object."""
    run("""
heap = Tlsf().open("16M")
hook = python_allocator(heap)
kept = [str(i) * 10 for i in range(1000)]
hook.stop()
for close in (hook.close, heap.close):
    try:
        close()
    except BufferError as error:
        assert "still live in the heap" in str(error), error
    else:
        raise AssertionError
assert kept[500] == "500" * 10
assert repr(hook).startswith("<PythonAllocator alloc.tlsf: mem, obj, ")
""")


def test_a_full_heap_spills_to_the_allocator_before() -> None:
    """The program goes on; what grew too large moves out."""
    run("""
with python_allocator(Tlsf(), size="64K") as hook:
    assert program() == want
    assert hook.spilled > 1000
    assert hook.made > 100
    grown = []
    for i in range(100_000):
        grown.append(i)
assert sum(grown) == 100_000 * 99_999 // 2
hook.heap.check()
""")


def test_only_blocks_up_to_the_limit() -> None:
    """Larger ones stay with the interpreter's own allocator."""
    run("""
with python_allocator(Tlsf(), size="16M", largest="256") as hook:
    before = hook.heap.stats().used
    large = [bytes(100_000) for _ in range(50)]
    assert hook.heap.stats().used - before < 1 << 20
""")


@pytest.mark.parametrize("record", ["Tlsf()", "Shard()"])
def test_threads_and_a_heap_that_is_used_besides(record: str) -> None:
    """Python allocates under its lock, the heap's own calls run without it: both at once."""
    run(f"""
with {record}.open("128M", threads=True) as heap:
    hook = python_allocator(heap, domains=("raw", "mem", "obj"))
    results = []
    def work():
        for _ in range(3):
            blocks = [heap.alloc(i) for i in range(300)]
            results.append(program(500) == program(500))
            for block in blocks:
                block.free()
            heap.stats()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert results == [True] * 12
    hook.stop()
    heap.check()
    heap.walk()
    assert hook.live
    heap.close = lambda: None
""")


def test_hooks_come_out_in_reverse_order() -> None:
    """The inner one is still called by the outer."""
    run("""
with Tlsf().open("16M") as one, Tlsf().open("16M") as two:
    one.stats(); two.stats()
    first = python_allocator(one, domains=("mem",))
    second = python_allocator(two, domains=("mem",))
    numbers = [0] * 100_000
    assert two.stats().used > 800_000 > one.stats().used
    del numbers
    first.stop(); second.stop()
    try:
        first.close()
    except AlreadyExists as error:
        assert "taking Python's allocator out" in str(error)
    else:
        raise AssertionError
    second.close()
    assert second.closed and two.stats().blocks == 0
    assert first.live == one.stats().blocks  # what the second hook needed when it was made
    one.close = lambda: None
    assert program() == want
""")


def test_a_fork_has_a_sound_copy() -> None:
    """Other threads are inside the heap at the moment of the fork."""
    run("""
import os, warnings
warnings.simplefilter("ignore")
with python_allocator(Shard(), domains=("raw", "mem", "obj"), size="64M") as hook:
    stop = threading.Event()
    def work():
        while not stop.is_set():
            program(50)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    for _ in range(10):
        pid = os.fork()
        if not pid:
            ok = program() == want
            os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads: thread.join()
""")


def test_what_cannot_be_hooked_is_refused() -> None:
    """Each with the reason, and nothing is left installed or mapped."""
    run("""
def refused(kind, text, *arguments, **more):
    try:
        python_allocator(*arguments, **more)
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)

for domains in ((), ("all",), ("obj", "obj")):
    refused(InvalidArgument, "give some of raw, mem, obj", Tlsf(), domains=domains)
refused(InvalidArgument, "not a size", Tlsf(), largest="big")
with memory.region("1M", shared=True) as m, Tlsf().open(m) as heap:
    refused(NotSupported, "other processes see", heap)
with Tlsf().open("1M") as heap:
    heap.add_region(bytearray(1 << 20))
    refused(InvalidArgument, "it has 2 regions", heap)
with Tlsf().open("1M") as heap:
    hook = python_allocator(heap, largest=1)
    refused(AlreadyExists, "serves Python's allocator already", heap)
    try:
        heap.add_region(bytearray(1 << 20))
    except NotSupported:
        pass
    else:
        raise AssertionError
    hook.stop()
    if hook.live:
        heap.close = lambda: None
    else:
        hook.close()
        hook.close()
""")


def test_the_end_of_the_process_takes_all_with_it() -> None:
    """Objects in the heap are torn down after everything else, by code that is still there."""
    run("""
hook = python_allocator(Tlsf(), domains=("raw", "mem", "obj"), size="64M")
import json, decimal, http.client, asyncio
class Cycle:
    def __del__(self):
        self.text = str(self)
keep = [Cycle() for _ in range(1000)]
keep.append(keep)
async def main():
    await asyncio.sleep(0.001)
asyncio.run(main())
""")
