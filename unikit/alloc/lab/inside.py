"""Find the traces that ``alloc.trace`` leaves in memory: of this process, or of a machine."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unikit.alloc.lab.trace import Trace
from unikit.errors import NotFound

if TYPE_CHECKING:
    from unikit.alloc.heap import Heap

_HEADER = struct.Struct("<8sIIIIQQQQQIIII6Q")
_PAGE, _TEXT = 4096, 3968
_OWN = b"clock=events\nallocator="


def in_memory(memory: Any) -> bytes:
    """Return the trace that an ``alloc.trace`` recorded in this memory, as a file would hold it.

    The recorder may run on meanwhile, and may have been overwritten: what does not look like a
    whole header is passed over. Of several traces the longest is taken.

    :param memory: any contiguous buffer: :meth:`Machine.memory() <unikit.platform.api.Machine>`,
        a core dump, a file's ``mmap``.
    :raises NotFound: there is no trace.
    """
    view = memoryview(memory).cast("B")
    best = b""
    for match in re.finditer(b"KITTRACE", view):
        found = _read_at(view, match.start())
        best = found if len(found) > len(best) else best
    if not best:
        raise NotFound(f"no trace in these {len(view)} bytes of memory: the image has no "
                       "alloc.trace, had not opened it yet, or overwrote it")
    return best


def _read_at(view: memoryview, start: int) -> bytes:
    if start + _PAGE > len(view):
        return b""
    fields = _HEADER.unpack_from(view, start)
    version, chunk, flags, text_size, taken = (fields[at] for at in (1, 2, 3, 13, 15))
    size = _PAGE + taken * chunk
    text = bytes(view[start + _PAGE - _TEXT:start + _PAGE - _TEXT + len(_OWN)])
    if version != 1 or flags or text_size > _TEXT or text != _OWN or start + size > len(view):
        return b""
    return bytes(view[start:start + size])


def of(heap: Heap) -> Trace:
    """Return what was asked of a heap so far, call sites under the names of lines of Python.

    >>> from unikit.alloc import Trace
    >>> with Trace().open("4M") as heap:
    ...     heap.alloc(100).free()
    ...     [event.size for event in of(heap)]
    [100, 100]

    :raises NotSupported: the heap records nothing: put ``alloc.trace`` over the allocator.
    """
    return named(heap.trace(), heap.site_name)


def load(memory: Any) -> Trace:
    """Return the trace in this memory; see :func:`in_memory`.

    :raises NotFound: there is none.
    :raises Malformed: it was overwritten.
    """
    return Trace.loads(in_memory(memory), "the trace in memory")


def named(data: bytes, name: Callable[[int], str], **facts: Any) -> Trace:
    """Return a trace whose call sites have names.

    :param name: gives the name of an address, as :meth:`BootImage.symbolise` does.
    :param facts: further facts of the trace: ``program="http"``.
    """
    found = Trace.loads(data, "the trace in memory")
    sites = [dataclasses.replace(site, _said=(name(site.address), "")) if site.address else site
             for site in found.sites]
    found.__dict__["sites"] = sites
    found.facts.update(facts)
    return found


def lost(data: bytes) -> int:
    """Return how many events found no room in the buffer of a trace."""
    return int(_HEADER.unpack_from(data)[14])
