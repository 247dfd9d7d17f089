"""``alloc.tlsf``: two-level segregated fit."""

from __future__ import annotations

from unikit.alloc.api import Allocator
from unikit.component import component, option


@component
class Tlsf(Allocator):
    """Two-level segregated fit: constant time for every operation, low fragmentation.

    Good fit, immediate coalescing by border tags, realloc in place in both directions, further
    regions. 8 bytes per block, at least 32; opening costs the same for any size of memory. A block
    freed twice panics as long as its memory has not been given out anew.
    """

    id = "alloc.tlsf"
    relocatable = True
    features = frozenset({"reuses", "bounded", "owns", "walk", "add_region", "unsized",
                          "resize", "pages", "zeroed"})
    sources = ("tlsf.c", "pages.c", "views.c")
    reference = ("Masmano, Ripoll, Crespo, Real, TLSF: a new dynamic memory allocator for "
                 "real-time systems, ECRTS 2004")

    pool: int | str = option(0, "bytes to manage; 0: all there is", kind="size", unit="bytes")
