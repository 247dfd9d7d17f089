"""Schedulers: choose one for an image, or run tasks on one in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.sched.api import Scheduler
    from unikit.sched.coop import Coop
    from unikit.sched.loop import Loop

__all__ = ["Coop", "Loop", "Scheduler"]

_HOME = {"Coop": "coop", "Loop": "loop", "Scheduler": "api"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
