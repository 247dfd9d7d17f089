"""Finding the task whose stack ran over, in memory that may be hostile."""

from __future__ import annotations

import struct

import pytest

from unikit.platform.stack import overflowed, printable

pytestmark = pytest.mark.fast

MAGIC = int.from_bytes(b"unistack", "little")
BASE, PAGE = 0x100000, 4096


def memory(pages: int, tag_page: int, guard: int, name: bytes) -> bytearray:
    """Return memory from BASE on with one tag at the end of a page."""
    data = bytearray(pages * PAGE)
    tag = struct.pack("<QQ32sQQ", MAGIC, guard, name, 0, 0)
    data[(tag_page + 1) * PAGE - len(tag):(tag_page + 1) * PAGE] = tag
    return data


def search(data: bytearray, fault: int) -> str | None:
    """Search as a platform does."""
    return overflowed(fault, BASE + len(data),
                      lambda address, size: bytes(data[address - BASE:address - BASE + size]))


def test_the_tag_above_the_guard_page_names_the_task() -> None:
    """Anywhere in the guard page, whatever the stack's size."""
    data = memory(8, 4, BASE, b"worker\0")
    assert search(data, BASE) == search(data, BASE + PAGE - 1) == "worker"
    assert search(data, BASE + PAGE) is None


def test_a_tag_of_another_stack_is_passed_over() -> None:
    """The next stack's tag lies further up and says whose it is."""
    assert search(memory(8, 4, BASE + PAGE, b"other\0"), BASE) is None


def test_nothing_is_read_beyond_the_limit_and_nothing_believed() -> None:
    """Names without an end, escapes, absurd distances: a guest can write anything."""
    assert search(memory(2, 1, BASE, b"\x1b[2J" + b"x" * 40), BASE) == "?[2J" + "x" * 27
    assert printable("a\nb\0") == "a?b?"
    asked = []
    assert overflowed(0, 1 << 62, lambda at, size: asked.append(at) or bytes(size)) is None
    assert len(asked) < 20_000


def test_it_agrees_with_the_header() -> None:
    """Size and offsets are those of struct kit_stack_tag."""
    assert struct.calcsize("<QQ32sQQ") == 64
