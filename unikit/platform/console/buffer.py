"""The record of ``console.buffer``, and its reader."""

from __future__ import annotations

import re
import struct
from typing import Any

from unikit.component import component, option
from unikit.errors import NotFound
from unikit.platform.console.api import ConsoleComponent

_MAGIC = b"ukit-con-buffer1"
_HEADER = struct.Struct("<16s3Q")
_HEADER_SIZE = 64
_MIX = 0x9E3779B97F4A7C15


@component
class Buffer(ConsoleComponent):
    """Keeps the last bytes written in a ring in memory, to be read from outside after a crash.

    :func:`read_buffer` finds the ring in the guest's memory by itself.
    """

    id = "console.buffer"
    sources = ("buffer.c",)

    size: int | str = option(16 << 10, "bytes kept", kind="size", minimum=256, maximum=1 << 30)


def read_buffer(memory: Any) -> str:
    """Return the text that a ``console.buffer`` in this memory holds, oldest first.

    The guest need not run, and may have overwritten anything: what does not look like a whole
    buffer is passed over. Of several buffers the one that was written most is taken.

    :param memory: any contiguous buffer: guest memory, a core dump, a file's ``mmap``.
    :returns: the last bytes that fit the ring, undecodable ones replaced.
    :raises NotFound: there is no intact buffer.
    """
    view = memoryview(memory).cast("B")
    best: tuple[int, bytes] | None = None
    for match in re.finditer(re.escape(_MAGIC), view):
        found = _read_at(view, match.start())
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    if best is None:
        raise NotFound(f"no console.buffer in these {len(view)} bytes of memory: the image has "
                       "none, had not opened it yet, or overwrote it")
    return best[1].decode(errors="replace")


def _read_at(view: memoryview, start: int) -> tuple[int, bytes] | None:
    if start + _HEADER_SIZE > len(view):
        return None
    magic, size, written, check = _HEADER.unpack_from(view, start)
    low, high = struct.unpack("<QQ", magic)
    ring = start + _HEADER_SIZE
    if check != low ^ high ^ ~(size * _MIX) & (1 << 64) - 1 or size == 0 or size > len(view) - ring:
        return None
    place = written % size if written > size else 0
    kept = min(written, size)
    return written, bytes(view[ring + place:ring + kept]) + bytes(view[ring:ring + place])
