"""Memory for heaps and virtual machines: anonymous mappings, on huge pages where possible."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Literal

from unikit.component import parse_size
from unikit.errors import InvalidArgument, OutOfMemory

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
