"""Heaps that processes share: one lock, blocks passed on, deaths inside a call."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from unikit import registry
from unikit.alloc import Bump, Firstfit, Handle, Shard, SharedHeap, Tlsf, memory
from unikit.errors import AlreadyExists, InvalidArgument, Malformed, NotSupported, Panic
from unikit.ffi import load

pytestmark = pytest.mark.fast

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def region() -> Iterator[memory.Region]:
    """Shared memory of 4 MiB."""
    with memory.region("4M", shared=True) as region:
        yield region


@pytest.fixture
def heap(region: memory.Region) -> Iterator[SharedHeap]:
    """A TLSF heap in it."""
    with Tlsf().open(region) as heap:
        assert isinstance(heap, SharedHeap)
        yield heap


def join(*children: Any) -> None:
    """Wait for processes that must end well."""
    for child in children:
        child.join(60)
        assert child.exitcode == 0


# ---- blocks between processes -----------------------------------------------------------------

def reply(heap: SharedHeap, pipe: Any) -> None:
    """Take a block, free it, and give another one back."""
    with heap:
        block = heap.take(pipe.recv())
        text = bytes(block)
        block.free()
        answer = heap.alloc(100, align=256)
        answer[:] = text[::-1].ljust(100, b".")
        pipe.send(heap.give(answer))


@pytest.mark.parametrize("context", [SPAWN, FORK], ids=["spawn", "fork"])
def test_blocks_pass_from_process_to_process(heap: SharedHeap, context: Any) -> None:
    """Three numbers tell the other where it is; it is freed where it was taken."""
    here, there = multiprocessing.Pipe()
    child = context.Process(target=reply, args=(heap, there))
    child.start()
    block = heap.alloc(5)
    block[:] = b"hello"
    here.send(heap.give(block))
    with pytest.raises(ValueError, match="freed before"):
        block.free()
    answer = heap.take(here.recv())
    join(child)
    assert answer.address % 256 == 0
    assert bytes(answer).startswith(b"olleh...")
    assert heap.stats().blocks == 1
    answer.free()
    heap.check()
    assert (heap.stats().blocks, heap.stats().allocations) == (0, 2)


def test_strangers_find_the_heap_by_its_descriptor(heap: SharedHeap, region: memory.Region) -> None:
    """No relative: attached through /proc, the data found by the root."""
    table = heap.ndarray(100, "i8")
    table[:] = numpy.arange(100)
    owner = table.base
    heap.root = Handle(owner._address - region.address, 800, 64)
    code = ("import sys, numpy\nfrom unikit.alloc import Tlsf, memory\n"
            "with memory.attach(sys.argv[1]) as m, Tlsf().open(m) as heap:\n"
            "    view = heap.view(heap.root)\n"
            "    array = numpy.frombuffer(view, 'i8')\n"
            "    print(array.sum(), heap.facts.maker)\n"
            "    array[0] = 50\n"
            "    try: heap.close()\n"
            "    except BufferError as error: print(error)\n"
            "    del array\n    view.release()\n"
            "    heap.root = None\n")
    done = subprocess.run([sys.executable, "-c", code, f"/proc/{os.getpid()}/fd/{region.fd}"],
                          capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        f"4950 {os.getpid()}",
        "there are views of blocks of other processes; release them first"], done.stderr
    assert table[0] == 50
    assert heap.root is None
    del table, owner


def test_wrong_handles_are_refused(heap: SharedHeap) -> None:
    """What is no block, is outside, or is owned here already."""
    block = heap.alloc(100)
    good = heap.handle(block)
    with pytest.raises(InvalidArgument, match="this process's already"):
        heap.take(good)
    for wrong in (Handle(good.offset + 16, 10, 0), Handle(-5, 10, 0), Handle(0, 0, 0),
                  Handle(good.offset, 1 << 40, 0), Handle(good.offset, -1, 0)):
        with pytest.raises(InvalidArgument, match="no such block"):
            heap.take(wrong)
    with pytest.raises(InvalidArgument, match="no such block"):
        heap.view(Handle(1 << 30, 1, 0))
    view = memoryview(block)
    with pytest.raises(BufferError):
        heap.give(block)
    view.release()


# ---- opening -----------------------------------------------------------------------------------

def test_the_second_opening_finds_the_first(region: memory.Region) -> None:
    """In one process too; closing one side leaves the other and all blocks."""
    with Tlsf().open(region) as one:
        block = one.alloc(100)
        with Tlsf().open(region) as two:
            assert two.stats().blocks == 1
            view = two.view(one.handle(block))
            view[0] = 9
            view.release()
        assert block[0] == 9
    with Tlsf().open(region) as again:
        assert again.stats().blocks == 1


def test_another_allocator_is_refused(heap: SharedHeap, region: memory.Region) -> None:
    """Two processes that disagree must not meet in one heap."""
    for other in (Firstfit(), Tlsf(pool="1M")):
        with pytest.raises(InvalidArgument, match="open it with the same record"):
            other.open(region)


def test_memory_at_another_address_is_no_heap(heap: SharedHeap, region: memory.Region) -> None:
    """The data may be read there, but what an allocator keeps are addresses."""
    with memory.attach(region.fd, anywhere=True) as other:
        assert other.address != region.address
        with pytest.raises(AlreadyExists, match="at another address"):
            Tlsf().open(other)


def test_memory_with_something_else_in_it_is_refused(region: memory.Region) -> None:
    """A heap is not made over what others wrote."""
    region[8:12] = b"\xff" * 4
    with pytest.raises(Malformed):
        Tlsf().open(region)


def test_a_layer_cannot_be_shared(region: memory.Region) -> None:
    """It keeps the address of the code below it."""
    guard = pytest.importorskip("unikit.alloc.guard")
    with pytest.raises(NotSupported, match="addresses of code"):
        guard.Guard(Tlsf()).open(region)


def test_code_elsewhere_is_refused_where_it_matters(region: memory.Region) -> None:
    """A heap with addresses of code in it would run into nothing in another process."""
    code = ("import sys\nfrom unikit.alloc import Shard, memory\n"
            "with memory.attach(sys.argv[1]) as m:\n"
            "    try: Shard().open(m)\n"
            "    except NotImplementedError as error: print(error)\n")
    with Shard().open(region) as heap:
        heap.alloc(10)
        done = subprocess.run([sys.executable, "-c", code, f"/proc/{os.getpid()}/fd/{region.fd}"],
                              capture_output=True, text=True, check=False)
        assert "keeps addresses of its code" in done.stdout, done.stderr
        heap.check()


def open_and_count(region: memory.Region, barrier: Any) -> None:
    """Open at the same time as the others, and allocate."""
    barrier.wait(30)
    with Tlsf().open(region) as heap:
        for _ in range(100):
            heap.give(heap.alloc(16))


def test_all_open_at_once_and_one_makes_it(region: memory.Region) -> None:
    """Nobody's allocations are lost under a second making."""
    barrier = FORK.Barrier(4)
    children = [FORK.Process(target=open_and_count, args=(region, barrier)) for _ in range(4)]
    for child in children:
        child.start()
    join(*children)
    with Tlsf().open(region) as heap:
        assert heap.stats().blocks == 400
        heap.check()


