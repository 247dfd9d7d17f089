"""Frames built and taken apart in Python alone, and a raw peer for a stack in virtual time."""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from typing import Any

from unikit.net import Mini, Pipe
from unikit.testing import VirtualEnvironment

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
BROADCAST = b"\xff" * 6
PEER, STACK = "10.0.0.1", "10.0.0.2"
PEER_MAC = bytes.fromhex("020000000001")


def checksum(data: bytes) -> int:
    """Return the Internet checksum, straight from RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(ip: str) -> bytes:
    return ipaddress.IPv4Address(ip).packed


def ethernet(payload: bytes, kind: int = 0x0800, to: bytes = BROADCAST,
             source: bytes = PEER_MAC) -> bytes:
    return to + source + struct.pack("!H", kind) + payload


def arp(operation: int, sender_mac: bytes, sender: str, target_mac: bytes, target: str) -> bytes:
    return (struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac + packed(sender)
            + target_mac + packed(target))


def ipv4(payload: bytes, protocol: int, source: str = PEER, target: str = STACK, *,
         flags: int = 0x4000, options: bytes = b"", ttl: int = 64,
         total: int | None = None) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0,
                         20 + len(options) + len(payload) if total is None else total, 0, flags,
                         ttl, protocol, 0, packed(source), packed(target)) + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def pseudo(protocol: int, data: bytes, source: str, target: str) -> bytes:
    return packed(source) + packed(target) + struct.pack("!HH", protocol, len(data)) + data


def icmp(kind: int, code: int, rest: bytes) -> bytes:
    data = struct.pack("!BBH", kind, code, 0) + rest
    return data[:2] + struct.pack("!H", checksum(data)) + data[4:]


def udp(source_port: int, port: int, data: bytes, source: str = PEER, target: str = STACK) -> bytes:
    head = struct.pack("!HHHH", source_port, port, 8 + len(data), 0)
    value = checksum(pseudo(17, head + data, source, target)) or 0xFFFF
    return head[:6] + struct.pack("!H", value) + data


def tcp(source_port: int, port: int, seq: int, ack: int, flags: int, window: int = 65535,
        data: bytes = b"", options: bytes = b"", source: str = PEER, target: str = STACK) -> bytes:
    head = struct.pack("!HHIIBBHHH", source_port, port, seq % 2**32, ack % 2**32,
                       (5 + len(options) // 4) << 4, flags, window, 0, 0) + options
    value = checksum(pseudo(6, head + data, source, target))
    return head[:16] + struct.pack("!H", value) + head[18:] + data


@dataclasses.dataclass(frozen=True)
class Segment:
    """A TCP segment as it came out of the stack, checksums verified."""

    source_port: int
    port: int
    seq: int
    ack: int
    flags: int
    window: int
    options: bytes
    data: bytes

    @property
    def mss(self) -> int | None:
        at = self.options
        while at and at[0]:
            if at[0] == 1:
                at = at[1:]
            elif at[0] == 2:
                return int(struct.unpack("!H", at[2:4])[0])
            else:
                at = at[at[1]:]
        return None


def parse_tcp(frame: bytes) -> Segment:
    """Take a frame with a TCP segment apart; every checksum and length must be right."""
    ip, payload = parse_ip(frame)
    assert ip[9] == 6
    source, target = (str(ipaddress.IPv4Address(ip[i:i + 4])) for i in (12, 16))
    assert checksum(pseudo(6, payload, source, target)) == 0
    ports = struct.unpack("!HHIIBBH", payload[:16])
    size = (ports[4] >> 4) * 4
    assert payload[18:20] == b"\0\0"
    return Segment(ports[0], ports[1], ports[2], ports[3], ports[5], ports[6], payload[20:size],
                   payload[size:])


def parse_ip(frame: bytes) -> tuple[bytes, bytes]:
    """Return header and payload of an IPv4 frame."""
    assert frame[12:14] == b"\x08\x00"
    ip = frame[14:34]
    assert ip[0] == 0x45 and checksum(ip) == 0
    assert struct.unpack("!H", ip[2:4])[0] == len(frame) - 14
    return ip, frame[34:]


class Peer:
    """The raw end of a pipe at whose other end a stack stands, in virtual time."""

    def __init__(self, known: bool = True, answers: bool = False, **options: Any) -> None:
        self.answers = answers  # questions for its MAC address, unseen by the test
        self.env = VirtualEnvironment(seed=1)
        self.raw, self._end = Pipe(slots=2048).open()
        self.env.advance(10)
        self.stack = Mini(address=STACK + "/24", **options).open(self._end, env=self.env)
        self.mac = self._end.mac
        if known:  # make acquaintance: the stack asks nobody from here on
            self.take()
            self.raw.send(ethernet(arp(1, PEER_MAC, PEER, bytes(6), STACK), 0x0806))
            self.take()

    def close(self) -> None:
        self.stack.check()
        self.stack.close()
        self._end.close()
        self.raw.close()
        self.env.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> list[bytes]:
        """Let the stack work off what there is now, and return the frames it sent."""
        frames = []
        for _ in range(200):
            busy = self.stack.poll()
            while frame := self.raw.receive():
                if self.answers and frame[12:14] == b"\x08\x06":
                    self.raw.send(ethernet(arp(2, PEER_MAC, PEER, self.mac, STACK), 0x0806))
                    busy = True
                else:
                    frames.append(frame)
            if not busy:
                break
        self.stack.check()
        return frames

    def after(self, seconds: float) -> list[bytes]:
        """Let time pass, without missing a timer, and return the frames of that time."""
        frames, end = [], self.env.now_ns() + round(seconds * 1e9)
        while True:
            frames += self.take()
            deadline = self.stack.deadline_ns
            if deadline is None or deadline > end:
                break
            self.env.advance(max(deadline - self.env.now_ns(), 0) / 1e9)
        self.env.advance((end - self.env.now_ns()) / 1e9)
        return frames + self.take()

    def give(self, *payloads: bytes, kind: int = 0x0800) -> list[bytes]:
        """Send packets to the stack and return what it answers at once."""
        for payload in payloads:
            self.raw.send(ethernet(payload, kind, self.mac))
        return self.take()

    def segments(self, *packets: bytes) -> list[Segment]:
        return [parse_tcp(frame) for frame in self.give(*(ipv4(each, 6) for each in packets))]


class Talk:
    """A TCP connection of a raw peer; sequence numbers are relative to the first of each side."""

    def __init__(self, peer: Peer, port: int = 80, own_port: int = 5000, iss: int = 1000) -> None:
        self.peer, self.port, self.own_port = peer, port, own_port
        self.iss, self.irs = iss, 0

    def packet(self, seq: int, ack: int, flags: int = ACK, window: int = 65535, data: bytes = b"",
               options: bytes = b"") -> bytes:
        return tcp(self.own_port, self.port, self.iss + seq, self.irs + ack if flags & ACK else 0,
                   flags, window, data, options)

    def say(self, seq: int, ack: int, flags: int = ACK, window: int = 65535, data: bytes = b"",
            options: bytes = b"") -> list[tuple[int, int, int, int]]:
        """Send one segment; the answers as (flags, seq, ack, length)."""
        return self.brief(self.peer.segments(self.packet(seq, ack, flags, window, data, options)))

    def brief(self, segments: list[Segment]) -> list[tuple[int, int, int, int]]:
        return [(s.flags, (s.seq - self.irs) % 2**32,
                 (s.ack - self.iss) % 2**32 if s.flags & ACK else 0, len(s.data))
                for s in segments]

    def after(self, seconds: float) -> list[tuple[int, int, int, int]]:
        return self.brief([parse_tcp(frame) for frame in self.peer.after(seconds)])

    def open(self, window: int = 65535, options: bytes = b"\x02\x04\x05\xb4") -> Segment:
        """Shake hands with a listener of the stack; its SYN."""
        [answer] = self.peer.segments(self.packet(0, 0, SYN, window, options=options))
        assert answer.flags == SYN | ACK and answer.ack == self.iss + 1
        self.irs = answer.seq
        assert self.say(1, 1, window=window) == []
        return answer
