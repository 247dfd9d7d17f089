"""Layers and images: a capture and a bad network outside, and a bad network inside."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from unikit.image import Image
from unikit.net import Fault, Pcap, User
from unikit.platform.api import probe
from unikit.registry import find

PLATFORMS = [pytest.param("linux"), pytest.param("kvm", marks=pytest.mark.kvm)]
ROOT = Path(__file__).resolve().parents[3]


def usable(platform: str) -> None:
    reason = probe(find(platform, "platform"))  # type: ignore[arg-type]
    if reason is not None:
        pytest.skip(reason)


def fetch(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        return answer.read()  # type: ignore[no-any-return]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_capture_outside(platform: str, tmp_path: Path) -> None:
    """The monitor moves frames through the layer: the request is in the file."""
    usable(platform)
    path = tmp_path / "http.pcapng"
    with Pcap(User("0:80"), file=str(path)).open() as wire:
        with Image("http").boot(platform, netif=wire):
            body = fetch(wire.forwards[0][1])
        assert wire.stats()["frames"] > 6
    data = path.read_bytes()
    assert data.startswith(b"\x0a\x0d\x0d\x0a") and b"GET / HTTP/1.1" in data
    assert body[:64] in data


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_bad_network_outside(platform: str) -> None:
    """Loss and delay on the way to an image: slower, and still right."""
    usable(platform)
    with Fault(User("0:80"), loss="10%", delay="5ms", seed=2).open() as wire:
        with Image("http").boot(platform, netif=wire):
            start = time.monotonic()
            bodies = {fetch(wire.forwards[0][1]) for _ in range(5)}
            assert time.monotonic() - start > 0.05  # ten ways and more under way for 5 ms each
        stats = wire.stats()
        assert len(bodies) == 1 and stats["out_lost"] + stats["in_lost"] > 0


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_bad_network_inside(platform: str) -> None:
    """The same component compiled into the image, over the platform's device, on its clock."""
    usable(platform)
    image = Image("http", netif=Fault(delay="20ms", slots=64))
    with User("0:80").open() as wire, image.boot(platform, memory="32M", netif=wire):
        start = time.monotonic()
        assert b"html" in fetch(wire.forwards[0][1]).lower()
        assert time.monotonic() - start > 0.08  # handshake and request, both ways


def test_the_command_captures(tmp_path: Path) -> None:
    """``unikit run --pcap``, with a layer named on the command line and its options."""
    usable("linux")
    path = tmp_path / "run.pcapng"
    words = [sys.executable, "-m", "unikit", "run", "http", "--platform", "linux", "--pcap", path,
             "--netif", "fault,user", "--set", "netif.fault.delay=1ms", "--forward", "0:80"]
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True,
                          cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            while "http://" not in line:
                line = process.stdout.readline()
            fetch(int(line.strip().rpartition(":")[2]))
        finally:
            process.terminate()
            process.wait(30)
    assert b"GET / HTTP/1.1" in path.read_bytes()


@pytest.mark.parametrize(("words", "problem"), [
    (["--netif", "fault,user", "--set", "netif.fault.warp=1"], "no such option"),
    (["--netif", "pipe,user"], "stands on nothing"),
    (["--netif", "none", "--pcap", "x.pcapng"], "without a network")])
def test_the_command_refuses(words: list[str], problem: str,
                             capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be layered is said before anything boots."""
    from unikit.cli import main
    assert main(["run", "http", "--platform", "linux", *words]) == 1
    assert problem in capsys.readouterr().err
