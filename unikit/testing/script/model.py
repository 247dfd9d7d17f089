"""What a packet script says: packets, calls and code, each at a time.

A packet's text form is that of the script language, so that what was expected and what was seen
can be compared by eye.
"""

from __future__ import annotations

import dataclasses
from typing import Any

FLAGS = "FSRP.UEWA"
"""TCP flags in the order of their bits, FIN first."""

Ports = tuple[int, int]
TcpOption = tuple[Any, ...]


@dataclasses.dataclass(slots=True)
class Packet:
    """A packet, as a script states it or as the wire carried it.

    :ivar inbound: from the script to the stack (``<``); else from the stack (``>``).
    :ivar protocol: ``tcp``, ``udp`` or ``icmp``.
    :ivar ecn: ``noecn``, ``ect0``, ``ect1``, ``ce``, ``ect01`` (one of two); ``""``: unsaid.
    :ivar flags: letters of :data:`FLAGS`, in that order.
    :ivar seq: relative to the sender's first sequence number; ``None``: any.
    :ivar ack: ``None``: unsaid.
    :ivar window: as in the header, not scaled; ``None``: unsaid.
    :ivar options: ``None``: any.
    :ivar quoted: of an ICMP error, the packet it is about.
    """

    inbound: bool
    protocol: str = "tcp"
    line: int = 0
    ports: Ports | None = None
    ecn: str = ""
    tos: int | None = None
    ttl: int | None = None
    flags: str = ""
    seq: int | None = 0
    length: int = 0
    ack: int | None = None
    window: int | None = None
    urgent: int = 0
    options: tuple[TcpOption, ...] | None = ()
    icmp: tuple[str, str] = ("", "")
    mtu: int | None = None
    echo: int = 0
    quoted: Packet | None = None
    payload: bytes = b""
    addresses: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        words = ["<" if self.inbound else ">"]
        head = [self.ecn] if self.ecn else []
        head += [f"tos {self.tos:#04x}"] if self.tos is not None else []
        head += [f"ttl {self.ttl}"] if self.ttl is not None else []
        if head:
            words.append(f"[{','.join(head)}]")
        return " ".join([*words, *getattr(self, f"_{self.protocol}")()])

    def _icmp(self) -> list[str]:
        words = ["icmp", *filter(None, self.icmp)]
        words += [f"mtu {self.mtu}"] if self.mtu is not None else []
        words += [f"id {self.echo}"] if self.echo else []
        inner = self.quoted
        if inner is not None and inner.protocol == "udp":
            words.append(f"[udp ({inner.length})]")
        elif inner is not None:
            words.append(f"[{_range(inner)}]")
        return words

    def _udp(self) -> list[str]:
        return ["udp", *self._port_words(), f"({self.length})"]

    def _port_words(self) -> list[str]:
        return [f"{self.ports[0]} > {self.ports[1]}"] if self.ports else []

    def _tcp(self) -> list[str]:
        words = [*self._port_words(), self.flags or "-", _range(self)]
        words += [f"ack {self.ack}"] if self.ack is not None and "." in self.flags else []
        words += [f"win {self.window}"] if self.window is not None else []
        words += [f"urg {self.urgent}"] if self.urgent else []
        if self.options is None:
            words.append("<...>")
        elif self.options:
            words.append(f"<{','.join(map(option_text, self.options))}>")
        return words


def _range(packet: Packet) -> str:
    if packet.seq is None:
        return f"...({packet.length})"
    return f"{packet.seq}:{(packet.seq + packet.length) % 2**32}({packet.length})"


def option_text(option: TcpOption) -> str:
    """Return a TCP option as scripts write it.

    >>> option_text(("sack", (1001, 2001)))
    'sack 1001:2001'
    """
    kind, *values = option
    if kind == "sack":
        return " ".join(["sack", *(f"{left}:{right}" for left, right in values)])
    if kind == "TS":
        return f"TS val {values[0]} ecr {values[1]}"
    return " ".join([kind, *map(str, values)])


def flag_letters(text: str) -> str:
    """Return flags in the order of their bits, each once."""
    return "".join(letter for letter in FLAGS if letter in text)


@dataclasses.dataclass(frozen=True, slots=True)
class Word:
    """A name in a call's arguments: ``SOCK_STREAM``."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True, slots=True)
class Pick:
    """Alternatives joined by ``|``."""

    parts: tuple[Any, ...]

    def __str__(self) -> str:
        return "|".join(map(str, self.parts))


@dataclasses.dataclass(frozen=True, slots=True)
class Fields:
    """A structure: ``{fd=4, events=POLLIN}``."""

    values: dict[str, Any]

    def __str__(self) -> str:
        return "{" + ", ".join(f"{name}={value}" for name, value in self.values.items()) + "}"


@dataclasses.dataclass(slots=True)
class Call:
    """A socket call and what must come of it.

    :ivar end_us: when it must return, as its time is given; ``None``: at once.
    :ivar error: name of the error it must fail with.
    """

    name: str
    arguments: tuple[Any, ...]
    result: Any
    error: str = ""
    end_us: int | None = None

    def __str__(self) -> str:
        shown = ", ".join("..." if each is ... else str(each) for each in self.arguments)
        result = "..." if self.result is ... else self.result
        return f"{self.name}({shown}) = {result}{' ' + self.error if self.error else ''}"


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """Python that must run without an exception."""

    text: str

    def __str__(self) -> str:
        return f"%{{ {self.text} }}%"


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """A shell command, which is never run."""

    text: str

    def __str__(self) -> str:
        return f"`{self.text}`"


@dataclasses.dataclass(slots=True)
class Event:
    """Something that a script says of a moment.

    :ivar kind: ``absolute``, ``relative`` or ``any`` (whenever it comes).
    :ivar until_us: end of a range of times, else ``None``.
    """

    line: int
    kind: str
    at_us: int
    until_us: int | None
    action: Packet | Call | Code | Command


@dataclasses.dataclass(slots=True)
class Script:
    """A script taken apart.

    :ivar flags: its ``--name=value`` lines.
    :ivar heads: its comments of the form ``// name: value``, by name.
    :ivar cites: the lines of its leading comments that name a clause, ``RFC 9293 3.10.7.1``.
    """

    name: str
    events: list[Event]
    flags: dict[str, str]
    heads: dict[str, list[str]]
    cites: list[str]
