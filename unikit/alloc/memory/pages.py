"""Kinds of pages: their names, what the machine has of them, and what to do where it has none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NoReturn

from unikit.alloc.memory import HUGE_PAGE, kernel
from unikit.errors import InvalidArgument, NotSupported, OutOfMemory

Policy = Literal["try", "require", "never"]
Pages = Literal["4K", "thp", "2M", "1G"]

PAGE: dict[Pages, int] = {"4K": 4096, "thp": 4096, "2M": HUGE_PAGE, "1G": 1 << 30}
"""Bytes of a page of each kind, as give-back counts them."""

WORDS = {"4K": "4 KiB pages", "thp": "transparent huge pages", "2M": "reserved 2 MiB pages",
         "1G": "reserved 1 GiB pages"}
"""What people call them."""

THP = Path("/sys/kernel/mm/transparent_hugepage")
"""Where the kernel is asked about transparent huge pages."""


def candidates(size: int, hugepages: Policy, pages: Pages | None, shared: bool
                ) -> tuple[Pages, ...]:
    """Return the kinds of pages to try for a region, best first."""
    if hugepages == "require":
        return (pages or "2M",)
    if hugepages == "never" or pages == "4K" or pages is None and size < HUGE_PAGE:
        return ("4K",)
    order: tuple[Pages, ...] = ("1G", "2M", "thp", "4K")
    kinds = order[order.index(pages or "2M"):]
    return kinds if transparent(size, shared) else tuple(k for k in kinds if k != "thp")


def transparent(size: int, shared: bool) -> bool:
    """Say whether the kernel may give transparent huge pages to that much memory."""
    try:
        text = (THP / ("shmem_enabled" if shared else "enabled")).read_text()
    except OSError:
        return False
    return size >= HUGE_PAGE and "[never]" not in text and "[deny]" not in text


def pages_of(fd: int) -> Pages:
    """Return the kind of pages a descriptor's file system has."""
    size = os.fstatvfs(fd).f_bsize
    return "1G" if size == 1 << 30 else "2M" if size == HUGE_PAGE else "4K"


def check_node(node: int | None) -> None:
    """Refuse a NUMA node that is not there.

    :raises InvalidArgument: there is no such node.
    """
    if node is None:
        return
    known = kernel.nodes()
    if node not in known:
        raise InvalidArgument(f"mapping memory of NUMA node {node}: this machine has "
                              f"{', '.join(map(str, known)) or 'no NUMA; leave node out'}")


def bind(start: int, size: int, node: int) -> None:
    """Take the pages of a mapping from one NUMA node.

    :raises NotSupported: the kernel cannot.
    """
    try:
        kernel.bind_to_node(start, size, node)
    except OSError as error:
        raise NotSupported(f"binding memory to NUMA node {node}: {error.strerror}; "
                           "leave node out") from error


def no_memory(size: int, pages: Pages, error: Exception) -> NoReturn:
    """Raise what a failed mapping of these pages means, with the remedy."""
    page = PAGE[pages]
    if page == kernel.PAGE:
        raise OutOfMemory(f"mapping {size} bytes: {error}") from error
    count, folder = -(-size // page), kernel.pool(page)
    try:
        total, free = (int((folder / name).read_text()) for name in ("nr_hugepages",
                                                                     "free_hugepages"))
        total = total - free + count
    except OSError:
        total = count
    remedy = f"sysctl vm.nr_hugepages={total}" if pages == "2M" else \
        f"echo {total} > {folder / 'nr_hugepages'}"
    raise OutOfMemory(f"mapping {size} bytes on huge pages: {error}; reserve {count} pages of "
                      f"{'2 MiB' if pages == '2M' else '1 GiB'} with: {remedy}") from error


def round_up(value: int, step: int) -> int:
    """Round up to a multiple."""
    return -(-value // step) * step
