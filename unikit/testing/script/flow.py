"""The two views of one connection: a script's numbers, and those on the wire.

A script counts from the first sequence number of each side; the wire from where the stack and the
runner chose to begin. Data that the script sends is a fixed pattern, and what the application
writes is kept, so that every byte of both directions is verified.
"""

from __future__ import annotations

import dataclasses

from unikit.testing.script.model import Packet, TcpOption

_PERIOD = 65521
_PATTERN = bytes((at * 7 + at // 256) % 256 for at in range(_PERIOD)) * 3


def pattern(offset: int, length: int) -> bytes:
    """Return ``length`` bytes of the stream that a script's peer sends, from ``offset`` on."""
    offset %= _PERIOD
    piece = _PATTERN[offset:offset + length]
    while len(piece) < length:
        piece += _PATTERN[(offset + len(piece)) % _PERIOD:][:length - len(piece)]
    return piece


class Flow:
    """One connection, or pair of UDP ports.

    :ivar written: what the application gave to the stack for sending.
    :ivar read: how many bytes the application received.
    """

    def __init__(self, remote_port: int, local_port: int, base: int, remote: str = "") -> None:
        self.remote_port, self.local_port, self.base = remote_port, local_port, base
        self.remote = remote
        self.local_base: int | None = None  # on the wire minus in the script
        self.renew = True  # whether the stack may begin with a new number
        self.start = 1  # the script's number of the first byte from the peer
        self._syn: int | None = None
        self._open = False  # whether a SYN cannot begin the stream any more
        self._ts: dict[int, int] = {}
        self._ts_first: tuple[int, int] | None = None
        self.written = bytearray()
        self.read = 0

    def restart(self) -> None:
        """A new incarnation begins."""
        self.renew, self._ts, self._ts_first = True, {}, None
        self.written, self.read, self._open = bytearray(), 0, False

    # -- from the script to the wire ------------------------------------------------------------

    def to_wire(self, packet: Packet) -> Packet:
        """Return a segment of the script with the numbers and the data that go to the stack."""
        assert packet.seq is not None
        if "S" in packet.flags and self._syn != packet.seq:
            if "." not in packet.flags:
                self.renew = True
            self._syn = packet.seq
            if not self._open:
                self.start = packet.seq + 1
        elif "S" not in packet.flags:
            self._open = True
        local = self.local_base or 0
        ack = (packet.ack or 0) + local if "." in packet.flags else packet.ack or 0
        first = packet.seq + ("S" in packet.flags)
        return dataclasses.replace(
            packet, seq=(packet.seq + self.base) % 2**32, ack=ack % 2**32,
            window=65535 if packet.window is None else packet.window,
            payload=pattern(first - self.start, packet.length),
            options=tuple(self._option_to_wire(each) for each in packet.options or ()))

    def _option_to_wire(self, option: TcpOption) -> TcpOption:
        kind, *values = option
        local = self.local_base or 0
        if kind == "sack":
            return kind, *(((left + local) % 2**32, (right + local) % 2**32)
                           for left, right in values)
        if kind == "TS" and values[1]:
            return kind, values[0], self._ts_to_wire(values[1])
        return option

    def _ts_to_wire(self, value: int) -> int:
        if value in self._ts:
            return self._ts[value]
        first = self._ts_first or (0, 0)
        return (value - first[0] + first[1]) % 2**32

    # -- from the wire to the script ------------------------------------------------------------

    def to_script(self, seen: Packet, wanted: Packet | None) -> Packet:
        """Return a segment of the stack in the script's numbers.

        :param wanted: what the script expects; a SYN sets where the stack's numbers begin.
        """
        assert seen.seq is not None
        if "S" in seen.flags and self.renew:
            expected = wanted.seq if wanted is not None and wanted.seq is not None else 0
            if self._open and "." in seen.flags and seen.ack is not None:
                self.restart()  # an incarnation after TIME_WAIT
                self.start = (seen.ack - self.base) % 2**32
            self.local_base, self.renew = (seen.seq - expected) % 2**32, False
        local = self.local_base or 0
        seq = (seen.seq - local) % 2**32
        if "R" in seen.flags and seen.seq == 0:
            seq = 0  # in answer to what carried no ACK: no number of this connection
        ack = None if seen.ack is None else (seen.ack - self.base) % 2**32
        return dataclasses.replace(
            seen, seq=seq, ack=ack,
            options=tuple(self._option_to_script(each, wanted) for each in seen.options or ()))

    def _option_to_script(self, option: TcpOption, wanted: Packet | None) -> TcpOption:
        kind, *values = option
        if kind == "sack":
            return kind, *(((left - self.base) % 2**32, (right - self.base) % 2**32)
                           for left, right in values)
        if kind != "TS":
            return option
        said = next((each for each in (wanted.options or () if wanted else ())
                     if each[0] == "TS"), None)
        if said is not None:
            if self._ts_first is None:
                self._ts_first = (said[1], values[0])
            if self._ts.setdefault(said[1], values[0]) == values[0]:
                return kind, said[1], values[1]
        first = self._ts_first or (0, 0)
        return kind, (values[0] - first[1] + first[0]) % 2**32, values[1]

    def sent_as_written(self, packet: Packet) -> bool:
        """Whether the bytes of a segment (in the script's numbers) are what was written."""
        if not packet.payload or packet.seq is None:
            return True
        at = packet.seq - 1 + ("S" in packet.flags)
        return at >= 0 and bytes(self.written[at:at + packet.length]) == packet.payload
