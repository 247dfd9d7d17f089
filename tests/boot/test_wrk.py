"""Load from programs that nobody here wrote: the http image over a TAP, on each platform."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from unikit.image import Image
from unikit.net import Tap
from unikit.platform.api import Machine

NETWORK = f"10.79.{os.getpid() % 250 + 1}"  # another run on this machine has another one
GUEST, HOST = f"{NETWORK}.2", f"{NETWORK}.1/24"
PLATFORMS = ["linux", pytest.param("kvm", marks=pytest.mark.kvm)]
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

pytestmark = [pytest.mark.root, pytest.mark.exercises("tap")]


@pytest.fixture(params=PLATFORMS)
def server(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Run the http image on a TAP."""
    with Image("http").boot(request.param, netif=Tap(f"ukw{os.getpid()}", address=HOST),
                            options={"net.mini.address": f"{GUEST}/24"}) as machine:
        machine.console.expect("listening")
        yield machine


def status() -> dict[str, dict[str, int]]:
    """Return what the image says of itself."""
    with urllib.request.urlopen(f"http://{GUEST}/status.json", timeout=10) as answer:
        found: dict[str, dict[str, int]] = json.load(answer)
    return found


def wrk(connections: int, seconds: int, *more: str) -> int:
    """Load the server and return the number of requests; any error fails."""
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}", *more,
                           f"http://{GUEST}/"], check=True, capture_output=True, text=True)
    assert "Socket errors" not in done.stdout, done.stdout
    assert "Non-2xx" not in done.stdout, done.stdout
    match = re.search(r"(\d+) requests in", done.stdout)
    assert match, done.stdout
    return int(match[1])


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is missing: apt-get install wrk")
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_wrk_sees_no_error_and_memory_comes_back(server: Machine, seconds: int) -> None:
    """Keep-alive on 64 connections, then a new connection for each request."""
    status()
    before = status()
    assert wrk(64, seconds) > 100 * seconds
    assert wrk(16, seconds, "-H", "Connection: close") > 100 * seconds
    after = status()
    assert after["http"]["errors"] == before["http"]["errors"]
    assert after["memory"]["failures"] == 0
    # TIME_WAIT holds a record a connection for a while, and their number is bounded.
    assert after["memory"]["used_bytes"] <= before["memory"]["used_bytes"] + (1 << 20)


def test_ten_thousand_connections_in_a_row(server: Machine) -> None:
    """Peers stall after 1,500 to 3,000 of them: each one is answered here."""
    for number in range(10_000):
        with socket.create_connection((GUEST, 80), timeout=5) as link:
            link.sendall(REQUEST)
            text = b""
            while data := link.recv(65536):
                text += data
        assert text.startswith(b"HTTP/1.1 200 OK\r\n"), number
    assert status()["http"]["connections"] >= 10_000
