"""net.mini, packet by packet: ARP, IPv4, ICMP and UDP, exact frames in virtual time."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from packets import (
    BROADCAST,
    PEER,
    PEER_MAC,
    STACK,
    Peer,
    arp,
    ethernet,
    icmp,
    ipv4,
    packed,
    parse_ip,
    udp,
)

pytestmark = pytest.mark.fast


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as it:
        yield it


def test_announces_its_address() -> None:
    """A stack says once that it is there, so that stale caches of others are corrected."""
    with Peer(known=False) as peer:
        [frame] = peer.take()
        assert frame == ethernet(arp(1, peer.mac, STACK, bytes(6), STACK), 0x0806, BROADCAST,
                                 peer.mac)


def test_answers_arp(peer: Peer) -> None:
    """A question for its address is answered to the asker, one for others is not."""
    question = ethernet(arp(1, PEER_MAC, PEER, bytes(6), STACK), 0x0806)
    peer.raw.send(question)
    assert peer.take() == [ethernet(arp(2, peer.mac, STACK, PEER_MAC, PEER), 0x0806, PEER_MAC,
                                    peer.mac)]
    peer.raw.send(ethernet(arp(1, PEER_MAC, PEER, bytes(6), "10.0.0.3"), 0x0806))
    peer.raw.send(question[:41])  # cut
    peer.raw.send(question[:15] + b"\x06" + question[16:])  # not Ethernet
    assert peer.take() == []
    assert peer.stack.stats().dropped_malformed == 2


def test_asks_three_times_and_keeps_the_latest_datagrams() -> None:
    """Frames for a neighbour not known yet wait, the latest four (RFC 1122, 2.3.2.2)."""
    with Peer(known=False) as peer, peer.stack.udp(9) as port:
        peer.take()
        for number in range(6):
            port.sendto(bytes([number]), (PEER, 7))
        question = ethernet(arp(1, peer.mac, STACK, bytes(6), PEER), 0x0806, BROADCAST, peer.mac)
        assert peer.take() == [question]
        assert peer.after(0.999) == []
        assert peer.after(0.001) == [question]
        peer.raw.send(ethernet(arp(2, PEER_MAC, PEER, peer.mac, STACK), 0x0806, peer.mac))
        assert [frame[-1] for frame in peer.take()] == [2, 3, 4, 5]
        port.sendto(b"known", (PEER, 7))
        assert [frame[-5:] for frame in peer.take()] == [b"known"]


def test_gives_a_silent_neighbour_up() -> None:
    """Three questions, a second apart, then the waiting frames are dropped and memory is back."""
    with Peer(known=False) as peer, peer.stack.udp(9) as port:
        peer.take()
        memory = peer.stack.stats().memory
        port.sendto(b"x", (PEER, 7))
        assert len(peer.take() + peer.after(10)) == 3
        assert peer.stack.stats().memory == memory
        assert peer.stack.deadline_ns is None


def test_confirms_a_neighbour_in_use(peer: Peer) -> None:
    """A neighbour in use is asked after a minute, one that is gone anew (RFC 1122, 2.3.2.1)."""
    with peer.stack.udp(9) as port:
        peer.after(61)
        port.sendto(b"x", (PEER, 7))
        frames = peer.take()
        assert [frame[12:14] for frame in frames] == [b"\x08\x00", b"\x08\x06"]
        assert frames[1][:6] == PEER_MAC
        peer.after(60)
        port.sendto(b"y", (PEER, 7))
        [frame] = peer.take()
        assert frame[:6] == BROADCAST and frame[12:14] == b"\x08\x06"


def test_strangers_do_not_fill_the_table(peer: Peer) -> None:
    """Announcements of unknown neighbours make no entries; of known ones they are believed."""
    other = bytes.fromhex("020000000077")
    for number in range(3, 200):
        peer.raw.send(ethernet(arp(1, other, f"10.0.0.{number}", bytes(6), f"10.0.0.{number}"),
                               0x0806))
    peer.raw.send(ethernet(arp(1, other, PEER, bytes(6), PEER), 0x0806))
    assert peer.take() == []
    with peer.stack.udp(9) as port:
        port.sendto(b"x", (PEER, 7))
        assert peer.take()[0][:6] == other


def test_routes_by_the_gateway() -> None:
    """What lies outside the network goes to the gateway's MAC address."""
    with Peer(gateway=PEER) as peer, peer.stack.udp(9) as port:
        port.sendto(b"x", ("192.0.2.1", 7))
        [frame] = peer.take()
        assert frame[:6] == PEER_MAC and frame[30:34] == packed("192.0.2.1")


