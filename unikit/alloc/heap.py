"""A live allocator in this process: blocks that are buffers, statistics, checks."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from unikit.alloc.memory import Region
from unikit.alloc.memory import region as map_region
from unikit.errors import InvalidArgument, NotSupported, OutOfMemory
from unikit.ffi import load
from unikit.ffi.buffer import Buffer

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from unikit.alloc.api import Allocator


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """What an allocator says about itself; sizes are bytes.

    :ivar capacity: could be given out if all were free.
    :ivar used: given out, rounding and padding included.
    :ivar peak: highest ``used`` so far.
    :ivar blocks: given out and not freed.
    :ivar largest_free: a request of this size and minimal alignment would succeed.
    :ivar allocations: requests that succeeded so far.
    :ivar frees: blocks given back so far.
    :ivar failures: requests refused for lack of memory so far.
    """

    capacity: int
    used: int
    peak: int
    blocks: int
    largest_free: int
    allocations: int
    frees: int
    failures: int


class Extent(NamedTuple):
    """One stretch of a heap: a block in use, or free memory.

    :ivar address: where its payload starts.
    :ivar size: bytes of payload.
    :ivar used: whether it is given out.
    """

    address: int
    size: int
    used: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A state of a heap to return to."""

    value: int
    serial: int


class Block(Buffer):
    """A block of a heap: a writable buffer (``memoryview(block)``, ``numpy.frombuffer(block)``).

    It belongs to the heap and lives until it is freed or the heap is closed, whether the Python
    object is still referred to or not. It cannot be freed or moved while others hold views of it.
    Usable in ``with``, which frees it.
    """

    __slots__ = ("__weakref__", "_align", "_heap", "_serial")

    def __init__(self, heap: Heap, address: int, size: int, align: int, serial: int) -> None:
        self._heap = heap
        self._align = align
        self._serial = serial
        self._bind(address, size)

    @property
    def address(self) -> int:
        """Where the block is in this process; 0 after it was freed."""
        return self._address

    @property
    def align(self) -> int:
        """The alignment that was asked for; 0: the minimal one."""
        return self._align

    @property
    def usable_size(self) -> int:
        """Bytes the allocator really set aside; at least ``len(block)``."""
        return self._heap._usable_size(self)

    def free(self) -> None:
        """Give the block back.

        :raises ValueError: it was freed before.
        :raises BufferError: others hold views of it.
        """
        self._heap.free(self)

    def __enter__(self) -> Block:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._address:
            self.free()

    def __repr__(self) -> str:
        if not self._address:
            return "<Block: freed>"
        return f"<Block: {self._size} bytes at {self._address:#x}>"


