"""The record of ``netif.pcap``."""

from __future__ import annotations

import os
from typing import Any

from unikit.component import component, option
from unikit.errors import InvalidArgument
from unikit.net.api import Layer
from unikit.net.netif.layer import LayerInterface


@component
class Pcap(Layer):
    """A capture of all frames as a pcapng file, for Wireshark and tcpdump.

    Times are of the environment's clock, in nanoseconds. What the stack notes of a frame, the state
    of the connection, its windows, why it was dropped, stands in the frame's comment.
    """

    id = "netif.pcap"
    side = "host"
    sources = ("pcap.c",)
    reference = "draft-ietf-opsawg-pcapng"
    counters = ("frames", "bytes", "noted")

    file: str = option("", "where to write it; an existing file is replaced", kind="text")
    snap: int = option(0, "bytes of a frame that are kept; 0: all", unit="bytes", maximum=1 << 18)

    def _over(self, inner: Any, env: Any, *, owned: bool) -> LayerInterface:
        if not self.file:
            raise InvalidArgument(f"{self!r}: say into which file")
        file = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            return LayerInterface(self, inner, env, owned=owned, file=file)
        except BaseException:
            os.close(file)
            raise