def test_echoes(peer: Peer) -> None:
    """A ping comes back with its payload, of any length and with IP options."""
    for data in (b"", b"abcdefg", bytes(range(256)) * 5):
        echo = struct.pack("!HH", 7, 1) + data
        [frame] = peer.give(ipv4(icmp(8, 0, echo), 1))
        ip, payload = parse_ip(frame)
        assert payload == icmp(0, 0, echo)
        assert ip[12:20] == packed(STACK) + packed(PEER)
        assert frame[:14] == PEER_MAC + peer.mac + b"\x08\x00"
    assert len(peer.give(ipv4(icmp(8, 0, echo), 1, options=b"\x01" * 4))) == 1
    assert len(peer.give(ipv4(icmp(8, 0, echo), 1) + b"Ethernet padding")) == 1


@pytest.mark.parametrize("packet", [
    ipv4(b"\x08\x00\x00\x00abcd", 1),  # ICMP checksum
    ipv4(icmp(8, 0, b"abcd"), 1)[:21],  # cut
    ipv4(icmp(8, 0, b"abcd"), 1, total=19),
    ipv4(icmp(8, 0, b"abcd"), 1, total=200),
    b"\x46" + ipv4(icmp(8, 0, b"abcd"), 1)[1:],  # header length, and so its checksum
    b"\x44" + ipv4(icmp(8, 0, b"abcd"), 1)[1:],
    b"\x65" + ipv4(icmp(8, 0, b"abcd"), 1)[1:],  # version
    ipv4(icmp(8, 0, b"abc"), 1)[:10] + b"\0\0" + ipv4(icmp(8, 0, b"abc"), 1)[12:],
    ipv4(b"\x08", 1), b"", b"\x45"])
def test_malformed_packets_are_counted(peer: Peer, packet: bytes) -> None:
    """Broken lengths and checksums are dropped without an answer."""
    assert peer.give(packet) == []
    assert peer.stack.stats().dropped_malformed == 1


@pytest.mark.parametrize("packet", [
    ipv4(icmp(8, 0, b"abcd"), 1, target="10.0.0.3"),  # another's
    ipv4(icmp(8, 0, b"abcd"), 1, target="224.0.0.1"),
    ipv4(icmp(8, 0, b"abcd"), 1, flags=0x2000),  # first fragment
    ipv4(icmp(8, 0, b"abcd"), 1, flags=0x0001),  # a later one
    ipv4(icmp(8, 0, b"abcd"), 1, source="255.255.255.255"),
    ipv4(icmp(8, 0, b"abcd"), 1, source="10.0.0.255"),
    ipv4(icmp(8, 0, b"abcd"), 1, source="224.0.0.1"),
    ipv4(icmp(8, 0, b"abcd"), 1, source="127.0.0.1"),
    ipv4(icmp(8, 0, b"abcd"), 1, source="0.0.0.0"),
    ipv4(icmp(8, 0, b"abcd"), 1, source=STACK)])
def test_unwanted_packets_are_counted(peer: Peer, packet: bytes) -> None:
    """What is not for us, in fragments or from an impossible sender is dropped (RFC 1122, 3.2)."""
    assert peer.give(packet) == []
    assert peer.stack.stats().dropped_unwanted == 1


