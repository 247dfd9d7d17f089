"""unikit: choose an operating system the way you choose Python packages.

An application names its allocator, scheduler, TCP/IP stack, console and platform; unikit composes
them into one image that boots on a hypervisor, and the same components run inside this process.
Importing the package is cheap: names below are loaded when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.errors import UnikitError
    from unikit.image import Image
    from unikit.image.boot import boot

__all__ = ["Image", "UnikitError", "__version__", "boot", "get_include"]

__version__ = "0.1.0"

_HOMES = {"Image": "unikit.image", "boot": "unikit.image.boot", "UnikitError": "unikit.errors"}


def get_include() -> str:
    """Return the folder to compile C against (``-I``): ``<unikit/alloc/alloc.h>`` lies in it."""
    from pathlib import Path
    return str(Path(__file__).resolve().parents[1])


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'unikit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
