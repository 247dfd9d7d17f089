"""The allocator laboratory: traces of real programs, recorded, replayed, measured, explained.

>>> from unikit.alloc import lab
>>> trace = lab.Trace.of([lab.Event(lab.Op.ALLOC, size=100), lab.Event(lab.Op.FREE)])
>>> trace.summary().peak_bytes
100
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.alloc.lab.places import replay_in_image as replay_in_image
    from unikit.alloc.lab.replayer import Latency as Latency
    from unikit.alloc.lab.replayer import Result as Result
    from unikit.alloc.lab.replayer import Sample as Sample
    from unikit.alloc.lab.replayer import replay as replay
    from unikit.alloc.lab.symbols import Site as Site
    from unikit.alloc.lab.trace import Event as Event
    from unikit.alloc.lab.trace import Op as Op
    from unikit.alloc.lab.trace import Summary as Summary
    from unikit.alloc.lab.trace import Thread as Thread
    from unikit.alloc.lab.trace import Trace as Trace

_HOME = {
    "Event": "trace", "Latency": "replayer", "Op": "trace", "Result": "replayer",
    "Sample": "replayer", "Site": "symbols", "Summary": "trace", "Thread": "trace",
    "Trace": "trace", "replay": "replayer",
    "replay_in_image": "places",
}

__all__ = ["Event", "Latency", "Op", "Result", "Sample", "Site", "Summary", "Thread", "Trace",
           "replay", "replay_in_image"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