def test_frames_for_others_are_dropped(peer: Peer) -> None:
    """Another station's MAC address, or unicast IP in a broadcast frame (RFC 1122, 3.3.6)."""
    packet = ipv4(icmp(8, 0, b"abcd"), 1)
    peer.raw.send(ethernet(packet, to=b"\x02\0\0\0\0\x09"))
    peer.raw.send(ethernet(packet, to=BROADCAST))
    peer.raw.send(ethernet(packet, kind=0x86DD, to=peer.mac))
    peer.raw.send(ethernet(b"", to=peer.mac))
    assert peer.take() == []


def test_packets_are_never_to_be_fragmented(peer: Peer) -> None:
    """Such packets need no identification: zero, and the flag says so (RFC 6864, 4.1)."""
    [frame] = peer.give(ipv4(icmp(8, 0, bytes(4) + b"x"), 1))
    assert parse_ip(frame)[0][4:8] == b"\0\0\x40\0"


def test_port_unreachable(peer: Peer) -> None:
    """A datagram for a closed port is answered with ICMP 3/3 that quotes it (RFC 1122, 3.2.2.1)."""
    packet = ipv4(udp(1000, 53, b"question"), 17)
    [frame] = peer.give(packet)
    _, payload = parse_ip(frame)
    assert payload == icmp(3, 3, bytes(4) + packet[:28])
    [frame] = peer.give(ipv4(b"abcdefgh", 99))
    assert parse_ip(frame)[1][:2] == b"\x03\x02"  # no such protocol
    peer.raw.send(ethernet(ipv4(udp(1000, 53, b"", target="10.0.0.255"), 17, target="10.0.0.255")))
    assert peer.take() == []  # never in answer to a broadcast


def test_icmp_errors_are_limited(peer: Peer) -> None:
    """A flood for closed ports gets a hundred answers per second (RFC 1812, 4.3.2.8)."""
    packet = ipv4(udp(1000, 53, b"question"), 17)
    assert len(peer.give(*[packet] * 300)) == 100
    peer.after(1)
    assert len(peer.give(packet)) == 1


def test_udp(peer: Peer) -> None:
    """Datagrams in and out, exact; a zero checksum is none, a wrong one a drop."""
    with peer.stack.udp(53) as port:
        good = udp(1000, 53, b"abc")
        assert peer.give(ipv4(good, 17)) == []
        assert port.recvfrom(timeout=0) == (b"abc", (PEER, 1000))
        peer.give(ipv4(good[:6] + b"\0\0" + good[8:], 17))
        assert port.recvfrom(timeout=0)[0] == b"abc"
        peer.give(ipv4(good + b"padding", 17))  # the UDP length counts
        assert port.recvfrom(timeout=0)[0] == b"abc"
        peer.raw.send(ethernet(ipv4(udp(1, 53, b"all", target="10.0.0.255"), 17,
                                    target="10.0.0.255")))
        peer.take()
        assert port.recvfrom(timeout=0)[0] == b"all"
        for bad in (good[:6] + b"\x12\x34" + good[8:], good[:7], good[:4] + b"\0\x07" + good[6:],
                    good[:4] + b"\0\x0c" + good[6:]):
            assert peer.give(ipv4(bad, 17)) == []
        assert peer.stack.stats().dropped_malformed == 4
        port.sendto(b"answer", (PEER, 1000))
        [frame] = peer.take()
        assert parse_ip(frame)[1] == udp(53, 1000, b"answer", STACK, PEER)
        port.sendto(b"", ("10.0.0.255", 9))
        [frame] = peer.take()
        assert frame[:6] == BROADCAST


def test_udp_checksum_zero_is_sent_as_ones(peer: Peer) -> None:
    """A checksum that comes out as zero is sent as 0xffff, since zero means none (RFC 768)."""
    with peer.stack.udp(53) as port:
        bare = udp(53, 1000, b"\0\0", STACK, PEER)
        fill = struct.unpack("!H", bare[6:8])[0]
        port.sendto(struct.pack("!H", fill), (PEER, 1000))
        [frame] = peer.take()
        assert parse_ip(frame)[1][6:8] == b"\xff\xff"
