"""The record of ``netif.switch``."""

from __future__ import annotations

from typing import Any

from unikit.component import component, option
from unikit.net.api import Interface
from unikit.net.netif.memory import MemoryInterface, open_ends


@component
class Switch(Interface):
    """A learning Ethernet switch between stacks of this process; its ports are the ends.

    All ends belong to one thread. A full port drops frames; its ``stats()`` count them.
    """

    id = "netif.switch"
    sources = ("switch.c",)
    reference = "IEEE 802.1D-2004, 7.8 and 7.9"
    counters = ("received", "flooded", "dropped", "sent")

    ports: int = option(4, "ends", minimum=2, maximum=16)
    slots: int = option(256, "frames that wait per port; a power of two", minimum=1, maximum=65536)
    mtu: int = option(1500, "largest payload of a frame", minimum=68, maximum=65521, unit="bytes")
    table: int = option(1024, "addresses known at once; a power of two", minimum=4,
                        maximum=1 << 20)
    age: int | str = option("300s", "how long an address stays known that sends nothing",
                            kind="duration", maximum=10**15)

    def open(self, env: Any = None) -> tuple[MemoryInterface, ...]:
        """Open it in memory of this process and return its ports.

        :param env: its clock, a host environment by default.
        :raises InvalidArgument: ``slots`` or ``table`` is no power of two.
        """
        return open_ends(self, env)
