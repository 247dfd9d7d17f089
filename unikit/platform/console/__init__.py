"""Consoles: where an image's text goes.

.. code-block:: python

    from unikit.platform.console import Buffer, Platform

    image = unikit.Image("http", console=[Platform(), Buffer(size="64K")])

Several consoles are joined by ``console.tee``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.platform.console.api import ConsoleComponent
    from unikit.platform.console.buffer import Buffer, read_buffer
    from unikit.platform.console.null import Null
    from unikit.platform.console.platform import Platform
    from unikit.platform.console.syslog import Syslog
    from unikit.platform.console.tee import Tee

__all__ = ["Buffer", "ConsoleComponent", "Null", "Platform", "Syslog", "Tee", "read_buffer"]

_HOME = {"Buffer": "buffer", "ConsoleComponent": "api", "Null": "null", "Platform": "platform",
         "Syslog": "syslog", "Tee": "tee", "read_buffer": "buffer"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
