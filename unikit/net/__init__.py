"""Networking: choose a TCP/IP stack and interfaces, or run them in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unikit.net.api import Interface, Layer, Stack
    from unikit.net.inet import Inet
    from unikit.net.mini import Mini
    from unikit.net.netif.fault import Fault
    from unikit.net.netif.loopback import Loopback
    from unikit.net.netif.pcap import Pcap
    from unikit.net.netif.pipe import Pipe
    from unikit.net.netif.switch import Switch
    from unikit.net.netif.tap import Tap
    from unikit.net.netif.user import User

__all__ = ["Fault", "Inet", "Interface", "Layer", "Loopback", "Mini", "Pcap", "Pipe", "Stack",
           "Switch", "Tap", "User"]

_HOME = {"Inet": "inet", "Interface": "api", "Layer": "api", "Stack": "api",
         "Mini": "mini", "Fault": "netif.fault", "Loopback": "netif.loopback", "Pcap": "netif.pcap",
         "Pipe": "netif.pipe", "Switch": "netif.switch", "Tap": "netif.tap",
         "User": "netif.user"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
