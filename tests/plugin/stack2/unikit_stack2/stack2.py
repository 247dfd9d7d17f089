"""``alloc.stack2``: two stacks that grow towards each other."""

from __future__ import annotations

from unikit.alloc import Allocator
from unikit.component import component, option


@component
class Stack2(Allocator):
    """Two stacks in one region: small blocks from below, large ones from above.

    For work in rounds (requests, frames): a round's blocks cost a few instructions each, and when
    the last of them is freed everything is free again.
    """

    id = "alloc.stack2"
    features = frozenset({"reuses", "bounded"})
    sources = ("stack2.c",)

    large: int | str = option("4K", "blocks of this size and more come from above", kind="size",
                              unit="bytes")
