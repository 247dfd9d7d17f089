"""The language of packet scripts: words, then events by recursive descent.

The language is packetdrill's (Cardwell et al., USENIX ATC 2013), written anew from its
description; preprocessor lines (``#ifdef``) as some collections use them are understood too.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from unikit.errors import InvalidArgument
from unikit.testing.script.model import (
    Call,
    Code,
    Command,
    Event,
    Fields,
    Packet,
    Pick,
    Script,
    TcpOption,
    Word,
    flag_letters,
)

_HEX16 = r"[0-9a-fA-F]{1,4}"
_PATTERN = re.compile(rf"""
    (?P<skip>[ \t\r\n]+|//[^\n]*|/\*.*?\*/)
  | (?P<code>%\{{.*?\}}%)
  | (?P<flag>--[a-zA-Z0-9_]+(?:=(?:\w+=)?(?:"[^"\n]*"|`[^`\n]*`|[^\s"`]*))?)
  | (?P<shell>`(?:\\.|[^`])*`)
  | (?P<string>"(?:\\.|[^"])*")
  | (?P<ipv6>(?:{_HEX16}:){{7}}{_HEX16}
      |(?:{_HEX16}(?::{_HEX16})*)?::(?:{_HEX16}(?::{_HEX16})*)?(?::\d+\.\d+\.\d+\.\d+)?)
  | (?P<ipv4>\d+\.\d+\.\d+\.\d+)
  | (?P<dots>\.\.\.)
  | (?P<float>-?\d*\.\d+)
  | (?P<hex>0x[0-9a-fA-F]+)
  | (?P<int>-?\d+(?![A-Za-z0-9_]))
  | (?P<word>[A-Za-z0-9_]+\#?)
  | (?P<sign>[^\s])
""", re.VERBOSE | re.DOTALL)
_HEAD = re.compile(r"^//\s*([a-z]+):\s*(.*\S)\s*$")
_CITE = re.compile(r"^//\s*(RFC\s+\d+\b.*\S)\s*$")
_ECN = ("noecn", "ect0", "ect1", "ect01", "ce")
_NUMBERED = {"mss": 65535, "wscale": 255}


class ScriptError(InvalidArgument):
    """A script that breaks the language; the message says where and what was expected."""


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """A word of the language and where it stands."""

    kind: str
    text: str
    line: int


def tokens(text: str) -> list[Token]:
    """Split a script into words; comments and space are left out."""
    found, line = [], 1
    for match in _PATTERN.finditer(text):
        kind, word = str(match.lastgroup), match.group()
        if kind != "skip":
            found.append(Token(kind, word, line))
        line += word.count("\n")
    return found


def parse(text: str, name: str = "script", defines: dict[str, str] | None = None) -> Script:
    """Take a script apart.

    :param defines: symbols that ``#ifdef`` finds, and words that stand for others.
    :raises ScriptError: it breaks the language.
    """
    heads: dict[str, list[str]] = {}
    cites: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("//"):
            break
        if match := _HEAD.match(stripped):
            heads.setdefault(match[1], []).append(match[2])
        if match := _CITE.match(stripped):
            cites.append(match[1])
    return _Parser(_conditioned(text, defines or {}), name, dict(defines or {})).script(heads,
                                                                                        cites)


def _conditioned(text: str, defines: dict[str, str]) -> str:
    """Blank out what ``#ifdef`` leaves out, and the directives."""
    kept, live = [], [True]
    for line in text.split("\n"):
        word = line.split()[0] if line.startswith("#") and line.split() else ""
        if word in ("#ifdef", "#ifndef", "#if"):
            known = len(line.split()) > 1 and line.split()[1] in defines
            live.append(live[-1] and known == (word != "#ifndef"))
        elif word == "#else" and len(live) > 1:
            was = live.pop()
            live.append(live[-1] and not was)
        elif word == "#endif" and len(live) > 1:
            live.pop()
        kept.append(line if live[-1] and not word.startswith("#") else "")
    return "\n".join(kept)


class _Parser:
    def __init__(self, text: str, name: str, defines: dict[str, str]) -> None:
        self._tokens = [*tokens(text), Token("end", "the end", text.count("\n") + 1)]
        self._at, self._name, self._defines = 0, name, defines

    # -- words --------------------------------------------------------------------------------

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _fail(self, expected: str) -> ScriptError:
        return ScriptError(f"{self._name}:{self._next.line}: expected {expected}, "
                           f"found {self._next.text!r}")

    def _take(self, kind: str, expected: str = "") -> str:
        if self._next.kind != kind:
            raise self._fail(expected or f"a {kind}")
        self._at += 1
        return self._tokens[self._at - 1].text

    def _is(self, text: str, ahead: int = 0) -> bool:
        at = min(self._at + ahead, len(self._tokens) - 1)
        token = self._tokens[at]
        return token.text == text and token.kind in ("sign", "word", "dots")

    def _eat(self, text: str) -> bool:
        if self._is(text):
            self._at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._eat(text):
            raise self._fail(repr(text))

    def _int(self) -> int:
        if self._next.kind == "hex":
            return int(self._take("hex"), 16)
        return int(self._take("int", "a number"))

    # -- events -------------------------------------------------------------------------------

    def script(self, heads: dict[str, list[str]], cites: list[str]) -> Script:
        flags: dict[str, str] = {}
        while self._next.kind == "flag":
            name, _, value = self._take("flag")[2:].partition("=")
            if name == "define":
                symbol, _, meaning = value.partition("=")
                self._defines[symbol] = meaning
            flags[name] = value.strip('"')
        events = []
        if self._next.kind == "shell":
            events.append(Event(self._next.line, "relative", 0, None,
                                Command(self._take("shell")[1:-1])))
        while self._next.kind != "end":
            if self._next.kind == "shell":  # what cleans up, behind the last event
                self._at += 1
                continue
            events.append(self._event())
        return Script(self._name, events, flags, heads, cites)

    def _us(self) -> int:
        if self._next.kind not in ("int", "float") or self._next.text.startswith("-"):
            raise self._fail("a time")
        self._at += 1
        return round(float(self._tokens[self._at - 1].text) * 1e6)

    def _event(self) -> Event:
        line = self._next.line
        kind, at, until = "absolute", 0, None
        if self._eat("*"):
            kind = "any"
        else:
            if self._eat("+"):
                kind = "relative"
            at = self._us()
            if self._eat("~"):
                if kind == "relative":
                    self._need("+")
                until = self._us()
        action = self._action()
        outbound = isinstance(action, Packet) and not action.inbound
        if (kind == "any" or until is not None) and not outbound:
            raise ScriptError(f"{self._name}:{line}: only a packet from the stack may come at an "
                              "open time")
        if until is not None and until < at:
            raise ScriptError(f"{self._name}:{line}: the range of times is backwards")
        return Event(line, kind, at, until, action)

    def _action(self) -> Packet | Call | Code | Command:
        if self._next.kind == "code":
            text = self._take("code")[2:-2].strip(" \t")
            return Code(text)
        if self._next.kind == "shell":
            return Command(self._take("shell")[1:-1])
        if self._is("<") or self._is(">"):
            return self._packet()
        return self._call()

    # -- packets ------------------------------------------------------------------------------

    def _packet(self) -> Packet:
        packet = Packet(inbound=self._is("<"), line=self._next.line)
        self._at += 1
        self._ip_words(packet)
        if self._next.text in ("ipv4", "ipv6", "gre", "GREv0", "mpls", "encap"):
            raise ScriptError(f"{self._name}:{packet.line}: encapsulation ({self._next.text}) is "
                              "not supported")
        if self._eat("icmp"):
            return self._icmp(packet)
        if self._eat("udp"):
            packet.protocol = "udp"
            packet.ports = self._ports()
            self._need("(")
            packet.length = self._int()
            self._need(")")
            return packet
        return self._tcp(packet)

    def _ip_words(self, packet: Packet) -> None:
        closing = {"(": ")", "[": "]"}.get(self._next.text)
        if closing is None:
            return
        self._at += 1
        while not self._eat(closing):
            word = self._take("word", "a word on the IP header")
            if word in _ECN:
                packet.ecn = word
            elif word == "tos":
                packet.tos = self._int()
            elif word == "ttl":
                packet.ttl = self._int()
            elif word == "flowlabel":
                self._int()
            else:
                raise self._fail("ECN, tos or ttl")
            self._eat(",")

    def _ports(self) -> tuple[int, int] | None:
        if self._next.kind != "int" or not self._is(">", 1):
            return None
        source = self._int()
        self._need(">")
        target = self._int()
        if not (0 < source < 65536 and 0 < target < 65536):
            raise self._fail("ports in 1...65535")
        return source, target

    def _tcp(self, packet: Packet) -> Packet:
        packet.ports = self._ports()
        packet.flags = self._flags()
        packet.seq, packet.length = self._range()
        if self._eat("ack"):
            packet.ack = self._int()
        if self._eat("win"):
            packet.window = self._int()
        if self._eat("urg"):
            packet.urgent = self._int()
        if self._eat("<"):
            packet.options = self._options()
        if packet.inbound and packet.options is None:
            raise ScriptError(f"{self._name}:{packet.line}: <...> fits packets from the stack only")
        return packet

    def _flags(self) -> str:
        if self._eat("-"):
            return ""
        if self._next.kind == "float":
            raise ScriptError(f"{self._name}:{self._next.line}: AccECN counters are not supported")
        text = self._take("word") if self._next.kind == "word" else ""
        if self._eat("."):
            text += "."
        if not text or set(text) - set("FSRP.UEWA"):
            raise self._fail("TCP flags")
        return flag_letters(text)

    def _range(self) -> tuple[int | None, int]:
        if self._next.kind == "dots":
            self._at += 1
            self._need("(")
            length = self._int()
            self._need(")")
            return None, length
        start = self._int()
        self._need(":")
        end = self._int()
        self._need("(")
        length = self._int()
        if (start + length) % 2**32 != end:
            raise self._fail(f"{(start + length) % 2**32} as end of {start} and {length} bytes")
        self._need(")")
        return start, length

    def _options(self) -> tuple[TcpOption, ...] | None:
        if self._next.kind == "dots":
            self._at += 1
            self._need(">")
            return None
        found = [self._option()]
        while self._eat(","):
            found.append(self._option())
        self._need(">")
        return tuple(found)

    def _option(self) -> TcpOption:
        kind = self._take("word", "a TCP option")
        if kind in ("nop", "eol", "sackOK"):
            return (kind,)
        if kind in _NUMBERED:
            value = self._int()
            if not 0 <= value <= _NUMBERED[kind]:
                raise self._fail(f"{kind} up to {_NUMBERED[kind]}")
            return kind, value
        if kind == "TS":
            self._need("val")
            value = self._int()
            self._need("ecr")
            return kind, value, self._int()
        if kind == "sack":
            return (kind, *self._blocks())
        if kind in ("FO", "FOEXP", "md5"):
            blob = self._next.kind in ("word", "int")
            return (kind, self._take(self._next.kind)) if blob else (kind, "")
        if kind == "ECN":
            while self._next.text not in (",", ">"):
                self._at += 1
            return (kind,)
        raise self._fail("a TCP option")

    def _blocks(self) -> list[tuple[int, int]]:
        found = []
        while self._next.kind == "int":
            left = self._int()
            self._need(":")
            found.append((left, self._int()))
        return found

    def _icmp(self, packet: Packet) -> Packet:
        packet.protocol = "icmp"
        kind = self._take("word", "an ICMP type")
        known = ("mtu", "id")
        code = self._take("word") if self._next.kind == "word" and \
            self._next.text not in known else ""
        packet.icmp = (kind, self._defines.get(code, code))
        if self._eat("mtu"):
            packet.mtu = self._int()
        if self._eat("id"):
            packet.echo = self._int()
        if self._eat("["):
            inner = Packet(inbound=not packet.inbound, line=packet.line)
            if self._eat("udp"):
                inner.protocol = "udp"
                self._need("(")
                inner.length = self._int()
                self._need(")")
            else:
                inner.seq, inner.length = self._range()
            self._need("]")
            packet.quoted = inner
        return packet

    # -- calls --------------------------------------------------------------------------------

    def _call(self) -> Call:
        end = None
        if self._next.kind == "dots":
            self._at += 1
            end = self._us()
        name = self._take("word", "a packet, a call, code or a command")
        self._need("(")
        arguments = []
        while not self._eat(")"):
            arguments.append(self._expression())
            if not self._is(")"):
                self._need(",")
        self._need("=")
        result = self._expression()
        error = self._take("word") if self._next.kind == "word" else ""
        if self._eat("("):
            while not self._eat(")"):
                self._at += 1
                if self._next.kind == "end":
                    raise self._fail("')'")
        return Call(name, tuple(arguments), result, error, end)

    def _expression(self) -> Any:
        parts = [self._term()]
        while self._eat("|"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else Pick(tuple(parts))

    def _term(self) -> Any:
        token = self._next
        if token.kind == "dots":
            self._at += 1
            return ...
        if token.kind in ("int", "hex"):
            return self._int()
        if token.kind == "float":
            self._at += 1
            return float(token.text)
        if token.kind == "string":
            return self._string()
        if token.kind in ("ipv4", "ipv6"):
            self._at += 1
            return token.text
        if self._eat("["):
            return self._list("]")
        if self._eat("{"):
            return self._structure()
        if token.kind == "word":
            return self._name_or_function()
        raise self._fail("a value")

    def _string(self) -> str:
        text = ""
        while self._next.kind == "string":
            text += self._take("string")[1:-1].encode().decode("unicode_escape")
        if self._next.kind == "dots":
            self._at += 1
        return text

    def _name_or_function(self) -> Any:
        name = self._take("word")
        if self._eat("("):
            inner = self._list(")")
            return inner[0] if inner else ...
        meaning = self._defines.get(name)
        if meaning is not None:
            return int(meaning, 0) if re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", meaning) else \
                Word(meaning)
        return Word(name)

    def _list(self, closing: str) -> list[Any]:
        found = []
        while not self._eat(closing):
            found.append(self._expression())
            if not self._is(closing):
                self._need(",")
        return found

    def _structure(self) -> Any:
        values: dict[str, Any] = {}
        while not self._eat("}"):
            item: Any = None
            if self._next.kind == "word" and self._field():
                name = self._take("word")
                if self._eat("("):
                    self._list(")")
                self._need("=")
                values[name] = self._expression()
            else:
                item = self._expression()
                values[str(len(values))] = item
            if not self._is("}"):
                self._need(",")
        return Fields(values)

    def _field(self) -> bool:
        return self._is("=", 1) or (self._is("(", 1) and (self._is("=", 4)))


__all__ = ["ScriptError", "Token", "parse", "tokens"]
