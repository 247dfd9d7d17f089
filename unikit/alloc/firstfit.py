"""``alloc.firstfit``: first fit over a table of blocks."""

from __future__ import annotations

from unikit.alloc.api import Allocator
from unikit.component import component, option


@component
class Firstfit(Allocator):
    """First fit over a table of blocks, as in the basic unikernel framework.

    It frees, coalesces and aligns. The descriptors lie apart from the memory, so an overrun damages
    no bookkeeping, and a free of anything that is not a block in use panics. O(table) per
    operation, 16 bytes per descriptor: small heaps with few blocks are its place.
    """

    id = "alloc.firstfit"
    relocatable = True
    features = frozenset({"reuses", "owns", "walk", "add_region", "unsized", "resize"})
    sources = ("firstfit.c",)
    for_process = {"blocks": 1 << 20}

    blocks: int = option(256, "blocks, used and free ones, that the table can describe",
                         minimum=1, maximum=1 << 20)
