"""The record of ``netif.pipe``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.net.api import Interface
from unikit.net.netif.memory import MemoryInterface, open_ends


@component
class Pipe(Interface):
    """Two ends joined in memory: what one sends the other receives, in order, without loss.

    Each direction is a ring for one producer and one consumer; two threads may use the pipe, one
    per end. A full ring refuses frames.
    """

    id = "netif.pipe"
    features = frozenset({"lossless"})
    sources = ("pipe.c",)
    reference = "Lamport, Proving the correctness of multiprocess programs, IEEE TSE 3(2), 1977"

    slots: int = option(256, "frames under way per direction; a power of two", minimum=1,
                        maximum=65536)
    mtu: int = option(1500, "largest payload of a frame", minimum=68, maximum=65521, unit="bytes")

    def open(self) -> tuple[MemoryInterface, MemoryInterface]:
        """Open it in memory of this process and return its two ends.

        :raises InvalidArgument: ``slots`` is no power of two.
        """
        first, second = open_ends(self)
        return first, second
