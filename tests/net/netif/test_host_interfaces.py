"""Host interfaces on descriptors: the conformance suite, and the bridge between two of them."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "conformance"))
from compiled import HERE, VARIANTS, build, conforms

from unikit.errors import Closed, InvalidArgument
from unikit.net.netif.host import Bridge, FdInterface, parse_mac, random_mac, socket_pair

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("variant", VARIANTS)
def test_conforms(variant: str) -> None:
    """A pair of packet sockets passes the suite of all interfaces, under sanitizers too."""
    program = build([HERE / "main_netif.c", "unikit/testing/suite_netif.c",
                     "tests/net/netif/image/socket_pair.c", "unikit/net/netif/host_fd.c"],
                    variant=variant, defines={"COMPONENT": "kit_netif_socket_pair"})
    for mtu in (68, 1500, 9000):
        conforms(program, mtu)


def test_bridge_holds_frames_for_a_slow_side():
    """A full receiver slows its sender; no frame is lost or reordered."""
    near, a = socket_pair()
    b, far = socket_pair()
    with near, a, b, far, Bridge(a, b) as bridge:
        frames = [struct.pack("!14xI", number) + bytes(number % 1400) for number in range(3000)]
        got: list[bytes] = []

        def drain() -> None:
            while len(got) < len(frames):
                select.select([far], [], [], 10)
                frame = far.receive()
                if frame:
                    got.append(frame)

        pending = iter(frames)
        frame = next(pending, None)
        stuck = 0.0
        while frame and stuck < 0.2:  # until every queue on the way is full
            try:
                near.send(frame)
                frame, stuck = next(pending, None), 0.0
            except BlockingIOError:
                time.sleep(0.01)
                stuck += 0.01
        assert frame is not None, "the queues never filled"
        reader = threading.Thread(target=drain)
        reader.start()
        while frame:
            select.select([], [near], [], 10)
            try:
                near.send(frame)
            except BlockingIOError:
                continue
            frame = next(pending, None)
        reader.join(20)
        assert got == frames
        assert bridge.stats()["ab_held"] > 0 and bridge.stats()["ab_dropped"] == 0


@pytest.mark.parametrize("spin_us", [0, 50])
def test_bridge_sleeps_when_idle_and_ends_with_its_side(spin_us):
    """An idle bridge costs no processor time, and a closed peer ends it by itself."""
    near, a = socket_pair()
    b, far = socket_pair()
    with near, a, b, far, Bridge(a, b, spin_us=spin_us) as bridge:
        before = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - before < 0.05
        near.close()
        end = time.monotonic() + 5
        while bridge.running and time.monotonic() < end:
            time.sleep(0.005)
        assert not bridge.running


def test_long_frame_is_refused_and_counted():
    """A frame over the mtu is dropped whole, never cut."""
    a, b = socket_pair(mtu=1500)
    with a, b:
        with pytest.raises(ValueError, match="1515 bytes"):
            a.send(bytes(1515))
        a._socket.send(bytes(2000))
        a.send(bytes(60))
        with pytest.raises(ValueError):
            b.receive()
        assert b.receive() == bytes(60)
        assert (a.stats()["dropped_size"], b.stats()["dropped_size"]) == (1, 1)


def test_batches_keep_order_and_drop_long_frames_alone():
    """Frames that came together and one that does not fit among them."""
    a, b = socket_pair()
    c, d = socket_pair()
    with a, b, c, d:
        wanted = [struct.pack("!14xI", number) + bytes(60) for number in range(100)]
        for number, frame in enumerate(wanted):
            if number == 50:
                a._socket.send(bytes(4000))
            a.send(frame)
        with Bridge(b, c) as bridge:
            got = []
            while len(got) < len(wanted):
                assert select.select([d], [], [], 10)[0]
                got.append(d.receive())
            assert got == wanted
            assert bridge.stats()["ab_frames"] == 100
        assert b.stats()["dropped_size"] == 1


def test_closed_interface_says_so():
    """Its own calls after close, and receiving from a pair whose other end went away."""
    a, b = socket_pair()
    with b:
        a.close()
        a.close()
        with pytest.raises(Closed):
            a.fileno()
        with pytest.raises(Closed):
            b.receive()
        with pytest.raises(Closed):
            b.send(bytes(60))


def test_descriptor_must_be_one():
    with pytest.raises(InvalidArgument):
        FdInterface(12345)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, \
            pytest.raises(InvalidArgument):
        FdInterface(sock.fileno(), mtu=10)


def test_dead_descriptor_ends_the_bridge():
    """A descriptor that cannot be read is not waited for."""
    reader, writer = os.pipe()
    with socket_pair()[0] as other, FdInterface(writer) as broken:
        bridge = Bridge(broken, other)
        os.close(reader)  # the writing end reports an error now, and cannot be read
        end = time.monotonic() + 5
        while bridge.running and time.monotonic() < end:
            time.sleep(0.005)
        assert not bridge.running
        bridge.close()
    os.close(writer)


def test_mac_addresses_are_local_and_their_own():
    assert parse_mac("02-00-00-00-00-0a") == bytes.fromhex("02000000000a")
    assert random_mac()[0] == 2 and random_mac() != random_mac()
    assert len(parse_mac("")) == 6
