"""Sends back what it receives, by TCP and UDP (RFC 862)."""

from unikit.apps import App
from unikit.component import Option

IMAGE = App(
    name="echo",
    summary="sends back what it receives, by TCP and UDP",
    needs=("net",),
    options=(Option("port", 7, "TCP and UDP port", minimum=1, maximum=65535, when="boot"),),
    forward=("7007:7", "udp:7007:7"),
)
