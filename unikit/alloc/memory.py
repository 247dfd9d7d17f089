"""Memory for heaps and virtual machines: anonymous mappings, on huge pages where possible."""

from __future__ import annotations

import dataclasses
import mmap
import os
from pathlib import Path
from typing import Literal

from unikit.component import parse_size
from unikit.errors import InvalidArgument, NoPermission, NotFound, OutOfMemory

HUGE_PAGE = 2 << 20
"""Bytes of a huge page on x86-64."""

_MAP_HUGETLB = 0x40000  # asm-generic/mman.h; not in the mmap module
_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


class Region(mmap.mmap):
    """Zeroed memory of this process; a writable buffer and a context manager.

    ``close()`` raises :class:`BufferError` while a heap or a view uses it.

    :ivar pages: what backs it: ``"huge"`` (reserved huge pages), ``"transparent"`` (the kernel may
        use huge pages where it has some) or ``"small"`` (4 KiB).
    """

    pages: Literal["huge", "transparent", "small"]

    def __new__(cls, size: int, pages: Literal["huge", "transparent", "small"]) -> Region:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if pages == "huge":
            size = -(-size // HUGE_PAGE) * HUGE_PAGE
            flags |= _MAP_HUGETLB
        self = super().__new__(cls, -1, size, flags=flags)
        if pages == "transparent":
            self.madvise(mmap.MADV_HUGEPAGE)
        self.pages = pages
        return self

    def __repr__(self) -> str:
        if self.closed:
            return "<Region: closed>"
        return f"<Region: {len(self)} bytes, {self.pages} pages>"


def region(size: int | str, hugepages: Literal["try", "require", "never"] = "try") -> Region:
    """Map anonymous memory.

    :param size: bytes, > 0, or ``"64M"``; on reserved huge pages rounded up to whole ones.
    :param hugepages: ``"try"``: reserved huge pages, else transparent ones, else small ones;
        ``"require"``: reserved ones or an error; ``"never"``: small ones. Memory below one huge
        page tries none.
    :raises InvalidArgument: the size is 0 or no size, or ``hugepages`` is another word.
    :raises OutOfMemory: there is not enough memory, or not enough reserved huge pages.

    >>> with region("1M", hugepages="never") as memory:
    ...     len(memory), memory.pages
    (1048576, 'small')
    """
    try:
        size = parse_size(size)
    except ValueError as error:
        raise InvalidArgument(f"mapping memory: {error}") from None
    if size == 0 or hugepages not in ("try", "require", "never"):
        raise InvalidArgument(f"mapping {size} bytes with hugepages={hugepages!r}: the size must "
                              "be above 0, hugepages one of try, require, never")
    if hugepages == "require" or (hugepages == "try" and size >= HUGE_PAGE):
        try:
            return Region(size, "huge")
        except (OSError, OverflowError) as error:
            if hugepages == "require":
                pages = -(-size // HUGE_PAGE)
                raise OutOfMemory(
                    f"mapping {size} bytes on huge pages: {error}; reserve {pages} pages of 2 MiB "
                    f"with: sysctl vm.nr_hugepages={pages}") from error
    try:
        return Region(size, "transparent" if hugepages == "try" and _transparent(size) else "small")
    except (OSError, OverflowError) as error:
        raise OutOfMemory(f"mapping {size} bytes: {error}") from error


def _transparent(size: int) -> bool:
    try:
        return size >= HUGE_PAGE and "[never]" not in _THP.read_text()
    except OSError:
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping of a process and what the kernel really gave it.

    :ivar start: first address.
    :ivar size: bytes of address space.
    :ivar permissions: as in ``/proc/PID/maps``: ``"rw-p"``.
    :ivar name: file or kernel name, empty for anonymous memory.
    :ivar resident: bytes in memory now.
    :ivar huge: of these, bytes on huge pages, transparent or reserved.
    """

    start: int
    size: int
    permissions: str
    name: str
    resident: int
    huge: int


def report(pid: int | None = None) -> list[Mapping]:
    """Return the mappings of a process with what stands behind them, by address.

    Whether a region got huge pages is the kernel's decision; this is where to look it up.

    :param pid: the process; ``None``: this one.
    :raises NotFound: there is no such process.
    :raises NoPermission: it belongs to somebody else.
    """
    from ptrace.debugger.memory_mapping import readProcessMappings
    from ptrace.debugger.process_error import ProcessError
    process = _Process(os.getpid() if pid is None else pid)
    try:
        mappings = readProcessMappings(process)
        amounts = _amounts(Path(f"/proc/{process.pid}/smaps").read_text())
    except PermissionError as error:
        raise NoPermission(f"process {pid} belongs to somebody else; ask as its owner or as "
                           "root") from error
    except (OSError, ProcessError) as error:
        raise NotFound(f"there is no process {pid}") from error
    return [Mapping(each.start, each.end - each.start, each.permissions, each.pathname or "",
                    *amounts.get(each.start, (0, 0))) for each in mappings]


class _Process:
    """What python-ptrace wants to know of a process it does not trace."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def _amounts(smaps: str) -> dict[int, tuple[int, int]]:
    """Return start address to (resident, huge) bytes from the text of ``smaps``."""
    found: dict[int, tuple[int, int]] = {}
    start = resident = huge = 0
    for line in smaps.splitlines():
        key, _, rest = line.partition(":")
        if key in ("Rss", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Private_Hugetlb",
                   "Shared_Hugetlb"):
            size = int(rest.split()[0]) << 10
            reserved = key.endswith("_Hugetlb")  # not counted in Rss
            resident += size if key == "Rss" or reserved else 0
            huge += size if key != "Rss" else 0
            found[start] = (resident, huge)
        elif "-" in key.partition(" ")[0]:
            start, resident, huge = int(key.partition("-")[0], 16), 0, 0
    return found
