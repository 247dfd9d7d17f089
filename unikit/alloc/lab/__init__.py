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
    from unikit.alloc.lab.policies import BestFit as BestFit
    from unikit.alloc.lab.policies import SizeClasses as SizeClasses
    from unikit.alloc.lab.policy import Policy as Policy
    from unikit.alloc.lab.policy import Simulated as Simulated
    from unikit.alloc.lab.policy import check_policy as check_policy
    from unikit.alloc.lab.policy import make_random as make_random
    from unikit.alloc.lab.policy import simulate as simulate
    from unikit.alloc.lab.replayer import Latency as Latency
    from unikit.alloc.lab.replayer import Result as Result
    from unikit.alloc.lab.replayer import Sample as Sample
    from unikit.alloc.lab.replayer import replay as replay
    from unikit.alloc.lab.shape import Shape as Shape
    from unikit.alloc.lab.symbols import Site as Site
    from unikit.alloc.lab.trace import Event as Event
    from unikit.alloc.lab.trace import Op as Op
    from unikit.alloc.lab.trace import Summary as Summary
    from unikit.alloc.lab.trace import Thread as Thread
    from unikit.alloc.lab.trace import Trace as Trace

_HOME = {
    "BestFit": "policies", "Event": "trace", "Latency": "replayer", "Op": "trace",
    "Policy": "policy", "Result": "replayer", "Sample": "replayer", "Shape": "shape",
    "Simulated": "policy", "Site": "symbols", "SizeClasses": "policies", "Summary": "trace",
    "Thread": "trace", "Trace": "trace", "check_policy": "policy", "make_random": "policy",
    "replay": "replayer", "replay_in_image": "places", "simulate": "policy",
}

__all__ = ["BestFit", "Event", "Latency", "Op", "Policy", "Result", "Sample", "Shape", "Simulated",
           "Site", "SizeClasses", "Summary", "Thread", "Trace", "check_policy", "make_random",
           "replay", "replay_in_image", "simulate"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
