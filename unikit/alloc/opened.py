"""An allocator opened over memory of this process: what a heap stands on."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from unikit.alloc.memory import HUGE_PAGE, Region
from unikit.alloc.memory import region as map_region
from unikit.errors import InvalidArgument, NotSupported
from unikit.ffi import load

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from unikit.alloc.api import Allocator

_LOCK, _FACES = 0, 1  # kinds of gates: host_gate.h

_live: weakref.WeakSet[Opened] = weakref.WeakSet()
"""What is open in this process: no two may manage the same memory."""


class Opened:
    """The component, the memory it has and the pages behind it; blocks are the heap's matter.

    :ivar record: the allocator.
    """

    _joins = False  # it may find another heap in its memory, and becomes one with it

    def __init__(self, record: Allocator, region: WriteableBuffer | int | str,
                 threads: bool) -> None:
        self._ptr: Any = None
        self._gate: Any = None
        self._opened: Any = None
        self.record = record
        self._own: Region | None = None
        self._source: Any = None
        self._ffi, self._lib = load.abi()
        self._regions: list[Any] = []
        self._spans: list[tuple[int, int]] = []
        if isinstance(region, (int, str)):
            region = self._own = map_region(region)
        self._pages = region if isinstance(region, Region) else None
        try:
            self._ptr = self._open(self._pin(region))
            if threads:
                self._share()
        except BaseException:
            self._ptr = None
            self._unpin()
            raise

    @property
    def closed(self) -> bool:
        """Whether the heap was closed."""
        return self._ptr is None

    def _open(self, memory: Any) -> Any:
        layers = self.record.layers()
        self._choices, self._options = load.choices(layers)
        out = self._ffi.new("struct kit_alloc **")
        at = self._ffi.new("size_t *")
        code = self._lib.kit_alloc_compose(self._choices, len(layers), memory, len(memory), out, at)
        load.check(code, f"opening {layers[at[0]].id} in {len(memory)} bytes")
        self._opened = out[0]
        if "pages" in self.record.features and self._pages and self._pages.kind == "anonymous":
            self._connect(out[0], self._pages)
        return out[0]

    def _connect(self, ptr: Any, region: Region) -> None:
        """Let the allocator give pages back to the kernel, and grow into what is reserved.

        What it grows into is its own: the region is exported as it was.
        """
        ffi, lib = load.extension("unikit.alloc._host")
        flags, transparent = region._growth()
        start, end = region.address, region.address + region.reserved
        self._source = ffi.new("struct kit_region_pages *", {
            "next": start + region._mapped, "flags": flags, "transparent": transparent,
            "limit": end if "add_region" in self.record.features else start})
        self._source.pages.page = HUGE_PAGE if transparent else region.page_size
        self._source.pages.fresh = region is self._own  # nobody can have written there
        lib.kit_region_pages_fill(self._source)
        load.check(lib.kit_heap_source(ptr, self._source), "connecting a heap to its pages")
        if self._source.pages.map:
            source, read = self._source, lib.kit_region_pages_next
            region._grower = lambda: int(read(source)) - start

    def _share(self) -> None:
        """Make it usable by several threads; no call may be under way."""
        if self._gate is not None:
            return
        ffi, lib = load.extension("unikit.alloc._host")
        out = ffi.new("struct kit_alloc **")
        kind = _FACES if "threads" in self.record.features else _LOCK
        load.check(lib.kit_gate_new(self._live(), kind, ffi.NULL, out), "making a heap thread-safe")
        self._gate = ffi.gc(out[0], lib.kit_gate_delete)
        self._ptr = self._gate

    def _live(self) -> Any:
        if self._ptr is None:
            raise ValueError("the heap is closed")
        return self._ptr

    def _leave(self) -> None:
        """Let go of everything; nothing refers to the memory any more."""
        self._ptr = None
        if self._pages is not None:
            self._pages._shrink()
        if self._gate is not None:
            load.extension("unikit.alloc._host")[0].release(self._gate)
            self._gate = None
        self._unpin()

    def _pin(self, region: WriteableBuffer) -> Any:
        try:
            memory = self._ffi.from_buffer("char[]", region, require_writable=True)
        except (TypeError, ValueError, BufferError) as error:
            raise InvalidArgument(f"using {type(region).__name__} as memory: {error}; give a "
                                  "writable contiguous buffer") from error
        start = int(self._ffi.cast("uintptr_t", memory))
        for other in [] if self._joins else list(_live):
            if any(at < start + len(memory) and start < end for at, end in other._spans):
                self._ffi.release(memory)
                raise InvalidArgument(f"using {len(memory)} bytes at {start:#x} as memory: another "
                                      f"heap of {other.record.id} lives there; close it first, or "
                                      "give each a part of its own")
        self._regions.append(memory)
        self._spans.append((start, start + len(memory)))
        _live.add(self)
        return memory

    def _unpin(self) -> None:
        self._spans.clear()
        while self._regions:
            self._ffi.release(self._regions.pop())
        if self._own is not None:
            self._own.close()

    def _needs(self, feature: str) -> None:
        if feature not in self.record.features:
            raise NotSupported(f"{self.record.id} has no {feature}; it has "
                               f"{', '.join(sorted(self.record.features)) or 'no features'}")

    def _needs_source(self) -> None:
        self._needs("pages")
        if self._source is None:
            raise NotSupported("giving memory back: the heap stands in memory that is no private "
                               "region; make it with unikit.alloc.region()")
