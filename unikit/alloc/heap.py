"""A live allocator in this process: blocks that are buffers, statistics, checks."""

from __future__ import annotations

import dataclasses
import json
import operator
import warnings
import weakref
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unikit.alloc.blocks import Batch, Block, Extent, Mark, Owned, Stats
from unikit.alloc.opened import Opened
from unikit.alloc.sites import Leak, Sites
from unikit.errors import InvalidArgument, NotSupported, OutOfMemory, Panic
from unikit.ffi import load

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from unikit.alloc.api import Allocator
    from unikit.alloc.tenant import Tenant

__all__ = ["Batch", "Block", "Extent", "Heap", "Mark", "Stats"]


class Heap(Opened):
    """An allocator over a region of memory; made by :meth:`unikit.alloc.Allocator.open`.

    A call costs some 500 ns beside the allocator's own work. Not for two threads at a time unless
    it was opened with ``threads=True``: then each call takes a lock, or each thread has a face of
    its own where the allocator has the feature ``threads`` (and :meth:`check`, :meth:`walk` and
    :meth:`owns` want that no other thread uses it meanwhile). After a fork the child has a copy of
    the heap over private memory, which is sound whatever other threads did meanwhile if it was
    opened for threads; for memory that is not private there is
    :class:`unikit.alloc.shared.SharedHeap`. Weak references to heaps and blocks work.
    """

    def __init__(self, record: Allocator, region: WriteableBuffer | int | str,
                 threads: bool = False) -> None:
        self._blocks: dict[int, Block] = {}
        self._batches: dict[int, Batch] = {}
        self._owned: weakref.WeakValueDictionary[int, Owned] = weakref.WeakValueDictionary()
        self._tenants: weakref.WeakSet[Tenant] = weakref.WeakSet()
        self._serial = 0
        self._sites = Sites() if "sites" in record.features else None
        _, host = load.extension("unikit.alloc._host")
        self._word_alloc, self._word_free = host.kit_word_alloc, host.kit_word_free
        super().__init__(record, region, threads)

    # ---- blocks --------------------------------------------------------------------------

    def alloc(self, size: int, align: int = 0) -> Block:
        """Allocate a block with undefined contents.

        :param size: bytes, >= 0.
        :param align: a power of two; 0 means 16, the least there is.
        :raises OutOfMemory: there is no free memory of that size and alignment.
        :raises InvalidArgument: size or alignment is not allowed.
        """
        if align.__class__ is not int or size.__class__ is not int or not 0 <= size < 1 << 63 \
                or align:
            size, align = self._check_request(size, align)
        address = self._take(size, align)
        block = self._blocks[address] = Block(self, address, size, align, self._serial)
        return block

    def alloc_many(self, sizes: Iterable[int], align: int = 0) -> Batch:
        """Allocate many blocks by one call, all or none.

        :param sizes: bytes of each, >= 0; an ``array`` of 64-bit words is taken as it is.
        :param align: of each, as for :meth:`alloc`.
        :raises OutOfMemory: there is no room for all of them; none was allocated.
        :raises InvalidArgument: a size or the alignment is not allowed.

        >>> from unikit.alloc import Tlsf
        >>> with Tlsf().open("1M") as heap, heap.alloc_many([100, 200, 300]) as batch:
        ...     [len(block) for block in batch]
        [100, 200, 300]
        """
        _, align = self._check_request(0, align)
        try:
            wanted = array("Q", sizes)
        except (TypeError, OverflowError) as error:
            raise InvalidArgument(f"allocating a batch: {error}; give sizes >= 0") from error
        if wanted and max(wanted) >= 1 << 63:
            self._check_request(max(wanted), align)
        made = array("Q", bytes(8 * len(wanted)))
        ptr, (ffi, lib) = self._live(), load.extension("unikit.alloc._host")
        count = lib.kit_batch_alloc(ptr, ffi.from_buffer("uint64_t[]", wanted), len(wanted), align,
                                    ffi.from_buffer("uint64_t[]", made))
        if count < len(wanted):
            self._refuse(f"allocating {len(wanted)} blocks, of which there was room for {count}")
        self._serial += 1
        batch = Batch(self, made, wanted, align, self._serial)
        self._batches[batch._serial] = batch
        return batch

    def ndarray(self, shape: int | tuple[int, ...], dtype: Any = "f8", *, align: int = 64,
                order: str = "C") -> Any:
        """Return an uninitialised ``numpy.ndarray`` in this heap.

        Its memory is given back when the array and all its views are gone; until then the heap
        cannot be closed. From the first array on the heap may be used by several threads, since
        any thread may be the last that knows an array.

        :param shape: as for ``numpy.empty``.
        :param dtype: any type without Python objects in it.
        :param align: of the first element.
        :raises OutOfMemory: as for :meth:`alloc`.
        :raises InvalidArgument: the type holds Python objects, or an argument is not allowed.
        :raises ImportError: NumPy is not installed.
        """
        from unikit.alloc.arrays import make
        return make(self, shape, dtype, align, order)

    def free_many(self, batch: Batch) -> None:
        """Give the blocks of a batch back.

        :raises ValueError: they were freed before, or belong to another heap.
        :raises BufferError: others hold views of one.
        """
        ptr = self._live()
        if batch._heap is not self:
            raise ValueError(f"{batch!r} belongs to another heap")
        if self._batches.get(batch._serial) is not batch:
            raise ValueError("the batch was freed before")
        addresses, sizes = batch._addresses, batch._sizes
        self._revoke([batch])
        ffi, lib = load.extension("unikit.alloc._host")
        load.check(lib.kit_batch_free(ptr, ffi.from_buffer("uint64_t[]", sizes), len(sizes),
                                      batch.align, ffi.from_buffer("uint64_t[]", addresses)),
                   f"freeing {len(sizes)} blocks")

    def free(self, block: Block) -> None:
        """Give a block back.

        :raises ValueError: it was freed before, or belongs to another heap.
        :raises BufferError: others hold views of it.
        """
        ptr, address = self._live(), self._own_address(block)
        size = block._size
        block._bind(0, 0)
        if self._blocks.pop(address, None) is not block:
            raise ValueError("the block was freed before")
        if self._sites is not None:
            self._note_caller()
        if code := self._word_free(ptr, address, size, block._align):
            self._check(code, f"freeing {size} bytes at {address:#x}")

    def realloc(self, block: Block, size: int) -> Block:
        """Change the size of a block, in place where possible.

        The contents up to the smaller size stay.

        :returns: the same object, perhaps at another address.
        :raises OutOfMemory: no room; the block is as before.
        :raises ValueError: it was freed before, or belongs to another heap.
        :raises BufferError: others hold views of it.
        """
        ptr, address = self._live(), self._own_address(block)
        size, _ = self._check_request(size, block.align)
        block._bind(address, len(block))  # BufferError before anything moves
        self._note_caller()
        moved = self._lib.kit_alloc_realloc(ptr, self._ffi.cast("void *", address), len(block),
                                            size, block.align)
        if not moved:
            self._refuse(f"resizing a block of {len(block)} bytes to {size}")
        del self._blocks[address]
        block._bind(int(self._ffi.cast("uintptr_t", moved)), size)
        self._blocks[block.address] = block
        return block

    def owns(self, address: int | Block) -> bool:
        """Say whether an address is that of a block in use.

        :raises NotSupported: the allocator does not know.
        """
        self._needs("owns")
        number = address.address if isinstance(address, Block) else address
        return bool(self._lib.kit_alloc_owns(self._live(), self._ffi.cast("void *", number)))

    # ---- the whole -------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return the allocator's counters; O(1) for most allocators."""
        out = self._ffi.new("struct kit_alloc_stats *")
        self._check(self._lib.kit_alloc_stats(self._live(), out), "reading statistics")
        return Stats(**{field.name: int(getattr(out, field.name))
                        for field in dataclasses.fields(Stats)})

    def json(self) -> str:
        """Return all that is known of the heap as one JSON object: for logs and dashboards.

        ``component``, ``options``, ``features``, ``threads`` (``"one"``, ``"lock"`` or
        ``"faces"``), ``pages`` (of the region, where it is one), the counters of :class:`Stats`,
        and ``fragmentation``: the part of the free memory that is outside its largest piece.
        """
        stats = dataclasses.asdict(self.stats())
        free = stats["capacity"] - stats["used"]
        options = {spec.name: getattr(self.record, spec.name) for spec in self.record.options
                   if spec.kind != "component"}
        kind = "one" if self._gate is None else \
            "faces" if "threads" in self.record.features else "lock"
        return json.dumps({
            "component": self.record.id, "layers": [each.id for each in self.record.layers()],
            "options": options, "features": sorted(self.record.features), "threads": kind,
            "regions": [len(memory) for memory in self._regions],
            "pages": self._pages.pages if self._pages else None, **stats,
            "fragmentation": round(1 - min(1.0, stats["largest_free"] / free), 4) if free else 0.0})

    def check(self) -> None:
        """Verify every invariant of the allocator.

        :raises Corrupt: one is broken: the heap was overwritten, or the allocator is wrong.
        """
        load.check(self._lib.kit_alloc_check(self._live()), f"checking {self.record.id}")

    def walk(self) -> list[Extent]:
        """Return all stretches in address order, free ones too.

        :raises NotSupported: the allocator cannot tell.
        """
        self._needs("walk")
        ptr, (ffi, lib) = self._live(), load.extension("unikit.alloc._host")
        count, room = ffi.new("size_t *"), -1
        while count[0] > room:  # in C: a callback would run Python while the heap is locked
            room = count[0]
            out = array("Q", bytes(24 * room))
            load.check(lib.kit_batch_walk(ptr, ffi.from_buffer("struct kit_extent[]", out), room,
                                          count), f"walking {self.record.id}")
        return [Extent(out[at], out[at + 1], bool(out[at + 2]))
                for at in range(0, 3 * count[0], 3)]

    def leaks(self) -> list[Leak]:
        """Return the blocks in use, oldest first, each with who asked for it.

        >>> from unikit.alloc import Guard
        >>> with Guard().open("64K") as heap:
        ...     block = heap.alloc(100)
        ...     [leak.size for leak in heap.leaks()]
        [100]

        :raises NotSupported: the allocator does not know: put ``alloc.guard`` over it.
        """
        self._needs("leaks")
        self._live()
        found: list[Leak] = []
        sites = self._sites or Sites()

        def visit(_argument: Any, block: Any) -> int:
            found.append(Leak(int(self._ffi.cast("uintptr_t", block.block)), block.size,
                              block.align, sites.name(block.site), block.serial))
            return 0

        callback = self._ffi.callback("int(void *, const struct kit_alloc_live *)", visit)
        load.check(self._lib.kit_alloc_live(self._opened, callback, self._ffi.NULL),
                   f"asking {self.record.id} what is in use")
        return found

    def trace(self) -> bytes:
        """Return what was asked of the heap so far, as the bytes of a trace file.

        :func:`unikit.alloc.lab.inside.of` gives the same as a trace to look into.

        :raises NotSupported: the heap records nothing: put ``alloc.trace`` over the allocator.
        """
        self._needs("records")
        self._live()
        start = self._ffi.new("void const **")
        size = self._lib.kit_alloc_recorded(self._opened, start)
        return bytes(self._ffi.buffer(start[0], size))

    def site_name(self, site: int) -> str:
        """Return the line of Python that a call site of this heap stands for, or its address."""
        return self._sites.name(site) if self._sites is not None else f"{site:#x}"

    def fail_at(self, n: int) -> int:
        """Have the n-th request from now on refused, once; 0: none.

        :returns: how many requests there were since the last such call.
        :raises NotSupported: the allocator cannot: put ``alloc.guard`` over it.
        """
        self._needs("fails")
        self._live()
        return int(self._lib.kit_alloc_fail_at(self._opened, n))

    def blocks(self) -> Iterator[Block]:
        """Iterate over the blocks made by this object and not freed, oldest first."""
        return iter(sorted(self._blocks.values(), key=lambda block: block._serial))

    def add_region(self, region: WriteableBuffer) -> None:
        """Manage a further writable buffer as well; it is kept alive and pinned.

        :raises NotSupported: the allocator cannot.
        :raises OutOfMemory: it is too small to be of use.
        """
        self._needs("add_region")
        if any(tenant.fixed for tenant in self._tenants):
            raise NotSupported("a heap with Python's objects in it keeps the region that it has")
        memory = self._pin(region)
        try:
            load.check(self._lib.kit_alloc_add_region(self._live(), memory, len(memory)),
                       f"adding {len(memory)} bytes to {self.record.id}")
        except BaseException:
            self._ffi.release(self._regions.pop())
            self._spans.pop()
            raise

    def tick(self) -> int:
        """Let a unit of time pass: memory that lay free for some of them goes back to the system.

        How long a unit is, is yours to choose; a heap never looks at a clock. Steps are bounded.

        :returns: bytes given back.
        :raises NotSupported: the allocator cannot, or the memory is no private region.
        """
        self._needs_source()
        return int(self._lib.kit_alloc_tick(self._live()))

    def trim(self, keep: int = 0) -> int:
        """Give free memory back to the system, all but ``keep`` bytes.

        :returns: bytes given back.
        :raises NotSupported: the allocator cannot, or the memory is no private region.

        >>> from unikit.alloc import Tlsf
        >>> with Tlsf().open("64M") as heap:
        ...     block = heap.alloc(32 << 20)
        ...     block[:] = bytes(len(block))
        ...     block.free()
        ...     heap.trim() >= 30 << 20
        True
        """
        self._needs_source()
        return int(self._lib.kit_alloc_trim(self._live(), keep))

    def mark(self) -> Mark:
        """Return the present state for :meth:`release`.

        :raises NotSupported: the allocator has no scopes.
        """
        self._needs("scopes")
        return Mark(int(self._lib.kit_alloc_mark(self._live())), self._serial)

    def release(self, mark: Mark) -> None:
        """Free all blocks allocated since the mark at once.

        :raises BufferError: others hold views of one of them; nothing was freed.
        """
        self._needs("scopes")
        ptr = self._live()
        gone: list[Block | Batch] = [each for holders in (self._blocks, self._batches)
                                     for each in holders.values() if each._serial > mark.serial]
        if any(each._serial > mark.serial for each in self._owned.values()):
            raise BufferError("arrays that were made since the mark still live")
        self._revoke(gone)
        load.check(self._lib.kit_alloc_release(ptr, mark.value), "releasing a mark")

    @contextmanager
    def scope(self) -> Iterator[Heap]:
        """Free on leaving what was allocated inside.

        >>> from unikit.alloc import Bump
        >>> with Bump().open("64K") as heap:
        ...     with heap.scope():
        ...         block = heap.alloc(1000)
        ...     heap.stats().used
        0
        """
        mark = self.mark()
        try:
            yield self
        finally:
            self.release(mark)

    # ---- life ------------------------------------------------------------------------------

    def close(self) -> None:
        """Let the memory go; all blocks are gone with it. Closing twice does nothing.

        :raises BufferError: others hold views of a block; the heap stays open.
        """
        if self._ptr is None:
            return
        live = len(self._owned) + sum(tenant.live for tenant in self._tenants)
        if live:
            raise BufferError(f"{live} arrays or objects still live in the heap; delete them first")
        self._revoke([*self._blocks.values(), *self._batches.values()])
        self._leave()

    def _leave(self) -> None:
        for tenant in self._tenants:
            tenant.leave()
        super()._leave()

    def __enter__(self) -> Heap:
        self._live()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_ptr", None) is not None:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        if self._ptr is None:
            return f"<Heap {self.record.id}: closed>"
        stats = self.stats()
        return (f"<Heap {self.record.id}: {stats.used} of {stats.capacity} bytes used in "
                f"{stats.blocks} blocks>")

    # ---- inside ----------------------------------------------------------------------------

    def _take(self, size: int, align: int) -> int:
        """Allocate; the address."""
        ptr = self._live()
        if self._sites is not None:
            self._note_caller()
        address: int = self._word_alloc(ptr, size, align)
        if not address:
            self._refuse(f"allocating {size} bytes")
        self._serial += 1
        return address

    def _reclaim(self, memory: Owned) -> None:
        """Take back what an array had; the last reference is gone, in whatever thread."""
        address, size = memory._address, memory._size
        memory._bind(0, 0)
        if self._ptr is not None:
            load.check(self._word_free(self._ptr, address, size, memory._align),
                       f"freeing {size} bytes")

    def _own_address(self, block: Block) -> int:
        address = block._address
        if not address:
            raise ValueError("the block was freed before")
        if block._heap is not self:
            raise ValueError(f"{block!r} belongs to another heap")
        return address

    def _usable_size(self, block: Block) -> int:
        address = self._own_address(block)
        return int(self._lib.kit_alloc_usable_size(
            self._live(), self._ffi.cast("void *", address), len(block)))

    def _revoke(self, gone: list[Block | Batch]) -> None:
        held = sum(1 for each in gone if each._views)
        if held:
            raise BufferError(f"{held} of {len(gone)} blocks have views that others hold; "
                              "release them first")
        for each in gone:
            if isinstance(each, Block):
                del self._blocks[each.address]
            else:
                del self._batches[each._serial]
            each._drop()

    @staticmethod
    def _check_request(size: int, align: int) -> tuple[int, int]:
        try:
            size, align = operator.index(size), operator.index(align)
        except TypeError:
            raise InvalidArgument(f"a block of {size!r} bytes aligned to {align!r}: give whole "
                                  "numbers") from None
        if not 0 <= size < 1 << 63:
            raise InvalidArgument(f"a block of {size} bytes: the size must lie in 0...2**63 - 1")
        if align < 0 or align & (align - 1) or align >= 1 << 63:
            raise InvalidArgument(f"a block aligned to {align}: give a power of two, or 0")
        return size, align

    def _note_caller(self) -> None:
        """Say to a guard who is behind the next call; with several threads nobody can."""
        if self._sites is not None and self._gate is None:
            self._lib.kit_alloc_caller(self._opened, self._sites.here())

    def _check(self, code: int, doing: str) -> None:
        try:
            load.check(code, doing)
        except Panic as panic:
            raise panic if self._sites is None else self._sites.named(panic) from None

    def _refuse(self, doing: str) -> None:
        try:
            load.check_panic(doing)
        except Panic as panic:
            raise panic if self._sites is None else self._sites.named(panic) from None
        stats = self.stats()
        raise OutOfMemory(f"{doing}: {self.record.id} has {stats.capacity - stats.used} bytes "
                          f"left, at most {stats.largest_free} in one piece")
