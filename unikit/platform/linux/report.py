"""Read what an image says when it does not end by itself (the lines of ``guest/report.c``)."""

from __future__ import annotations

import re

from unikit.platform.api import BootImage

PREFIX = "unikit: "
_LIMIT = 1 << 16
_FAULT = re.compile(r"(?P<text>.*) vector=(?P<vector>\S+) error=(?P<error>\S+) "
                    r"address=(?P<address>\S+)$")
_PAGE_FAULT = 14


class Report:
    """The report of one image, collected from its standard error.

    :ivar kind: ``"panic"``, ``"fault"`` or empty.
    :ivar text: the panic's message, or the fault in words.
    :ivar refusal: why the image did not start, or empty.
    :ivar registers: name to value.
    """

    def __init__(self) -> None:
        self._data = b""
        self.kind = ""
        self.text = ""
        self.refusal = ""
        self.registers: dict[str, int] = {}
        self._fault: dict[str, int] = {}
        self._addresses: list[int] = []

    def feed(self, data: bytes) -> None:
        """Take more of the stream; lines count when they are complete."""
        *lines, rest = (self._data + data).split(b"\n")
        self._data = rest[:_LIMIT]
        for line in lines:
            self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        if not line.startswith(PREFIX):
            return
        word, _, rest = line.removeprefix(PREFIX).partition(": ")
        if word == "panic" and not self.kind:
            self.kind, self.text = "panic", rest
        elif word == "fault" and not self.kind:
            match = _FAULT.match(rest)
            self.kind, self.text = "fault", match["text"] if match else rest
            if match:
                self._fault = {name: _number(match[name])
                               for name in ("vector", "error", "address")}
        elif word == "registers":
            pairs = (pair.partition("=") for pair in rest.split())
            self.registers = {name: _number(value) for name, _, value in pairs}
        elif word == "backtrace":
            self._addresses = [_number(value) for value in rest.split()]
        elif not self.kind:
            self.refusal = line.removeprefix(PREFIX)

    def sentence(self, image: BootImage) -> str:
        """Return what happened, to follow the machine's name."""
        if self.kind == "panic":
            return f"panicked: {self.text}"
        where = ""
        if self._fault.get("vector") == _PAGE_FAULT:
            where = f" {self._fault['address']:#x}"
        said = f"faulted: {self.text}{where}"
        if self._addresses:
            said += f" in {image.symbolise(self._addresses[0])}"
        return said + f" (vector {self._fault.get('vector', 0)})"

    def frames(self, image: BootImage) -> list[str]:
        """Return the backtrace, innermost first: address and ``name+0x12``."""
        lines = []
        for index, address in enumerate(self._addresses):
            inside = address if index == 0 else address - 1  # a call may end its function
            name = image.symbolise(inside)
            if index and name != f"{inside:#x}":
                base, _, offset = name.rpartition("+")
                name = f"{base}+{int(offset, 16) + 1:#x}"
            elif index:
                name = f"{address:#x}"
            lines.append(f"{address:#x} {name}")
        return lines


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0
