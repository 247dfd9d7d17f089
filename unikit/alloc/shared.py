"""Heaps that several processes use at once, in memory they share."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from unikit.alloc.blocks import Block, Window
from unikit.alloc.heap import Heap
from unikit.alloc.memory import Region
from unikit.errors import CODES, AlreadyExists, InvalidArgument, NotSupported
from unikit.ffi import load

if TYPE_CHECKING:
    from unikit.alloc.api import Allocator

_SHARED = 2  # kind of gate: host_gate.h


class Handle(NamedTuple):
    """What one process tells another about a block: three numbers, to be sent by any means.

    :ivar offset: of the block from the start of the region.
    :ivar size: its bytes.
    :ivar align: the alignment that was asked for.
    """

    offset: int
    size: int
    align: int


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What became of a shared heap.

    :ivar recoveries: deaths of processes inside a call, after which the heap was found sound.
    :ivar broken_by: the process that left it unsound; 0: it is sound as far as is known.
    :ivar maker: the process that opened it first.
    """

    recoveries: int
    broken_by: int
    maker: int


class SharedHeap(Heap):
    """A heap that several processes use at once; made by :meth:`unikit.alloc.Allocator.open`.

    The first process that opens the allocator over a shared region makes the heap; all others that
    open the same allocator with the same options over it, attached, find it. Allocators hold
    addresses, so the region must lie at one address in all of them, as it does after
    :func:`unikit.alloc.memory.attach`. One that keeps addresses of its code too (``shard``) is for
    processes that are forks of each other. Each call takes a lock of all processes and threads.

    A block belongs to the process that allocated it until it passes it on: :meth:`give` here and
    :meth:`take` there. :meth:`view` shows a block without owning it. Blocks of a process that ends
    stay allocated; closing a heap lets go of this process's side alone.

    If a process dies inside a call, the next call of any other checks the whole heap: if it is
    sound, all go on (:attr:`facts`), at the cost of what the dead one had; if not, every call
    raises :class:`~unikit.errors.Panic`. After a fork both processes have the heap, and what the
    Python objects of the parent own is the parent's. Passes by ``multiprocessing`` as an argument.
    """

    _joins = True

    def __init__(self, record: Allocator, region: Region) -> None:
        self._side: Any = None
        self._windows: weakref.WeakSet[Window] = weakref.WeakSet()
        self._region = region
        if len(record.layers()) != 1:
            raise NotSupported(f"sharing {record.id} between processes: a layer keeps addresses of "
                               "code, which differ from process to process")
        super().__init__(record, region)

    def _open(self, memory: Any) -> Any:
        ffi, lib = load.extension("unikit.alloc._host")
        self._options = load.options(self.record)
        side, inner = ffi.new("struct kit_shared **"), ffi.new("struct kit_alloc **")
        code = lib.kit_shared_open(load.component(self.record), self._options,
                                   len(self.record.encoded()), self.record.relocatable, memory,
                                   len(memory), side, inner)
        self._check_open(code, len(memory))
        self._side = ffi.gc(side[0], lib.kit_shared_close)
        gate = ffi.new("struct kit_alloc **")
        load.check(lib.kit_gate_new(inner[0], _SHARED, self._side, gate), "sharing a heap")
        self._gate = ffi.gc(gate[0], lib.kit_gate_delete)
        return self._gate

    def _check_open(self, code: int, size: int) -> None:
        doing = f"opening {self.record.id} in {size} shared bytes"
        kind = CODES.get(code)
        if kind is AlreadyExists:
            raise AlreadyExists(f"{doing}: other processes have it at another address; attach "
                                "without anywhere=True, before something else takes the address")
        if kind is InvalidArgument:
            raise InvalidArgument(f"{doing}: another allocator or other options made this heap; "
                                  "open it with the same record")
        if kind is NotSupported:
            raise NotSupported(f"{doing}: it keeps addresses of its code, which lies elsewhere in "
                               "the process that made this heap; fork from that one, or take "
                               "another allocator, as alloc.tlsf")
        load.check(code, doing)

    # ---- blocks between processes ------------------------------------------------------------

    def handle(self, block: Block) -> Handle:
        """Return what another process needs to :meth:`view` a block that stays this one's.

        :raises ValueError: it was freed before, or belongs to another heap.
        """
        address = self._own_address(block)
        return Handle(address - self._region.address, len(block), block.align)

    def give(self, block: Block) -> Handle:
        """Pass a block on: it is nobody's until a process takes the handle.

        :raises BufferError: others hold views of it.
        :raises ValueError: it was freed before, or belongs to another heap.
        """
        handle = self.handle(block)
        self._revoke([block])
        return handle

    def take(self, handle: Handle) -> Block:
        """Own a block that another process has given.

        :raises InvalidArgument: there is no such block, as far as the allocator can tell, or it is
            this process's already.
        """
        address = self._address_of(handle)
        if address in self._blocks:
            raise InvalidArgument(f"taking {handle}: the block is this process's already")
        self._serial += 1
        block = Block(self, address, handle.size, handle.align, self._serial)
        self._blocks[address] = block
        return block

    def view(self, handle: Handle) -> memoryview:
        """Return a view of a block that another process owns and must not free meanwhile.

        :raises InvalidArgument: as for :meth:`take`.
        """
        window = Window(self._address_of(handle), handle.size)
        self._windows.add(window)
        return memoryview(window)

    @property
    def root(self) -> Handle | None:
        """A handle kept in the heap itself, for all to find; ``None`` at first."""
        ffi, _ = load.extension("unikit.alloc._host")
        offset, size, align = self._read(ffi.new("struct kit_shared_facts *")).root
        return Handle(offset, size, align) if offset else None

    @root.setter
    def root(self, handle: Handle | None) -> None:
        _, lib = load.extension("unikit.alloc._host")
        self._live()
        load.check(lib.kit_shared_set_root(self._side, list(handle or (0, 0, 0))),
                   "setting the root of a shared heap")

    # ---- the whole -----------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[SharedHeap]:
        """Keep all other processes and threads out over several calls, made by this thread.

        :raises Panic: the heap is broken.
        """
        _, lib = load.extension("unikit.alloc._host")
        gate = self._live()
        load.check(lib.kit_gate_hold(gate), "locking a shared heap")
        try:
            yield self
        finally:
            load.check(lib.kit_gate_release(gate), "unlocking a shared heap")

    @property
    def facts(self) -> Facts:
        """What became of the heap; readable even when it is broken."""
        ffi, _ = load.extension("unikit.alloc._host")
        found = self._read(ffi.new("struct kit_shared_facts *"))
        return Facts(found.recoveries, found.broken_by, found.maker)

    def close(self) -> None:
        """Let go of this process's side; blocks stay allocated. Closing twice does nothing.

        :raises BufferError: others hold views of a block; the heap stays open.
        """
        if any(window._views for window in self._windows):
            raise BufferError("there are views of blocks of other processes; release them first")
        super().close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Let ``multiprocessing`` pass the heap to the processes it starts."""
        return _reopen, (self.record, self._region)

    def _read(self, out: Any) -> Any:
        _, lib = load.extension("unikit.alloc._host")
        self._live()
        load.check(lib.kit_shared_read(self._side, out), "reading a shared heap's header")
        return out

    def _address_of(self, handle: Handle) -> int:
        address = self._region.address + handle.offset
        inside = handle.offset > 0 and handle.offset + handle.size <= len(self._region)
        if not inside or handle.size < 0 or not self._known(address):
            raise InvalidArgument(f"{handle} of a shared heap: there is no such block")
        return address

    def _known(self, address: int) -> bool:
        return "owns" not in self.record.features or self.owns(address)

    def _leave(self) -> None:
        super()._leave()
        self._windows.clear()
        self._side = None


def _reopen(record: Allocator, region: Region) -> SharedHeap:
    heap = SharedHeap(record, region)
    heap._own = region
    return heap
