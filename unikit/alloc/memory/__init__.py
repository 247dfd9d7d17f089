"""Memory for heaps and virtual machines: regions on the pages one wants, and what one really got.

:func:`region` maps memory and says on which kind of pages; :func:`attach` maps the shared memory of
another process; :func:`report` says what the kernel gave to any process, and :func:`collapse` gives
a running one huge pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.alloc.memory.collapsing import Collapse as Collapse
    from unikit.alloc.memory.collapsing import collapse as collapse
    from unikit.alloc.memory.create import attach as attach
    from unikit.alloc.memory.create import receive as receive
    from unikit.alloc.memory.create import region as region
    from unikit.alloc.memory.mappings import Backing as Backing
    from unikit.alloc.memory.mappings import Mapping as Mapping
    from unikit.alloc.memory.mappings import report as report
    from unikit.alloc.memory.regions import Region as Region

_HOME = {
    "Backing": "mappings", "Collapse": "collapsing", "Mapping": "mappings", "Region": "regions",
    "attach": "create", "collapse": "collapsing", "receive": "create", "region": "create",
    "report": "mappings",
}

HUGE_PAGE = 2 << 20
"""Bytes of a huge page on x86-64."""

__all__ = ["HUGE_PAGE", "Backing", "Collapse", "Mapping", "Region", "attach", "collapse",
           "receive", "region", "report"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
