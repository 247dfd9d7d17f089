"""``console.syslog`` against a real receiver of datagrams that reads RFC 5424 strictly."""

from __future__ import annotations

import contextlib
import datetime
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyroute2 import netns as namespaces

from unikit.errors import CompositionError
from unikit.image import Image
from unikit.net.netif.tap import Tap
from unikit.platform.console import Platform, Syslog

MESSAGE = re.compile(  # RFC 5424, section 6
    r"<(?P<pri>0|[1-9]\d{0,2})>1 (?P<time>-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) "
    r"(?P<host>-|[!-~]{1,255}) (?P<app>-|[!-~]{1,48}) (?P<proc>-|[!-~]{1,128}) "
    r"(?P<id>-|[!-~]{1,32}) (?P<data>-) (?P<text>.*)", re.DOTALL)


@contextlib.contextmanager
def receiver_in(netns: str) -> Iterator[socket.socket]:
    """Open a UDP socket on port 514 of every address in the namespace."""
    namespaces.pushns(netns)
    try:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    finally:
        namespaces.popns()
    with receiver:
        receiver.bind(("0.0.0.0", 514))
        receiver.settimeout(5)
        yield receiver


@pytest.mark.root
@pytest.mark.exercises("tap")
def test_lines_arrive_as_messages(writer: Callable[..., Any], netns: str) -> None:
    """The first lines are written before any neighbour is known: they wait and still come."""
    with Tap(address="10.9.8.1/24", namespace=netns).open() as tap, receiver_in(netns) as server, \
            writer([Platform(), Syslog(facility="daemon", severity="notice")], net="mini",
                   netif=tap, options={"net.mini.address": "10.9.8.2/24",
                                       "console.syslog.server": "10.9.8.1"}) as machine:
        machine.console.expect("said hello")
        found = []
        for text in ("first line", "said hello"):
            data, sender = server.recvfrom(2000)
            match = MESSAGE.fullmatch(data.decode())
            assert match, data
            assert sender[0] == "10.9.8.2"
            assert match["text"] == text
            found.append(match)
        machine.console.write("x")
        assert machine.wait(5) == 7
        assert MESSAGE.fullmatch(server.recv(2000).decode())["text"] == "heard 1 bytes"
    for match in found:
        assert int(match["pri"]) == 3 * 8 + 5
        assert match["host"] == "10.9.8.2"
        said = datetime.datetime.fromisoformat(match["time"])
        assert abs(said.timestamp() - time.time()) < 60


def test_a_server_must_be_given(writer: Callable[..., Any]) -> None:
    """The image refuses to start in words, with the code for what the boot gave it."""
    problem = pytest.raises(CompositionError, lambda: Image("hello", console=Syslog()).plan)
    assert "needs net" in str(problem.value)
