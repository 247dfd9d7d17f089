"""Conformance suites: what a component must do to fit its interface.

They need no test framework; a component's own tests call ``check_allocator(Mine)`` and its kin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.testing.alloc import check_allocator as check_allocator
    from unikit.testing.console import check_console as check_console
    from unikit.testing.net import check_netif as check_netif
    from unikit.testing.net import check_stack as check_stack
    from unikit.testing.platform import check_platform as check_platform
    from unikit.testing.report import NotConforming as NotConforming
    from unikit.testing.report import Outcome as Outcome
    from unikit.testing.sched import check_scheduler as check_scheduler
    from unikit.testing.script.result import ScriptResult as ScriptResult
    from unikit.testing.script.run import run_script as run_script
    from unikit.testing.virtual import VirtualEnvironment as VirtualEnvironment

_HOME = {"NotConforming": "report", "Outcome": "report", "ScriptResult": "script",
         "VirtualEnvironment": "virtual", "run_script": "script",
         "check_allocator": "alloc", "check_console": "console", "check_netif": "net",
         "check_platform": "platform", "check_scheduler": "sched", "check_stack": "net"}

__all__ = ["NotConforming", "Outcome", "ScriptResult", "VirtualEnvironment", "check_allocator",
           "check_console", "check_netif", "check_platform", "check_scheduler", "check_stack",
           "run_script"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
