"""Memory allocators: components for images, and heaps for this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.alloc.api import Allocator as Allocator
    from unikit.alloc.api import Bounds as Bounds
    from unikit.alloc.api import Layer as Layer
    from unikit.alloc.api import sources as sources
    from unikit.alloc.arrays import numpy_handler as numpy_handler
    from unikit.alloc.blocks import Batch as Batch
    from unikit.alloc.buddy import Buddy as Buddy
    from unikit.alloc.bump import Bump as Bump
    from unikit.alloc.firstfit import Firstfit as Firstfit
    from unikit.alloc.guard import Guard as Guard
    from unikit.alloc.halffit import Halffit as Halffit
    from unikit.alloc.heap import Block as Block
    from unikit.alloc.heap import Extent as Extent
    from unikit.alloc.heap import Heap as Heap
    from unikit.alloc.heap import Stats as Stats
    from unikit.alloc.interpreter import python_allocator as python_allocator
    from unikit.alloc.lock import Lock as Lock
    from unikit.alloc.memory import Region as Region
    from unikit.alloc.memory import region as region
    from unikit.alloc.shard import Shard as Shard
    from unikit.alloc.shared import Handle as Handle
    from unikit.alloc.shared import SharedHeap as SharedHeap
    from unikit.alloc.slab import Slab as Slab
    from unikit.alloc.tlsf import Tlsf as Tlsf
    from unikit.alloc.trace import Trace as Trace

_HOME = {
    "Allocator": "api",
    "Batch": "blocks",
    "Block": "heap",
    "Bounds": "api",
    "Buddy": "buddy",
    "Bump": "bump",
    "Extent": "heap",
    "Firstfit": "firstfit",
    "Guard": "guard",
    "Halffit": "halffit",
    "Handle": "shared",
    "Heap": "heap",
    "Layer": "api",
    "Lock": "lock",
    "Region": "memory",
    "Shard": "shard",
    "SharedHeap": "shared",
    "Slab": "slab",
    "Stats": "heap",
    "Tlsf": "tlsf",
    "Trace": "trace",
    "numpy_handler": "arrays",
    "python_allocator": "interpreter",
    "region": "memory",
    "sources": "api",
}

__all__ = [
    "Allocator",
    "Batch",
    "Block",
    "Bounds",
    "Buddy",
    "Bump",
    "Extent",
    "Firstfit",
    "Guard",
    "Halffit",
    "Handle",
    "Heap",
    "Layer",
    "Lock",
    "Region",
    "Shard",
    "SharedHeap",
    "Slab",
    "Stats",
    "Tlsf",
    "Trace",
    "numpy_handler",
    "python_allocator",
    "region",
    "sources",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
