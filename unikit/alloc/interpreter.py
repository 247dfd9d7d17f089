"""The objects of this very interpreter in a heap (``PyMem_SetAllocator``)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from unikit.alloc.heap import Heap
from unikit.alloc.tenant import Tenant
from unikit.component import parse_size
from unikit.errors import AlreadyExists, InvalidArgument, NotSupported, WouldBlock
from unikit.ffi import load

if TYPE_CHECKING:
    from unikit.alloc.api import Allocator

Domain = Literal["raw", "mem", "obj"]

_DOMAINS: dict[Domain, int] = {"raw": 1, "mem": 2, "obj": 4}
_installed: list[PythonAllocator] = []


class PythonAllocator(Tenant):
    """The interpreter as a user of a heap; made by :func:`python_allocator`.

    Usable in ``with``, which ends with :meth:`stop`, and :meth:`close` if nothing lives in the
    heap any more.

    :ivar heap: where the objects are.
    :ivar domains: of the interpreter's allocator that were replaced.
    """

    fixed = True

    def __init__(self, heap: Heap, domains: tuple[Domain, ...], largest: int, own: bool) -> None:
        if not own:
            heap._share()  # others may call it while the interpreter allocates
        super().__init__(heap, align=0, crowd="raw" in domains)
        self.domains = domains
        self._own = own
        if own and "raw" in domains:
            heap._share()
            self._c.alloc = heap._live()
        region = heap._regions[0]
        low = int(self._ffi.cast("uintptr_t", region))
        high = low + (heap._pages.reserved if heap._pages else len(region))
        out = self._ffi.new("struct kit_python_hook **")
        # What these need for themselves must not lie in the heap.
        self._stop, self._remove = self._lib.kit_python_stop, self._lib.kit_python_remove
        self._spilled = self._lib.kit_python_spilled
        which = sum(_DOMAINS[domain] for domain in domains)
        self._hook: Any = None
        _installed.append(self)
        try:
            load.check(self._lib.kit_python_install(self._c, low, high, largest, which, out),
                       "hooking Python's allocator")
        except BaseException:
            _installed.remove(self)
            raise
        self._hook = out[0]

    @property
    def spilled(self) -> int:
        """Blocks that the interpreter's own allocator had to give: too large, or no room left."""
        return int(self._spilled(self._hook)) if self._hook else 0

    @property
    def closed(self) -> bool:
        """Whether the hook was taken out."""
        return not self._hook

    def stop(self) -> int:
        """Put nothing new into the heap; what lives there stays. Returns how many blocks do."""
        if self._hook:
            self._stop(self._hook)
        return self.live

    def close(self) -> None:
        """Take the hook out, and close the heap if it was made for it. Twice does nothing.

        :raises BufferError: objects live in the heap; nothing new gets there, they stay usable.
        :raises AlreadyExists: another hook was put in front of this one; take it out first.
        """
        if not self._hook:
            return
        try:
            load.check(self._remove(self._hook), "taking Python's allocator out")
        except WouldBlock:
            raise BufferError(f"{self.live} objects still live in the heap; delete them first, or "
                              "let them be: they stay usable") from None
        self._hook = None
        self.leave()
        _installed.remove(self)
        self.heap._tenants.discard(self)
        if self._own:
            self.heap.close()

    def __enter__(self) -> PythonAllocator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        with contextlib.suppress(BufferError):
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.live} blocks live"
        return f"<PythonAllocator {self.heap.record.id}: {', '.join(self.domains)}, {state}>"


def python_allocator(source: Heap | Allocator, *, domains: Sequence[Domain] = ("mem", "obj"),
                     size: int | str = "256M", largest: int | str = 0) -> PythonAllocator:
    """Let this interpreter take the memory of its objects from a heap, from now on.

    Blocks are told by their address: those made before stay with the allocator they came from, and
    what the heap cannot hold goes there too, so the program goes on when the heap is full. The hook
    may be stopped at any time and taken out when nothing lives in the heap; at the end of the
    process it is simply left. One hook after another is removed in reverse order.

    The domains ``mem`` and ``obj`` are used under the interpreter's lock, so a heap of its own
    needs none; ``raw`` is used by any thread, and then there is one, as for a heap that is given.

    :param source: a heap (with one region), or a record, which is then opened over memory of its
        own.
    :param domains: of ``raw``, ``mem`` and ``obj``; see the C-API manual, Memory Management.
    :param size: of the memory for a record.
    :param largest: bytes of the largest block to put there; 0: any.
    :raises InvalidArgument: no or another domain, or a heap with several regions.
    :raises NotSupported: the heap is shared between processes.
    :raises OutOfMemory: there is no memory of that size.
    """
    chosen = tuple(domains)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(_DOMAINS):
        raise InvalidArgument(f"hooking the domains {chosen}: give some of raw, mem, obj, each "
                              "once")
    try:
        limit = parse_size(largest) or (1 << 63) - 1
    except ValueError as error:
        raise InvalidArgument(f"hooking Python's allocator: {error}") from None
    own = not isinstance(source, Heap)
    heap = source if isinstance(source, Heap) else source.open(size)
    try:
        _check(heap)
        return PythonAllocator(heap, chosen, limit, own)
    except BaseException:
        if own:
            heap.close()
        raise


def _check(heap: Heap) -> None:
    heap._live()
    if any(each.heap is heap for each in _installed):
        raise AlreadyExists(f"{heap!r} serves Python's allocator already")
    if len(heap._regions) != 1:
        raise InvalidArgument(f"hooking Python's allocator onto {heap!r}: it has "
                              f"{len(heap._regions)} regions; give one that has one")
    if heap._pages is not None and heap._pages.kind != "anonymous":
        raise NotSupported("Python's objects in memory that other processes see: give a heap over "
                           "private memory")
