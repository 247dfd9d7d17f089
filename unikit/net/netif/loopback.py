"""The record of ``netif.loopback``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.net.api import Interface
from unikit.net.netif.memory import MemoryInterface, open_ends


@component
class Loopback(Interface):
    """One end that receives what it sends, in order, without loss; full, it refuses frames."""

    id = "netif.loopback"
    features = frozenset({"lossless"})
    sources = ("loopback.c",)

    slots: int = option(256, "frames under way; a power of two", minimum=1, maximum=65536)
    mtu: int = option(1500, "largest payload of a frame", minimum=68, maximum=65521, unit="bytes")

    def open(self) -> MemoryInterface:
        """Open it in memory of this process.

        :raises InvalidArgument: ``slots`` is no power of two.
        """
        return open_ends(self)[0]
