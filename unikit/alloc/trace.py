"""``alloc.trace``: a layer that records what is asked of the allocator it stands on."""

from __future__ import annotations

from unikit.alloc.api import Layer
from unikit.component import component, option


@component
class Trace(Layer):
    """Records each request, with its call site, as a trace that can be kept, shown and replayed.

    The trace lies in a buffer in memory: :func:`unikit.alloc.lab.inside.of` returns it,
    :func:`unikit.alloc.lab.inside.in_memory` finds it in the memory of a machine, and ``unikit run
    --trace FILE`` writes it when an image has ended. A tick of its clock is an event. When the
    buffer is full, later events are only counted.
    """

    id = "alloc.trace"
    features = frozenset({"layer", "reuses", "bounded", "owns", "walk", "add_region", "unsized",
                          "threads", "pages", "resize", "zeroed", "sites", "fails", "records",
                          "leaks"})
    alone = frozenset({"sites", "records"})
    sources = ("trace.c",)

    size: int | str = option("1M", "bytes of the buffer", kind="size", minimum=8192,
                             maximum=1 << 40, unit="bytes")
