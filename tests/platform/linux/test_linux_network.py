"""Frames between an image that runs as a process and the world."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable, Iterator

import pytest

from unikit.net.netif import host
from unikit.platform.api import BootImage, Machine

Boot = Callable[..., Machine]
MINIMUM = bytes(6) + b"\x02\1\2\3\4\5" + b"\x88\xb5" + bytes(46)


@pytest.fixture
def wire() -> Iterator[tuple[host.PacketSocket, host.PacketSocket]]:
    """Two ends of a packet socket: the image's and ours."""
    image, ours = host.socket_pair(mtu=1500)
    yield image, ours
    ours.close()
    image.close()


def receive(end: host.HostInterface) -> bytes:
    """Wait for the next frame."""
    for _ in range(100):
        frame = end.receive()
        if frame is not None:
            return frame
        select.select([end], [], [], 0.1)
    raise AssertionError("no frame came within ten seconds")


def exchange(machine: Machine, ours: host.HostInterface) -> None:
    """Check the echo of the probe: greeting, every length, order, nothing made up."""
    machine.console.expect("batch 1")
    assert receive(ours) == bytes(60)
    for size in (14, 60, 61, 64, 1513, 1514):
        frame = (MINIMUM + os.urandom(1500))[:size]
        ours.send(frame)
        assert receive(ours) == frame
    frames = [MINIMUM + bytes([number]) for number in range(100)]
    for frame in frames:
        ours.send(frame)
    assert [receive(ours) for _ in frames] == frames
    assert ours.receive() is None


@pytest.mark.fast
def test_frames_over_a_packet_socket(boot: Boot, wire: tuple[host.PacketSocket, ...]) -> None:
    """The descriptor of the interface is handed to the process: no copy in between."""
    image, ours = wire
    machine = boot("frames", netif=image)
    exchange(machine, ours)
    text = machine.console.text
    assert f"mac {image.mac[0]:x}:{image.mac[5]:x} mtu 1500 configure 0 -2 -2" in text
    assert "sizes -13 -13" in text
    assert "nothing 0" in text
    assert machine.netif is image


@pytest.mark.fast
def test_frame_longer_than_the_buffer_is_dropped(boot: Boot,
                                                 wire: tuple[host.PacketSocket, ...]) -> None:
    """A cut frame must never look like a whole one: the probe's second buffer has 64 bytes."""
    image, ours = wire
    machine = boot("frames", netif=image)
    machine.console.expect("batch 1")
    receive(ours)
    os.kill(machine.pid, 19)  # type: ignore[attr-defined]  # SIGSTOP: let both frames queue up
    first, second = MINIMUM + b"first", MINIMUM + bytes(100)
    ours.send(first)
    ours.send(second)
    os.kill(machine.pid, 18)  # type: ignore[attr-defined]
    assert receive(ours) == first
    ours.send(MINIMUM)
    assert receive(ours) == MINIMUM


@pytest.mark.fast
def test_closed_peer_ends_the_network_not_the_image(probe: BootImage) -> None:
    """The image sees KIT_ECLOSED, on both sides, and does not spin."""
    image, ours = host.socket_pair()
    fd = image.fileno()
    process = subprocess.Popen([probe.path, f"net.fd={fd}", "net.mac=02:aa:00:00:00:0b", "--",
                                "frames"], stdout=subprocess.PIPE, text=True, pass_fds=(fd,))
    image.close()
    receive(ours)
    ours.close()
    out, _ = process.communicate(timeout=10)
    assert "mac 2:b mtu 1500" in out
    assert out.endswith("end 2 -4 -4\n")
    assert process.returncode == 5


class Odd(host.PacketSocket):
    """An interface without a kernel descriptor of its own, as far as the machine can tell."""


@pytest.mark.fast
def test_other_interfaces_are_bridged(boot: Boot, wire: tuple[host.PacketSocket, ...],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface that lives in this process is pumped through a socket pair."""
    image, ours = wire
    real = host.FdInterface
    monkeypatch.setattr(host, "FdInterface", Odd)
    machine = boot("frames", netif=image)
    monkeypatch.setattr(host, "FdInterface", real)
    exchange(machine, ours)
    stats = machine.stats()
    assert stats["frames_in"] == 106
    assert stats["frames_out"] == 107
    machine.close()
    assert machine.stats()["frames_in"] == 106


@pytest.mark.root
def test_frames_over_a_tap(boot: Boot) -> None:
    """The process reads and writes the TAP itself."""
    import socket

    from unikit.net.netif.tap import Tap
    with Tap("uklinux0").open() as tap:
        world = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5))
        with world:
            world.bind(("uklinux0", 0x88b5))
            world.settimeout(10)
            machine = boot("frames", netif=tap)
            machine.console.expect("batch 1")
            for size in (60, 1514):
                frame = (MINIMUM + os.urandom(1500))[:size]
                world.send(frame)
                assert world.recv(2000) == frame
            machine.close()
