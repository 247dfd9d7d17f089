"""The allocator domain in this process: records become heaps over a region of memory."""

from __future__ import annotations

from unikit.component import Component


class Allocator(Component):
    """Base of every allocator's record; ``features`` are the words of ``alloc.h`` in lower case."""
