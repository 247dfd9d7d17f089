"""Say in words how a guest ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unikit.platform.api import BootImage

REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
             "r12", "r13", "r14", "r15", "rip", "rflags")
_PAGE = 4096
_VECTORS = {
    0: "division by zero or overflow of a division", 1: "debug trap", 3: "breakpoint",
    4: "overflow trap", 5: "bound range exceeded", 6: "invalid instruction",
    7: "vector unit not available", 8: "double fault", 10: "invalid task state",
    11: "segment not present", 12: "stack segment or non-canonical stack address",
    13: "privileged instruction or non-canonical address", 14: "page fault",
    16: "floating point error", 17: "unaligned access", 19: "vector arithmetic error",
}
_PRESENT, _WRITE, _FETCH = 1, 2, 16


def region(image: BootImage, layout: Any, address: int) -> tuple[str, bool]:
    """Return what lies at an address, in words, and whether it stands for a guard."""
    if address < _PAGE:
        return "the null page", True
    for segment in image.segments:
        if segment.address // _PAGE * _PAGE <= address < segment.address + segment.size:
            kind = "code" if segment.executable else "data" if segment.writable else "constants"
            return f"the image's {kind}", False
    places = (
        (layout.tables, layout.tables + layout.tables_size, "the guard below the stack", True),
        (layout.stack_base, layout.stack_base + layout.stack_size, "the stack", False),
        (layout.system, layout.system + layout.system_size, "the guard above the stack", True),
        (layout.boot, layout.boot + _PAGE, "the boot page", False),
        (layout.shared, layout.devices_end, "the device queues", False),
        (layout.fault_stack, layout.fault_stack + _PAGE, "the guard behind the device queues",
         True),
        (layout.heap_base, layout.heap_base + layout.heap_size, "the heap", False),
    )
    for start, end, words, guard in places:
        if start <= address < end:
            return words, guard
    end = 0x100000 + layout.memory_size
    return ("unmapped memory" if 0x100000 <= address < end else "no memory"), True


def processor(image: BootImage, report: Any) -> str:
    """Return on which processor a guest ended, if it may have several."""
    return f" on processor {report.cpu}" if image.plan.get("cpus", 1) > 1 else ""


def fault(image: BootImage, layout: Any, report: Any) -> str:
    """Return what an exception was about."""
    vector, error, address = report.vector, report.error, report.cr2
    if vector != 14:
        return _VECTORS.get(vector, f"exception {vector}")
    where, guard = region(image, layout, address)
    verb = "execution" if error & _FETCH else "write" if error & _WRITE else "read"
    to = {"execution": "of", "write": "to", "read": "of"}[verb]
    if guard and where == "the guard below the stack":
        return f"stack overflow: {verb} {to} {where} at {address:#x}"
    if not guard and error & _PRESENT:
        kind = "read-only" if verb == "write" else "non-executable" if verb == "execution" \
            else "protected"
        return f"{verb} {to} {kind} memory at {address:#x} in {where}"
    if not guard:
        return f"{verb} {to} protected memory at {address:#x} in {where}"
    return f"{verb} {to} {where} at {address:#x}"


def frames(image: BootImage, addresses: Sequence[int]) -> list[str]:
    """Return the backtrace, innermost first: address and ``name+0x12``."""
    lines = []
    for index, address in enumerate(addresses):
        inside = address if index == 0 else address - 1  # a call may end its function
        name = image.symbolise(inside)
        if index and "+" in name:
            base, _, offset = name.rpartition("+")
            name = f"{base}+{int(offset, 16) + 1:#x}"
        lines.append(f"{address:#x} {name if '+' in name else '?'}")
    return lines
