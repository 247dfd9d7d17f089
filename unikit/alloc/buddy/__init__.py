"""``alloc.buddy``: binary buddies with a byte-granular front."""

from __future__ import annotations

from unikit.alloc.api import Allocator
from unikit.component import component, option


@component
class Buddy(Allocator):
    """Binary buddies: slots of powers of two that split and join again, blocks of any size.

    What a request does not need of its slot is given back at once, to grains of 32 bytes. O(log
    memory) per operation and O(1) to open whatever the memory's size: what was never used is not
    laid out. Two bits per grain apart from the blocks, 1/128 of the memory; a block needs no
    header, and a free of anything else than a block in use panics. With ``exact`` off a block is
    a whole slot, and the memory that a program can ever need has a bound (:meth:`worst_memory`).
    """

    id = "alloc.buddy"
    relocatable = True
    features = frozenset({"reuses", "bounded", "owns", "walk", "unsized", "resize"})
    sources = ("buddy.c", "views.c")
    reference = ("Knowlton, A fast storage allocator, CACM 8(10), 1965; Peterson, Norman, Buddy "
                 "systems, CACM 20(6), 1977")

    exact: bool | str = option(
        True, "give back what a block does not need of its power of two; off: a bound on memory",
        kind="bool")
