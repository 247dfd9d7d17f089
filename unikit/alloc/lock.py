"""``alloc.lock``: a layer that lets several processors use any allocator."""

from __future__ import annotations

from unikit.alloc.api import Layer
from unikit.component import component


@component
class Lock(Layer):
    """A lock around each call, so that several processors or threads can use any allocator.

    ``alloc.shard`` does better where it matters, by a face for each
    processor; ``lock`` is for the others: ``--alloc lock,tlsf``.
    """

    id = "alloc.lock"
    features = frozenset({"layer", "reuses", "shared", "owns", "walk", "add_region", "unsized",
                          "threads", "pages", "resize", "zeroed", "fails", "records", "leaks"})
    alone = frozenset({"shared", "threads"})
    sources = ("lock.c",)
    reference = "Anderson, The performance of spin lock alternatives, IEEE TPDS 1(1), 1990"
