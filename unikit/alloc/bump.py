"""``alloc.bump``: a pointer that only moves up."""

from __future__ import annotations

from unikit.alloc.api import Allocator
from unikit.component import component


@component
class Bump(Allocator):
    """Bump allocator: the fastest way to allocate, for memory that is given back as a whole.

    Freeing the last block takes it back and the last block grows in place; every other free only
    counts. ``mark()`` and ``release()`` free everything since the mark at once. O(1), no headers,
    96 bytes in all; manages at most 64 GiB of a region.
    """

    id = "alloc.bump"
    relocatable = True
    features = frozenset({"bounded", "scopes", "resize"})
    sources = ("bump.c",)
