"""Read what an image says when it does not end by itself.

The lines of ``linux/guest/report.c``, which other platforms with a text channel write, too.
"""

from __future__ import annotations

from unikit.platform.api import PAGE, BootImage
from unikit.platform.stack import printable

PREFIX = "unikit: "
_LIMIT = 1 << 16
_PAGE_FAULT = 14
_SEGV_ACCERR = 2
_PRESENT, _WRITE, _FETCH = 1, 2, 16
_VECTORS = {
    0: "division error", 3: "breakpoint", 6: "invalid instruction",
    12: "non-canonical stack address", 13: "privileged instruction or non-canonical address",
    16: "floating point error", 17: "unaligned access", 19: "vector arithmetic error",
}


class Report:
    """The report of one image, collected from its standard error.

    :ivar kind: ``"panic"``, ``"fault"`` or empty.
    :ivar text: the panic's message.
    :ivar code: the image's exit code where it is in the report, or ``None``.
    :ivar refusal: why the image did not start, or empty.
    :ivar other: the last line that is not of the report: a monitor's own complaint.
    :ivar registers: name to value; ``vec``, ``err`` and ``cr2`` of the exception, ``cod`` the
        ``si_code`` of its signal, ``stk`` the lowest address of the stack.
    :ivar task: the task whose stack ran over, or empty.
    """

    def __init__(self) -> None:
        self._data = b""
        self.kind = ""
        self.text = ""
        self.refusal = ""
        self.other = ""
        self.code: int | None = None
        self.task = ""
        self.registers: dict[str, int] = {}
        self._addresses: list[int] = []

    def feed(self, data: bytes) -> None:
        """Take more of the stream; lines count when they are complete."""
        *lines, rest = (self._data + data).split(b"\n")
        self._data = rest[:_LIMIT]
        for line in lines:
            self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        if not line.startswith(PREFIX):
            self.other = printable(line, 1000) or self.other
            return
        line = line.removeprefix(PREFIX)
        word, *rest = line.split()
        if self.kind and word == "registers":
            pairs = (pair.partition("=") for pair in rest)
            self.registers = {name: _number(value) for name, _, value in pairs}
        elif self.kind and word == "backtrace":
            self._addresses = [_number(value) for value in rest]
        elif self.kind and word == "task:":
            self.task = printable(line.removeprefix("task: "))
        elif line.startswith("panic: "):
            self.kind, self.text = "panic", printable(
                line.removeprefix("panic: "), 1000)
        elif line == "fault":
            self.kind = "fault"
        elif word == "exit" and len(rest) == 1 and rest[0].lstrip("-").isdecimal():
            self.code = int(rest[0])
        else:
            self.refusal = printable(line, 1000)

    def sentence(self, image: BootImage) -> str:
        """Return what happened, to follow the machine's name."""
        where = f" on processor {self.registers['cpu']}" if "cpu" in self.registers else ""
        if self.kind == "panic":
            return f"panicked{where}: {self.text}"
        place = f", in {image.symbolise(self._addresses[0])}" if self._addresses else ""
        overflow = f"stack overflow in task '{self.task}': " if self.task else ""
        return (f"faulted{where}: {overflow}{self._fault(image)}{place} "
                f"(vector {self.registers.get('vec', 0)})")

    def _fault(self, image: BootImage) -> str:
        vector, error, address = (self.registers.get(name, 0) for name in ("vec", "err", "cr2"))
        if vector != _PAGE_FAULT:
            return _VECTORS.get(vector, f"exception {vector}")
        verb = "execution of" if error & _FETCH else "write to" if error & _WRITE else "read of"
        stack = self.registers.get("stk", 0)
        if stack - PAGE <= address < stack:
            return f"stack overflow: {verb} the guard below the stack at {address:#x}"
        if not error & _PRESENT and self.registers.get("cod") != _SEGV_ACCERR:
            where = "the null page" if address < PAGE else "unmapped memory"
            return f"{verb} {where} at {address:#x}"
        kind = "protected"
        if error & _PRESENT:
            kind = {"write to": "read-only", "execution of": "non-executable"}.get(verb, kind)
        return f"{verb} {kind} memory at {address:#x}" + _segment(image, address)

    def frames(self, image: BootImage) -> list[str]:
        """Return the backtrace, innermost first: address and ``name+0x12``."""
        lines = []
        for index, address in enumerate(self._addresses):
            inside = address if index == 0 else address - 1  # a call may end its function
            base, plus, offset = image.symbolise(inside).rpartition("+")
            name = f"{base}+{int(offset, 16) + (index > 0):#x}" if plus else "?"
            lines.append(f"{address:#x} {name}")
        return lines


def _segment(image: BootImage, address: int) -> str:
    for segment in image.segments:
        if segment.address // PAGE * PAGE <= address < segment.address + segment.size:
            kind = "code" if segment.executable else "data" if segment.writable else "constants"
            return f" in the image's {kind}"
    return ""


def _number(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0
