"""Frames built and taken apart in Python alone, so that a script judges a stack by other eyes."""

from __future__ import annotations

import ipaddress
import struct

from unikit.testing.script.model import FLAGS, Packet, TcpOption

PEER_MAC = bytes.fromhex("02000000000a")
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58

_ECN = {"noecn": 0, "ect1": 1, "ect0": 2, "ce": 3}
_ECN_NAMES = {value: name for name, value in _ECN.items()}
_KINDS = {0: "eol", 1: "nop", 2: "mss", 3: "wscale", 4: "sackOK", 5: "sack", 8: "TS", 19: "md5",
          34: "FO", 172: "ECN", 174: "ECN"}

# What scripts call types and codes: (type, {code name: code}), for IPv4 and IPv6.
_ICMP4 = {
    "unreachable": (3, {"": 0, "net_unreachable": 0, "host_unreachable": 1,
                        "protocol_unreachable": 2, "port_unreachable": 3, "frag_needed": 4,
                        "source_route_failed": 5, "net_unreachable_for_tos": 11,
                        "host_unreachable_for_tos": 12, "packet_filtered": 13}),
    "echo_request": (8, {"": 0}), "echo_reply": (0, {"": 0}), "source_quench": (4, {"": 0}),
    "time_exceeded": (11, {"": 0, "exceeded_in_transit": 0, "exceeded_reassembly": 1}),
    "redirect": (5, {"": 0}), "parameter_problem": (12, {"": 0})}
_ICMP6 = {
    "unreachable": (1, {"": 0, "no_route": 0, "admin_prohibited": 1, "not_neighbour": 2,
                        "address_unreachable": 3, "port_unreachable": 4,
                        "net_unreachable": 0, "host_unreachable": 3}),
    "packet_too_big": (2, {"": 0}),
    "echo_request": (128, {"": 0}), "echo_reply": (129, {"": 0}),
    "time_exceeded": (3, {"": 0, "exceeded_in_transit": 0, "exceeded_reassembly": 1}),
    "parameter_problem": (4, {"": 0})}


class BadFrame(Exception):
    """A frame that no receiver would take; says what is wrong with it."""


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071): the sum of 16-bit words modulo 65535."""
    value = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    total = value % 0xFFFF
    return ~(total if total or not value else 0xFFFF) & 0xFFFF


def packed(address: str) -> bytes:
    """Return an address as it stands in headers."""
    return ipaddress.ip_address(address).packed


def _pseudo(source: bytes, target: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + target + struct.pack("!HH", protocol, length)
    return source + target + struct.pack("!II", length, protocol)


def ethernet(payload: bytes, kind: int, target: bytes) -> bytes:
    """Return an Ethernet frame from the script's peer."""
    return target + PEER_MAC + struct.pack("!H", kind) + payload


def ip(source: str, target: str, protocol: int, payload: bytes, *, tos: int = 0,
       ttl: int = 64) -> bytes:
    """Return an IP packet of the family of its addresses, not to be fragmented."""
    there, here = packed(target), packed(source)
    if len(here) == 16:
        return struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), protocol, ttl) \
            + here + there + payload
    head = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), 0, 0x4000, ttl, protocol,
                       0) + here + there
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def tos_of(packet: Packet) -> int:
    """Return the byte for type of service and ECN that a packet of a script asks for."""
    if packet.tos is not None:
        return packet.tos
    return _ECN.get(packet.ecn, 0)


def option_bytes(options: tuple[TcpOption, ...]) -> bytes:
    """Return TCP options on the wire, padded with zeros to a multiple of four."""
    out = b""
    for kind, *values in options:
        if kind in ("nop", "eol"):
            out += b"\x01" if kind == "nop" else b"\0"
        elif kind == "mss":
            out += struct.pack("!BBH", 2, 4, values[0])
        elif kind == "wscale":
            out += struct.pack("!BBB", 3, 3, values[0])
        elif kind == "sackOK":
            out += b"\x04\x02"
        elif kind == "sack":
            out += struct.pack("!BB", 5, 2 + 8 * len(values))
            out += b"".join(struct.pack("!II", *block) for block in values)
        elif kind == "TS":
            out += struct.pack("!BBII", 8, 10, *values)
        elif kind in ("FO", "FOEXP"):
            blob = _hex(values[0])
            out += struct.pack("!BB", 34, 2 + len(blob)) + blob if kind == "FO" else \
                struct.pack("!BBH", 254, 4 + len(blob), 0xF989) + blob
        else:
            raise NotImplementedError(f"the {kind} option")
    return out + bytes(-len(out) % 4)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise NotImplementedError(f"the cookie {text}") from None


