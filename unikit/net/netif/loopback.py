"""The record of ``netif.loopback``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.net.api import Interface


@component
class Loopback(Interface):
    """One end that receives what it sends, in order, without loss; full, it refuses frames."""

    id = "netif.loopback"
    features = frozenset({"lossless"})
    sources = ("loopback.c",)

    slots: int = option(256, "frames under way; a power of two", minimum=1, maximum=65536)
    mtu: int = option(1500, "largest payload of a frame", minimum=68, maximum=65521, unit="bytes")
