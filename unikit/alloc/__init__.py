"""Memory allocators: components for images, and heaps for this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.alloc.api import Allocator as Allocator
    from unikit.alloc.api import Layer as Layer
    from unikit.alloc.api import Bounds as Bounds
    from unikit.alloc.buddy import Buddy as Buddy
    from unikit.alloc.bump import Bump as Bump
    from unikit.alloc.firstfit import Firstfit as Firstfit
    from unikit.alloc.heap import Block as Block
    from unikit.alloc.heap import Extent as Extent
    from unikit.alloc.heap import Heap as Heap
    from unikit.alloc.heap import Stats as Stats
    from unikit.alloc.memory import Region as Region
    from unikit.alloc.memory import region as region
    from unikit.alloc.shard import Shard as Shard
    from unikit.alloc.tlsf import Tlsf as Tlsf

_HOME = {
    "Allocator": "api", "Block": "heap", "Bounds": "api", "Buddy": "buddy", "Bump": "bump",
    "Extent": "heap", "Firstfit": "firstfit", "Heap": "heap", "Layer": "api", "Region": "memory",
    "Shard": "shard", "Stats": "heap", "Tlsf": "tlsf", "region": "memory",
}

__all__ = ["Allocator", "Block", "Bounds", "Buddy", "Bump", "Extent", "Firstfit", "Heap", "Layer",
           "Region", "Shard", "Stats", "Tlsf", "region"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