def options_of(raw: bytes) -> tuple[TcpOption, ...]:
    """Take TCP options apart; padding with zeros behind the end of the list is left out.

    :raises BadFrame: a length that does not fit.
    """
    found: list[TcpOption] = []
    while raw:
        kind = raw[0]
        if kind in (0, 1):
            found.append((_KINDS[kind],))
            raw = raw[1:] if kind else b""
            continue
        if len(raw) < 2 or not 2 <= raw[1] <= len(raw):
            raise BadFrame(f"TCP option {kind} with a length that does not fit")
        found.append(_one_option(kind, raw[2:raw[1]]))
        raw = raw[raw[1]:]
    return tuple(found)


def _one_option(kind: int, data: bytes) -> TcpOption:
    lengths = {2: 2, 3: 1, 4: 0, 8: 8}
    if kind in lengths and len(data) != lengths[kind] or kind == 5 and len(data) % 8:
        raise BadFrame(f"TCP option {_KINDS[kind]} of {len(data) + 2} bytes")
    if kind in (2, 3):
        return _KINDS[kind], int.from_bytes(data, "big")
    if kind == 4:
        return ("sackOK",)
    if kind == 5:
        return "sack", *(struct.unpack("!II", data[at:at + 8]) for at in range(0, len(data), 8))
    if kind == 8:
        return "TS", *struct.unpack("!II", data)
    return _KINDS.get(kind, f"option-{kind}"), data.hex()


