"""The record base of all allocators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unikit.component import Component

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from unikit.alloc.heap import Heap


class Allocator(Component):
    """Base of every allocator's record; ``features`` are those of ``alloc.h`` in lower case.

    A record is a choice; :meth:`open` makes it live in this process.
    """

    def open(self, region: WriteableBuffer | int | str) -> Heap:
        """Open the allocator over memory of this process.

        :param region: any writable contiguous buffer (:func:`unikit.alloc.region`, ``bytearray``,
            ``mmap``), which the heap keeps alive and pinned until it is closed; or a size, for
            memory of the heap's own.
        :raises OutOfMemory: the memory is too small for this allocator.
        :raises InvalidArgument: the buffer is not writable and contiguous.

        >>> from unikit.alloc import Tlsf
        >>> with Tlsf().open("1M") as heap:
        ...     block = heap.alloc(100)
        ...     block[:5] = b"hello"
        ...     bytes(block[:5])
        b'hello'
        """
        from unikit.alloc.heap import Heap
        return Heap(self, region)