class Heap:
    """An allocator over a region of memory; made by :meth:`unikit.alloc.Allocator.open`.

    Not for two threads at a time. A call costs some 100 ns beside the allocator's own work.
    """

    def __init__(self, record: Allocator, region: WriteableBuffer | int | str) -> None:
        self._ptr: Any = None
        self.record = record
        self._own: Region | None = None
        self._blocks: dict[int, Block] = {}
        self._serial = 0
        self._ffi, self._lib = load.abi()
        layers = record.layers()
        self._choices, self._options = load.choices(layers)
        self._regions: list[Any] = []
        if isinstance(region, (int, str)):
            region = self._own = map_region(region)
        try:
            memory = self._pin(region)
            out = self._ffi.new("struct kit_alloc **")
            at = self._ffi.new("size_t *")
            code = self._lib.kit_alloc_compose(self._choices, len(layers), memory, len(memory),
                                               out, at)
            load.check(code, f"opening {layers[at[0]].id} in {len(memory)} bytes")
        except BaseException:
            self._unpin()
            raise
        self._ptr = out[0]

    # ---- blocks --------------------------------------------------------------------------

    def alloc(self, size: int, align: int = 0) -> Block:
        """Allocate a block with undefined contents.

        :param size: bytes, >= 0.
        :param align: a power of two; 0 means 16, the least there is.
        :raises OutOfMemory: there is no free memory of that size and alignment.
        :raises InvalidArgument: size or alignment is not allowed.
        """
        ptr = self._live()
        self._check_request(size, align)
        address = self._lib.kit_alloc_alloc(ptr, size, align)
        if not address:
            self._refuse(f"allocating {size} bytes")
        self._serial += 1
        block = Block(self, int(self._ffi.cast("uintptr_t", address)), size, align, self._serial)
        self._blocks[block.address] = block
        return block

    def free(self, block: Block) -> None:
        """Give a block back.

        :raises ValueError: it was freed before, or belongs to another heap.
        :raises BufferError: others hold views of it.
        """
        ptr, address = self._live(), self._own_address(block)
        size = len(block)
        block._bind(0, 0)
        del self._blocks[address]
        load.check(self._lib.kit_alloc_free(ptr, self._ffi.cast("void *", address), size,
                                            block.align), f"freeing {size} bytes at {address:#x}")

    def realloc(self, block: Block, size: int) -> Block:
        """Change the size of a block, in place where possible.

        The contents up to the smaller size stay.

        :returns: the same object, perhaps at another address.
        :raises OutOfMemory: no room; the block is as before.
        :raises ValueError: it was freed before, or belongs to another heap.
        :raises BufferError: others hold views of it.
        """
        ptr, address = self._live(), self._own_address(block)
        self._check_request(size, block.align)
        block._bind(address, len(block))  # BufferError before anything moves
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
        load.check(self._lib.kit_alloc_stats(self._live(), out), "reading statistics")
        return Stats(**{field.name: int(getattr(out, field.name))
                        for field in dataclasses.fields(Stats)})

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
        found: list[Extent] = []

        def visit(_argument: Any, block: Any, size: int, used: bool) -> int:
            found.append(Extent(int(self._ffi.cast("uintptr_t", block)), size, bool(used)))
            return 0

        callback = self._ffi.callback("int(void *, void *, size_t, _Bool)", visit)
        load.check(self._lib.kit_alloc_walk(self._live(), callback, self._ffi.NULL),
                   f"walking {self.record.id}")
        return found

    def blocks(self) -> Iterator[Block]:
        """Iterate over the blocks made by this object and not freed, oldest first."""
        return iter(sorted(self._blocks.values(), key=lambda block: block._serial))

    def add_region(self, region: WriteableBuffer) -> None:
        """Manage a further writable buffer as well; it is kept alive and pinned.

        :raises NotSupported: the allocator cannot.
        :raises OutOfMemory: it is too small to be of use.
        """
        self._needs("add_region")
        memory = self._pin(region)
        try:
            load.check(self._lib.kit_alloc_add_region(self._live(), memory, len(memory)),
                       f"adding {len(memory)} bytes to {self.record.id}")
        except BaseException:
            self._ffi.release(self._regions.pop())
            raise

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
        gone = [block for block in self._blocks.values() if block._serial > mark.serial]
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

    @property
    def closed(self) -> bool:
        """Whether the heap was closed."""
        return self._ptr is None

    def close(self) -> None:
        """Let the memory go; all blocks are gone with it. Closing twice does nothing.

        :raises BufferError: others hold views of a block; the heap stays open.
        """
        if self._ptr is None:
            return
        self._revoke(list(self._blocks.values()))
        self._ptr = None
        self._unpin()

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

    def _live(self) -> Any:
        if self._ptr is None:
            raise ValueError("the heap is closed")
        return self._ptr

    def _pin(self, region: WriteableBuffer) -> Any:
        try:
            memory = self._ffi.from_buffer("char[]", region, require_writable=True)
        except (TypeError, ValueError, BufferError) as error:
            raise InvalidArgument(f"using {type(region).__name__} as memory: {error}; give a "
                                  "writable contiguous buffer") from error
        self._regions.append(memory)
        return memory

    def _unpin(self) -> None:
        while self._regions:
            self._ffi.release(self._regions.pop())
        if self._own is not None:
            self._own.close()

    def _needs(self, feature: str) -> None:
        if feature not in self.record.features:
            raise NotSupported(f"{self.record.id} has no {feature}; it has "
                               f"{', '.join(sorted(self.record.features)) or 'no features'}")

    def _own_address(self, block: Block) -> int:
        address = block.address
        if not address:
            raise ValueError("the block was freed before")
        if block._heap is not self:
            raise ValueError(f"{block!r} belongs to another heap")
        return address

    def _usable_size(self, block: Block) -> int:
        address = self._own_address(block)
        return int(self._lib.kit_alloc_usable_size(
            self._live(), self._ffi.cast("void *", address), len(block)))

    def _revoke(self, blocks: list[Block]) -> None:
        held = sum(1 for block in blocks if block._views)
        if held:
            raise BufferError(f"{held} of {len(blocks)} blocks have views that others hold; "
                              "release them first")
        for block in blocks:
            del self._blocks[block.address]
            block._bind(0, 0)

    @staticmethod
    def _check_request(size: int, align: int) -> None:
        if not 0 <= size < 1 << 63:
            raise InvalidArgument(f"a block of {size} bytes: the size must lie in 0...2**63 - 1")
        if align < 0 or align & (align - 1) or align >= 1 << 63:
            raise InvalidArgument(f"a block aligned to {align}: give a power of two, or 0")

    def _refuse(self, doing: str) -> None:
        load.check_panic(doing)
        stats = self.stats()
        raise OutOfMemory(f"{doing}: {self.record.id} has {stats.capacity - stats.used} bytes "
                          f"left, at most {stats.largest_free} in one piece")
