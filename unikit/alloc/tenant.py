"""Tenants: NumPy or the interpreter as users of a heap, who know a block by its address alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unikit.errors import InvalidArgument
from unikit.ffi import load

if TYPE_CHECKING:
    from unikit.alloc.heap import Heap


class Tenant:
    """One user of a heap; keeps it open as long as it has blocks there.

    :ivar heap: the heap.
    :cvar fixed: whether the heap must keep the memory that it has.
    """

    fixed = False

    def __init__(self, heap: Heap, *, align: int, crowd: bool) -> None:
        if align < 0 or align & (align - 1) or align > 1 << 20:
            raise InvalidArgument(f"blocks aligned to {align}: give a power of two up to 1 MiB")
        self.heap = heap
        self._ffi, self._lib = load.extension("unikit.alloc._host")
        features = heap.record.features
        self._c: Any = self._ffi.new("struct kit_tenant *", {
            "alloc": heap._live(), "align": align, "zeroed": "zeroed" in features, "crowd": crowd,
            "pad": 0 if "unsized" in features else max(align, 16)})
        self._c.keeper = self._ffi.cast("void *", id(self))
        heap._tenants.add(self)

    @property
    def live(self) -> int:
        """Blocks that it has now."""
        return int(self._c.live)

    @property
    def made(self) -> int:
        """Blocks that it was given so far."""
        return int(self._c.made)

    @property
    def refused(self) -> int:
        """Requests refused for lack of memory so far."""
        return int(self._c.refused)

    def leave(self) -> None:
        """Give it nothing any more: the heap is closed."""
        self._c.alloc = self._ffi.NULL