# ---- many at once ------------------------------------------------------------------------------

def hammer(heap: SharedHeap, seed: int, turns: int) -> None:
    """Allocate, fill, verify and free."""
    randomness = random.Random(seed)
    blocks: list[Any] = []
    mark = bytes([seed])
    for _ in range(turns):
        if blocks and randomness.random() < 0.5:
            block = blocks.pop(randomness.randrange(len(blocks)))
            assert bytes(block) == mark * len(block)
            block.free()
        else:
            block = heap.alloc(randomness.randrange(1, 2000), 1 << randomness.randrange(5, 9))
            block[:] = mark * len(block)
            blocks.append(block)
    for block in blocks:
        block.free()


@pytest.mark.parametrize("record", [each for each in registry.components("alloc")
                                    if "layer" not in each.features],
                         ids=lambda record: record.id)
def test_processes_and_threads_hammer_one_heap(region: memory.Region, record: type) -> None:
    """No block is given to two, and the heap is sound and empty at the end."""
    turns = 300 if record is Bump else 1500
    with record().open(region) as heap:
        children = [FORK.Process(target=hammer, args=(heap, seed, turns)) for seed in (1, 2)]
        if record.relocatable:
            children.append(SPAWN.Process(target=hammer, args=(heap, 3, turns)))
        for child in children:
            child.start()
        threads = [threading.Thread(target=hammer, args=(heap, seed, turns)) for seed in (4, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        join(*children)
        heap.check()
        assert heap.stats().blocks == 0
        assert heap.facts.recoveries == 0


# ---- deaths ------------------------------------------------------------------------------------

def die_with_the_lock(heap: SharedHeap, pipe: Any, damage: bool) -> None:
    """Hold the lock until killed; write into the allocator's own words if so told."""
    with heap.lock():
        block = heap.alloc(100)
        if damage:
            with memoryview(heap._region) as view:
                at = block.address - heap._region.address
                view[at - 8:at + 4096] = b"\xee" * 4104
        pipe.send("held")
        time.sleep(60)


@pytest.mark.parametrize("damage", [False, True], ids=["sound", "damaged"])
def test_a_death_with_the_lock_is_found_and_judged(heap: SharedHeap, damage: bool) -> None:
    """The lock does not stay taken; a sound heap goes on, a damaged one is refused for ever."""
    keep = heap.alloc(50)
    here, there = multiprocessing.Pipe()
    child = FORK.Process(target=die_with_the_lock, args=(heap, there, damage))
    child.start()
    assert here.recv() == "held"
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    if damage:
        for use in (lambda: heap.alloc(10), keep.free, heap.stats, heap.lock().__enter__):
            with pytest.raises(Panic, match=f"broken: process {child.pid} died"):
                use()
        assert (heap.facts.broken_by, heap.facts.recoveries) == (child.pid, 0)
    else:
        assert heap.alloc(10)
        assert (heap.facts.broken_by, heap.facts.recoveries) == (0, 1)
        assert heap.stats().blocks == 3  # what the dead one had stays
        heap.check()


def forever(heap: SharedHeap) -> None:
    """Hammer until killed."""
    while True:
        hammer(heap, 7, 1000)


def test_deaths_at_any_moment_never_hang_or_spread(region: memory.Region) -> None:
    """Killed between any two instructions: the others go on, or are told that it is broken."""
    randomness = random.Random(4)
    outcomes = {"sound": 0, "broken": 0}
    for _ in range(12):
        with memory.region("4M", shared=True) as fresh, Tlsf().open(fresh) as heap:
            child = FORK.Process(target=forever, args=(heap,))
            child.start()
            end = time.monotonic() + 0.02 + randomness.random() * 0.05
            while time.monotonic() < end:
                heap.alloc(100).free()
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            try:
                for _ in range(100):
                    heap.alloc(100).free()
                heap.check()
                outcomes["sound"] += 1
            except Panic:
                assert heap.facts.broken_by == child.pid
                outcomes["broken"] += 1
            with contextlib.suppress(BufferError):
                heap.close()
    assert outcomes["sound"] > 0


def test_a_panic_inside_breaks_the_heap_for_all(heap: SharedHeap) -> None:
    """A double free is found by the allocator; nobody goes on with what it left."""
    block = heap.alloc(100)
    with heap.lock():
        heap._blocks.clear()
        handle = heap.handle(block)
    address = heap._region.address + handle.offset
    free = heap._lib.kit_alloc_free
    pointer = heap._ffi.cast("void *", address)
    load.check(free(heap._live(), pointer, 100, 0), "freeing")
    with pytest.raises(Panic, match="not a block in use"):
        load.check(free(heap._live(), pointer, 100, 0), "freeing")
    with pytest.raises(Panic, match="broken: process"):
        heap.alloc(1)
    assert heap.facts.broken_by == os.getpid()


def test_the_lock_keeps_others_out(heap: SharedHeap) -> None:
    """Several calls are one step for all others, threads of this process among them."""
    order = []

    def other() -> None:
        order.append(len(heap.alloc(10)))

    thread = threading.Thread(target=other)
    with heap.lock():
        thread.start()
        time.sleep(0.05)
        order.append(heap.stats().blocks)
    thread.join()
    assert order == [0, 10]
