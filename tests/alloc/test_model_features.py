"""Random use of every optional operation against a brute-force model, check() after every step."""

from __future__ import annotations

from typing import Any

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

from unikit.alloc import Allocator, Buddy, Bump, Firstfit, Halffit, Shard, Slab, Tlsf, region
from unikit.ffi import load

pytestmark = pytest.mark.fast

SIZES = st.one_of(st.integers(0, 64), st.integers(0, 600), st.integers(0, 9000))
ALIGNS = st.sampled_from([0, 0, 16, 64, 512])
BORDER, PAGE, UNKNOWN = 1 << 17, 4096, 2**64 - 1
FIRST, SECOND = 150_000, 60_000
"""Bytes of the memory that is opened, and of the region that may be added."""


class Model(RuleBasedStateMachine):
    """Blocks as a dictionary from address to (size, alignment, contents)."""

    record: Allocator

    @initialize(fresh=st.booleans())
    def open(self, fresh: bool) -> None:
        """Open at the same distance from a large border each time, so that runs can be replayed."""
        self.ffi, self.lib = load.abi()
        self.memory = region(3 * BORDER + FIRST + SECOND, hugepages="never")
        self.start = self.ffi.from_buffer(self.memory)
        base = int(self.ffi.cast("uintptr_t", self.start))
        self.base = base + -base % BORDER
        self.second = self.base + 2 * BORDER
        if not fresh:
            self.memory[:] = b"\xc3" * len(self.memory)
        out = self.ffi.new("struct kit_alloc **")
        component = load.component(self.record)
        assert component.open(load.options(self.record), self.at(self.base), FIRST, out) == 0
        self.faces = [out[0]]
        self.blocks: dict[int, tuple[int, int, bytes]] = {}
        self.serial, self.given, self.grown = 0, 0, False
        if "pages" in self.record.features:
            self.decommit = self.ffi.callback("void(void *, void *, size_t)", self.on_decommit)
            self.pages = self.ffi.new("struct kit_alloc_pages *", {
                "decommit": self.decommit, "page": PAGE, "fresh": int(fresh)})
            assert self.lib.kit_alloc_source(out[0], self.pages) == 0

    def at(self, address: int) -> Any:
        """Return an address as a pointer."""
        return self.ffi.cast("void *", address)

    def read(self, address: int, size: int) -> bytes:
        """Return what is in memory."""
        return bytes(self.ffi.buffer(self.at(address), size))

    def on_decommit(self, _context: Any, start: Any, size: int) -> None:
        """Take whole pages back; none may be part of a block."""
        first = int(self.ffi.cast("uintptr_t", start))
        assert first % PAGE == 0 and size % PAGE == 0
        assert all(place + length <= first or place >= first + size
                   for place, (length, _, _) in self.blocks.items())
        self.ffi.memmove(start, bytes(size), size)
        self.given += size

    def keep(self, address: int, size: int, align: int) -> None:
        """Enter a block that was given out, and fill it."""
        self.serial += 1
        data = (self.serial.to_bytes(4, "little") * (size // 4 + 1))[:size]
        assert address % max(align, 16) == 0
        assert self.base <= address and (address + size <= self.base + FIRST or (
            self.grown and self.second <= address <= self.second + SECOND - size))
        self.ffi.memmove(self.at(address), data, size)
        self.blocks[address] = (size, align, data)

    def face(self, data: st.DataObject) -> Any:
        """Choose any face."""
        return data.draw(st.sampled_from(range(len(self.faces)))) if len(self.faces) > 1 else 0

    def hides(self, data: st.DataObject) -> bool:
        """Decide whether the component is not told a size."""
        return "unsized" in self.record.features and data.draw(st.booleans())

    @rule(data=st.data(), size=SIZES, align=ALIGNS, zeroed=st.booleans())
    def alloc(self, data: st.DataObject, size: int, align: int, zeroed: bool) -> None:
        """Allocate through any face, perhaps zeroed."""
        face = self.faces[self.face(data)]
        zeroed = zeroed and "zeroed" in self.record.features
        call = self.lib.kit_alloc_zeroed if zeroed else self.lib.kit_alloc_alloc
        address = int(self.ffi.cast("uintptr_t", call(face, size, align)))
        if address:
            assert not zeroed or not any(self.read(address, size))
            self.keep(address, size, align)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        """Give any block back through any face."""
        address = data.draw(st.sampled_from(list(self.blocks)))
        size, align, _ = self.blocks.pop(address)
        self.lib.kit_alloc_free(self.faces[self.face(data)], self.at(address),
                                UNKNOWN if self.hides(data) else size, align)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), size=SIZES, here=st.booleans())
    def resize(self, data: st.DataObject, size: int, here: bool) -> None:
        """Make any block larger or smaller, in place or wherever there is room."""
        address = data.draw(st.sampled_from(list(self.blocks)))
        old, align, held = self.blocks[address]
        face, hidden = self.faces[self.face(data)], self.hides(data)
        told = UNKNOWN if hidden else old
        if here and "resize" in self.record.features:
            done = self.lib.kit_alloc_resize(face, self.at(address), told, size, align)
            assert done or size > old
            moved = address if done else 0
        else:
            align = 0 if hidden else align
            moved = int(self.ffi.cast("uintptr_t", self.lib.kit_alloc_realloc(
                face, self.at(address), told, size, align)))
        if moved:
            del self.blocks[address]
            assert self.read(moved, min(old, size)) == held[:size]
            self.keep(moved, size, align)

    @precondition(lambda self: "pages" in self.record.features)
    @rule(keep=st.sampled_from([None, 0, 4096, 30_000]))
    def give_back(self, keep: int | None) -> None:
        """Let a tick pass, or trim; what is said must be what was seen."""
        self.given = 0
        said = (self.lib.kit_alloc_tick(self.faces[0]) if keep is None
                else self.lib.kit_alloc_trim(self.faces[0], keep))
        assert said == self.given

    @precondition(lambda self: "threads" in self.record.features and len(self.faces) < 4)
    @rule()
    def attach(self) -> None:
        """Take one more face."""
        out = self.ffi.new("struct kit_alloc **")
        if self.lib.kit_alloc_attach(self.faces[0], out) == 0:
            self.faces.append(out[0])

    @precondition(lambda self: len(getattr(self, "faces", [])) > 1)
    @rule()
    def detach(self) -> None:
        """Give the last face back; its blocks stay."""
        self.lib.kit_alloc_detach(self.faces.pop())

    @precondition(lambda self: "add_region" in self.record.features and not self.grown)
    @rule()
    def add_region(self) -> None:
        """Let it have more memory, apart from what it has."""
        self.grown = self.lib.kit_alloc_add_region(self.faces[0], self.at(self.second), SECOND) == 0

    @precondition(lambda self: "scopes" in self.record.features)
    @rule(sizes=st.lists(SIZES, max_size=5))
    def scope(self, sizes: list[int]) -> None:
        """Allocate after a mark; releasing frees exactly that."""
        mark = self.lib.kit_alloc_mark(self.faces[0])
        for size in sizes:
            block = self.lib.kit_alloc_alloc(self.faces[0], size, 0)
            if block:
                self.ffi.memmove(block, bytes(size), size)
        self.lib.kit_alloc_release(self.faces[0], mark)

    @invariant()
    def agrees(self) -> None:
        """Compare with the model."""
        if not hasattr(self, "blocks"):
            return
        assert self.lib.kit_alloc_check(self.faces[0]) == 0
        spans = sorted((place, max(size, 1)) for place, (size, _, _) in self.blocks.items())
        for (low, length), (high, _) in zip(spans, spans[1:], strict=False):
            assert low + length <= high
        for place, (size, _, data) in self.blocks.items():
            assert self.read(place, size) == data
        stats = self.ffi.new("struct kit_alloc_stats *")
        self.lib.kit_alloc_stats(self.faces[0], stats)
        assert stats.blocks == len(self.blocks)
        assert sum(size for size, _, _ in self.blocks.values()) <= stats.used <= stats.capacity


RECORDS = [Buddy(), Buddy(exact=False), Bump(), Firstfit(), Halffit(), Shard(), Slab(), Tlsf()]


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_every_operation_agrees_with_the_model(record: Allocator) -> None:
    """No sequence of all that a component can do tells it from the model."""
    class Machine(Model):
        pass
    Machine.record = record
    run_state_machine_as_test(Machine, settings=settings(
        max_examples=25, stateful_step_count=40, deadline=None,
        suppress_health_check=list(HealthCheck)))
