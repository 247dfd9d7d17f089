"""Memory allocators: components for images, and heaps for this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.alloc.api import Allocator as Allocator, Block as Block, Heap as Heap, Stats as Stats
    from unikit.alloc.bump import Bump as Bump
    from unikit.alloc.firstfit import Firstfit as Firstfit
    from unikit.alloc.memory import Region as Region, region as region
    from unikit.alloc.tlsf import Tlsf as Tlsf

_HOME = {"Allocator": "api", "Block": "api", "Heap": "api", "Stats": "api", "Bump": "bump",
         "Firstfit": "firstfit", "Tlsf": "tlsf", "Region": "memory", "region": "memory"}

__all__ = ["Allocator", "Block", "Bump", "Firstfit", "Heap", "Region", "Stats", "Tlsf", "region"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
