"""``alloc.slab``: object caches with magazines."""

from __future__ import annotations

from unikit.alloc.api import Allocator
from unikit.component import component, option


@component
class Slab(Allocator):
    """Object caches with magazines over a back-end of page runs, after Bonwick.

    A cache for each of four sizes per doubling cuts pages into objects; before it stand magazines,
    arrays of free objects, so that most requests move one pointer. Larger requests are runs of
    pages. No headers: an object's page tells its size. 40 bytes per page are kept apart from them,
    and nothing is laid out when it is opened.
    """

    id = "alloc.slab"
    relocatable = True
    features = frozenset({"reuses", "unsized", "resize"})
    sources = ("slab.c", "cache.c", "runs.c", "views.c")
    reference = ("Bonwick, The slab allocator: an object-caching kernel memory allocator, USENIX "
                 "Summer 1994; Bonwick, Adams, Magazines and Vmem, USENIX 2001")

    page: int | str = option(
        0, "bytes of a page, a power of two from 512 to 32K; 0: 4096, less in a small heap",
        kind="size", maximum=32768, unit="bytes")
