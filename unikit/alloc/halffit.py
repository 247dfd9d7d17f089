"""``alloc.halffit``: half-fit, constant time with a bound on memory."""

from __future__ import annotations

from unikit.alloc.api import Allocator
from unikit.component import component


@component
class Halffit(Allocator):
    """Half-fit: constant time for every operation, and a bound on the memory a program can need.

    Blocks are powers of two, a request takes one from a list of which every block fits, free blocks
    join at once. It wastes more than others on ordinary programs, and can be trusted in the worst
    case: :meth:`worst_memory` says how much memory always suffices. 8 bytes per block, at least 32.
    A block freed twice panics as long as its memory has not been given out anew.
    """

    id = "alloc.halffit"
    relocatable = True
    features = frozenset({"reuses", "bounded", "owns", "walk", "unsized", "resize"})
    sources = ("halffit.c",)
    reference = ("Ogasawara, An algorithm with constant execution time for dynamic storage "
                 "allocation, RTCSA 1995; Herter, Timing-predictable memory allocation in hard "
                 "real-time systems, 2014")
