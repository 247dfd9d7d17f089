"""Whose stack ran over: the host side of ``rt/stack.h``, for platforms that can read a guest."""

from __future__ import annotations

import struct
from collections.abc import Callable

_MAGIC = 0x6B63617473696E75
_PAGE = 4096
_TAG = struct.Struct("<QQ32sQQ")
_PAGES_MAX = 16384  # a stack of 64 MiB; a hostile guest must not keep us busy for longer


def overflowed(fault: int, limit: int, peek: Callable[[int, int], bytes]) -> str | None:
    """Return the name of the task whose guard page holds an address, or ``None``.

    :param fault: where the guest was stopped.
    :param limit: end of the memory that stacks lie in.
    :param peek: address and size to that many bytes of the guest, fewer if they are not there.
        What it gives is not trusted.
    """
    guard = fault // _PAGE * _PAGE
    last = min(limit, guard + _PAGES_MAX * _PAGE)
    for end in range(guard + 2 * _PAGE, last + 1, _PAGE):
        data = peek(end - _TAG.size, _TAG.size)
        if len(data) < _TAG.size:
            return None
        magic, owner, name, _, _ = _TAG.unpack(data)
        if magic == _MAGIC and owner == guard:
            return printable(name.split(b"\0", 1)[0].decode(errors="replace"))
    return None


def printable(text: str, limit: int = 31) -> str:
    """Return words that came out of a guest without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:limit])
