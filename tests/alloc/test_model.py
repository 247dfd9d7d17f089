"""Random use of each allocator against a brute-force model, check() after every step."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from unikit.alloc import (
    Allocator,
    Block,
    Buddy,
    Bump,
    Firstfit,
    Halffit,
    Heap,
    Shard,
    Slab,
    Tlsf,
    region,
)
from unikit.errors import OutOfMemory
from unikit.ffi import load

pytestmark = pytest.mark.fast

SIZES = st.one_of(st.integers(0, 64), st.integers(0, 600), st.integers(0, 9000))
BORDER = 1 << 17
ALIGNS = st.sampled_from([0, 0, 0, 1, 16, 32, 64, 512, 4096])


class Model(RuleBasedStateMachine):
    """A dictionary from block to the bytes it must hold."""

    record: Allocator
    heap: Heap

    @initialize(offset=st.integers(0, 40), size=st.integers(20_000, 60_000))
    def open(self, offset: int, size: int) -> None:
        """Open on a part of a buffer whose surroundings must not change."""
        self.memory = region(size + 2 * BORDER, hugepages="never")
        self.memory[:] = b"\x5a" * len(self.memory)
        start = load.abi()[0].from_buffer(self.memory)
        offset += -int(load.abi()[0].cast("uintptr_t", start)) % BORDER  # so it replays exactly
        self.offset, self.size = offset, size
        self.heap = self.record.open(memoryview(self.memory)[offset:offset + size])
        self.contents: dict[Block, bytes] = {}
        self.largest = self.heap.stats().largest_free
        self.failures = 0
        self.serial = 0

    def fresh(self, size: int) -> bytes:
        """Make up contents that no other block has."""
        self.serial += 1
        return (self.serial.to_bytes(4, "little") * (size // 4 + 1))[:size]

    def refused(self, size: int, align: int) -> None:
        """Check that a refusal was true: NULL is for lack of memory alone."""
        self.failures += 1
        if align <= 16:
            assert max(size, 1) > self.heap.stats().largest_free

    @rule(size=SIZES, align=ALIGNS)
    def alloc(self, size: int, align: int) -> None:
        """Allocate and fill."""
        try:
            block = self.heap.alloc(size, align)
        except OutOfMemory:
            self.refused(size, align)
            return
        assert block.address % max(align, 16) == 0
        block[:] = data = self.fresh(size)
        self.contents[block] = data

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        """Give any block back."""
        block = data.draw(st.sampled_from(list(self.contents)))
        del self.contents[block]
        block.free()

    @precondition(lambda self: self.contents)
    @rule(data=st.data(), size=SIZES)
    def realloc(self, data: st.DataObject, size: int) -> None:
        """Resize any block; what is common stays."""
        block = data.draw(st.sampled_from(list(self.contents)))
        old = self.contents[block]
        try:
            self.heap.realloc(block, size)
        except OutOfMemory:
            self.refused(size, block.align)
            return
        assert block.address % max(block.align, 16) == 0
        common = min(size, len(old))
        assert bytes(block[:common]) == old[:common]
        block[:] = self.contents[block] = self.fresh(size)

    @precondition(lambda self: "scopes" in self.record.features)
    @rule(sizes=st.lists(SIZES, max_size=5))
    def scope(self, sizes: list[int]) -> None:
        """Allocate in a scope; leaving it restores the state."""
        before = self.heap.stats().used
        with self.heap.scope():
            for size in sizes:
                try:
                    self.heap.alloc(size)[:] = bytes(size)
                except OutOfMemory:
                    self.failures += 1
        assert self.heap.stats().used == before

    @invariant()
    def agrees(self) -> None:
        """Compare everything observable with the model."""
        if not hasattr(self, "contents"):
            return
        self.heap.check()
        for block, data in self.contents.items():
            assert bytes(block[:]) == data
        spans = sorted((block.address, max(len(block), 1)) for block in self.contents)
        for (low, length), (high, _) in zip(spans, spans[1:], strict=False):
            assert low + length <= high
        stats = self.heap.stats()
        assert stats.blocks == len(self.contents) == stats.allocations - stats.frees
        assert stats.failures == self.failures
        assert sum(len(block) for block in self.contents) <= stats.used <= stats.peak
        assert stats.peak <= stats.capacity <= self.size
        if "walk" in self.record.features:
            walked = self.heap.walk()
            assert [each.address for each in walked if each.used] == [low for low, _ in spans]
            assert sum(each.size for each in walked if each.used) == stats.used
        for outside in self.memory[:self.offset], self.memory[self.offset + self.size:]:
            assert not bytes(outside).strip(b"\x5a")

    def teardown(self) -> None:
        """Free the rest: all memory must be back."""
        if not hasattr(self, "contents"):
            return
        for block in list(self.contents):
            block.free()
        if "reuses" in self.record.features:
            assert self.heap.stats().used == 0
            assert self.heap.stats().largest_free == self.largest
        self.heap.close()


RECORDS = [Buddy(), Buddy(exact=False), Bump(), Firstfit(), Firstfit(blocks=12), Halffit(),
           Shard(), Slab(), Tlsf()]


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_agrees_with_the_model(record: Allocator) -> None:
    """No sequence of operations tells the allocator from the model."""
    class Machine(Model):
        pass
    Machine.record = record
    run_state_machine_as_test(Machine, settings=settings(
        max_examples=30, stateful_step_count=40, deadline=None,
        suppress_health_check=list(HealthCheck)))