def tcp(source: str, target: str, packet: Packet, ports: tuple[int, int], *, tos: int,
        ttl: int) -> bytes:
    """Return an IP packet with a segment whose numbers are those on the wire."""
    options = option_bytes(packet.options or ())
    flags = sum(1 << FLAGS.index(letter) for letter in packet.flags)
    head = struct.pack("!HHIIHHHH", *ports, packet.seq or 0, packet.ack or 0,
                       (5 + len(options) // 4) << 12 | flags, packet.window or 0, 0,
                       packet.urgent) + options
    pseudo = _pseudo(packed(source), packed(target), TCP, len(head) + len(packet.payload))
    value = checksum(pseudo + head + packet.payload)
    return ip(source, target, TCP, head[:16] + struct.pack("!H", value) + head[18:]
              + packet.payload, tos=tos, ttl=ttl)


def udp(source: str, target: str, ports: tuple[int, int], payload: bytes, *, tos: int = 0,
        ttl: int = 64) -> bytes:
    """Return an IP packet with a UDP datagram."""
    head = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    pseudo = _pseudo(packed(source), packed(target), UDP, len(head) + len(payload))
    value = checksum(pseudo + head + payload) or 0xFFFF
    return ip(source, target, UDP, head[:6] + struct.pack("!H", value) + payload, tos=tos, ttl=ttl)


def icmp_numbers(packet: Packet, version: int) -> tuple[int, int]:
    """Return type and code that a script's names stand for.

    :raises NotImplementedError: a name that is not known.
    """
    kind, code = packet.icmp
    names = _ICMP6 if version == 6 else _ICMP4
    if kind not in names:
        raise NotImplementedError(f"the ICMP type {kind}")
    number, codes = names[kind]
    if code and code not in codes:
        raise NotImplementedError(f"the ICMP code {code}")
    return number, codes[code]


def icmp(source: str, target: str, kind: int, code: int, rest: bytes, *, tos: int = 0,
         ttl: int = 64) -> bytes:
    """Return an IP packet with an ICMP message; ``rest`` begins with its second word."""
    data = struct.pack("!BBH", kind, code, 0) + rest
    if ":" in source:
        value = checksum(_pseudo(packed(source), packed(target), ICMP6, len(data)) + data)
    else:
        value = checksum(data)
    return ip(source, target, ICMP6 if ":" in source else ICMP,
              data[:2] + struct.pack("!H", value) + data[4:], tos=tos, ttl=ttl)


def decode(frame: bytes) -> Packet | None:
    """Take a frame of the stack apart; ``None``: not TCP, UDP or ICMP.

    Numbers are those on the wire.

    :raises BadFrame: a length or a checksum is wrong.
    """
    kind = int.from_bytes(frame[12:14], "big")
    if kind == IPV4:
        return _ipv4(frame[14:])
    return _ipv6(frame[14:]) if kind == IPV6 else None


def _ipv4(data: bytes) -> Packet | None:
    size = (data[0] & 15) * 4
    total = int.from_bytes(data[2:4], "big")
    if data[0] >> 4 != 4 or size < 20 or not size <= total <= len(data):
        raise BadFrame("IPv4 lengths that do not fit")
    if checksum(data[:size]) != 0:
        raise BadFrame("a wrong IPv4 header checksum")
    return _payload(data[9], data[12:16], data[16:20], data[1], data[8], data[size:total])


def _ipv6(data: bytes) -> Packet | None:
    length = int.from_bytes(data[4:6], "big")
    if data[0] >> 4 != 6 or 40 + length > len(data):
        raise BadFrame("IPv6 lengths that do not fit")
    tos = (data[0] & 15) << 4 | data[1] >> 4
    return _payload(data[6], data[8:24], data[24:40], tos, data[7], data[40:40 + length])


def _payload(protocol: int, source: bytes, target: bytes, tos: int, ttl: int,
             data: bytes) -> Packet | None:
    reader = {TCP: _tcp, UDP: _udp, ICMP: _icmp, ICMP6: _icmp}.get(protocol)
    if reader is None:
        return None
    pseudo = b"" if protocol == ICMP else _pseudo(source, target, protocol, len(data))
    if checksum(pseudo + data) != 0 and not (protocol == UDP and data[6:8] == b"\0\0"):
        raise BadFrame(f"a wrong checksum in protocol {protocol}")
    packet = reader(data)
    packet.ecn, packet.tos, packet.ttl = _ECN_NAMES[tos & 3], tos, ttl
    packet.addresses = (str(ipaddress.ip_address(source)), str(ipaddress.ip_address(target)))
    if protocol in (ICMP, ICMP6):
        packet.icmp = _icmp_names(data[0], data[1], 6 if protocol == ICMP6 else 4)
    return packet


def _tcp(data: bytes) -> Packet:
    if len(data) < 20 or not 20 <= (data[12] >> 4) * 4 <= len(data):
        raise BadFrame("a TCP header whose length does not fit")
    ports = struct.unpack("!HH", data[:4])
    seq, ack, word, window, _, urgent = struct.unpack("!IIHHHH", data[4:20])
    size = (word >> 12) * 4
    letters = "".join(letter for bit, letter in enumerate(FLAGS) if word >> bit & 1)
    return Packet(inbound=False, ports=(ports[0], ports[1]), flags=letters, seq=seq,
                  ack=ack if "." in letters else None, window=window, urgent=urgent,
                  length=len(data) - size, options=options_of(data[20:size]), payload=data[size:])


def _udp(data: bytes) -> Packet:
    if len(data) < 8 or int.from_bytes(data[4:6], "big") != len(data):
        raise BadFrame("a UDP length that does not fit")
    ports = struct.unpack("!HH", data[:4])
    return Packet(inbound=False, protocol="udp", ports=(ports[0], ports[1]), length=len(data) - 8,
                  payload=data[8:])


def _icmp(data: bytes) -> Packet:
    if len(data) < 8:
        raise BadFrame("an ICMP message of less than 8 bytes")
    return Packet(inbound=False, protocol="icmp", payload=data[8:],
                  echo=int.from_bytes(data[4:6], "big"), mtu=int.from_bytes(data[4:8], "big"))


def _icmp_names(kind: int, code: int, version: int) -> tuple[str, str]:
    for name, (number, codes) in (_ICMP6 if version == 6 else _ICMP4).items():
        if number == kind:
            return name, next((word for word, value in codes.items() if word and value == code),
                              "")
    return f"type-{kind}", f"code-{code}"


def neighbour_answer(frame: bytes) -> bytes | None:
    """Return the frame that answers an ARP request or a neighbour solicitation; else ``None``.

    Every address but the stack's own gets an answer; nobody answers a probe for that one.
    """
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ARP and frame[20:22] == b"\0\1":
        sender, wanted = frame[28:32], frame[38:42]
        if sender == wanted or sender == bytes(4):
            return None
        return ethernet(frame[14:20] + b"\0\2" + PEER_MAC + wanted + frame[22:28] + sender, ARP,
                        frame[6:12])
    if kind == IPV6 and frame[20] == ICMP6 and frame[54] == 135:
        source, wanted = frame[22:38], frame[62:78]
        if source == bytes(16):
            return None
        answer = icmp(str(ipaddress.ip_address(wanted)), str(ipaddress.ip_address(source)), 136, 0,
                      struct.pack("!I", 0x60000000) + wanted + b"\x02\x01" + PEER_MAC, ttl=255)
        return ethernet(answer, IPV6, frame[6:12])
    return None


def is_housekeeping(frame: bytes) -> bool:
    """Whether a frame belongs to address resolution, configuration or group membership."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == IPV6 and len(frame) > 54:
        at = 54 + (8 if frame[20] == 0 else 0)  # behind a hop-by-hop header
        protocol = frame[54] if frame[20] == 0 else frame[20]
        return protocol == ICMP6 and frame[at] in (130, 131, 132, 133, 134, 135, 136, 143)
    return kind != IPV4 or frame[23] == 2
