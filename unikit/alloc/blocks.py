"""What a heap gives out: blocks, batches of blocks, memory of arrays; and what it tells."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from unikit.ffi.buffer import Buffer

if TYPE_CHECKING:
    from unikit.alloc.heap import Heap


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

    Everything that takes buffers views it without a copy: ``numpy.frombuffer``,
    ``torch.frombuffer``, ``struct``, sockets.

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

    def _drop(self) -> None:
        """Forget the memory; there are no views."""
        self._bind(0, 0)

    def __enter__(self) -> Block:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._address:
            self.free()

    def __repr__(self) -> str:
        if not self._address:
            return "<Block: freed>"
        return f"<Block: {self._size} bytes at {self._address:#x}>"


class Window(Buffer):
    """A stretch of a heap that is shown and not owned."""

    __slots__ = ("__weakref__",)

    def __init__(self, address: int, size: int) -> None:
        self._bind(address, size)


class Batch:
    """Many blocks of a heap by one call; made by :meth:`Heap.alloc_many`.

    ``batch[i]`` is a view of the i-th block; the blocks live until the batch is freed or the heap
    is closed. Usable in ``with``, which frees them.

    :ivar addresses: of the blocks, as a read-only ``memoryview`` of 64-bit words.
    :ivar sizes: of the blocks, likewise.
    """

    __slots__ = ("__weakref__", "_addresses", "_align", "_heap", "_serial", "_sizes", "_windows")

    def __init__(self, heap: Heap, addresses: array[int], sizes: array[int], align: int,
                 serial: int) -> None:
        self._heap = heap
        self._addresses = addresses
        self._sizes = sizes
        self._align = align
        self._serial = serial
        self._windows: dict[int, Window] = {}

    @property
    def addresses(self) -> memoryview:
        """Where the blocks are in this process; empty after they were freed."""
        return memoryview(self._addresses).toreadonly()

    @property
    def sizes(self) -> memoryview:
        """Bytes of each block; empty after they were freed."""
        return memoryview(self._sizes).toreadonly()

    @property
    def align(self) -> int:
        """The alignment that was asked for; 0: the minimal one."""
        return self._align

    def free(self) -> None:
        """Give all blocks back.

        :raises ValueError: they were freed before.
        :raises BufferError: others hold views of one.
        """
        self._heap.free_many(self)

    def __len__(self) -> int:
        return len(self._addresses)

    def __getitem__(self, index: int) -> memoryview:
        if not -len(self) <= index < len(self):
            raise IndexError(f"block {index} of a batch of {len(self)}")
        window = self._windows.get(index % len(self))
        if window is None:
            window = Window(self._addresses[index], self._sizes[index])
            self._windows[index % len(self)] = window
        return memoryview(window)

    def __iter__(self) -> Iterator[memoryview]:
        return (self[index] for index in range(len(self)))

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._addresses:
            self.free()

    def __repr__(self) -> str:
        if not self._addresses:
            return "<Batch: empty or freed>"
        return f"<Batch: {len(self)} blocks, {sum(self._sizes)} bytes>"

    @property
    def _views(self) -> int:
        return sum(window._views for window in self._windows.values())

    def _drop(self) -> None:
        """Forget the blocks; there are no views."""
        self._windows.clear()
        self._addresses, self._sizes = array("Q"), array("Q")


class Owned(Buffer):
    """The memory of an array: a block that is given back when nothing refers to it any more."""

    __slots__ = ("__weakref__", "_align", "_heap", "_serial")

    def __init__(self, heap: Heap, address: int, size: int, align: int, serial: int) -> None:
        self._heap = heap
        self._align = align
        self._serial = serial
        self._bind(address, size)

    def __del__(self) -> None:
        if self._address:
            self._heap._reclaim(self)
