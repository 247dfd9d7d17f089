"""Make regions: mapped memory on the pages one asks for, private, shared, or a file.

A region lies between two pages without access, so that what runs off its ends stops there, and the
kernel counts it apart from its neighbours. Address space may be reserved for growth.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
from pathlib import Path
from typing import Any, get_args

from unikit.alloc.memory import HUGE_PAGE, kernel
from unikit.alloc.memory.mappings import report
from unikit.alloc.memory.pages import (
    PAGE,
    Pages,
    Policy,
    candidates,
    check_node,
    no_memory,
    pages_of,
    round_up,
)
from unikit.alloc.memory.regions import Region
from unikit.component import parse_size
from unikit.errors import AlreadyExists, InvalidArgument, NoPermission, NotFound, OutOfMemory

_LABEL = re.compile(r"^/memfd:unikit@([0-9a-f]+)\+([0-9a-f]+)")
# Shared memory lies where Linux puts nothing by itself, so that other processes find it free.
_COMMON = range(0x1000_0000_0000, 0x5000_0000_0000, 1 << 30)


def region(size: int | str, hugepages: Policy = "try", *, pages: Pages | None = None,
           shared: bool = False, file: str | os.PathLike[str] | None = None,
           node: int | None = None, prefault: bool = False, reserve: int | str = 0,
           at: int = 0) -> Region:
    """Map memory.

    :param size: bytes, > 0, or ``"64M"``; on reserved huge pages rounded up to whole ones.
    :param hugepages: ``"try"``: reserved huge pages, else transparent ones, else small ones;
        ``"require"``: reserved ones or an error; ``"never"``: small ones. Memory below one huge
        page tries none.
    :param pages: with ``"try"`` the kind to try first (``"1G"``, ``"2M"``, ``"thp"``), before the
        smaller ones; with ``"require"`` the kind to have. Transparent ones that are required are
        put together at once and measured.
    :param shared: make it shareable with other processes: pass it on by ``multiprocessing``,
        :meth:`Region.send`, inheritance, or its ``fd``.
    :param file: map this file instead, which is made and grown if need be; on ``hugetlbfs`` it
        has the pages of that file system.
    :param node: the NUMA node whose memory is to be used.
    :param prefault: have all pages there before this function returns.
    :param reserve: bytes of address space to keep for :meth:`Region.grow`, or for a heap over the
        region to grow into by itself, where its allocator has the feature ``pages``.
    :param at: the address to map at; 0: wherever there is room.
    :raises InvalidArgument: the size is 0 or no size, a word is none of the above, or there is no
        such node.
    :raises OutOfMemory: there is not enough memory, or not enough huge pages.
    :raises AlreadyExists: something else is mapped at ``at``.

    >>> with region("1M", hugepages="never") as memory:
    ...     len(memory), memory.pages
    (1048576, '4K')
    """
    try:
        size, limit = parse_size(size), parse_size(reserve)
    except ValueError as error:
        raise InvalidArgument(f"mapping memory: {error}") from None
    if size == 0 or hugepages not in get_args(Policy) or pages not in (None, *get_args(Pages)):
        raise InvalidArgument(
            f"mapping {size} bytes with hugepages={hugepages!r}, pages={pages!r}: the size must be "
            "above 0, hugepages one of try, require, never, pages one of 4K, thp, 2M, 1G")
    if (hugepages == "never" and pages not in (None, "4K")) or (hugepages, pages) == (
            "require", "4K"):
        raise InvalidArgument(f"mapping memory: hugepages={hugepages!r} and pages={pages!r} "
                              "exclude each other")
    if shared and file is not None:
        raise InvalidArgument("mapping memory: a file is shared by itself; leave shared out")
    check_node(node)
    if max(size, limit) >> 47:
        raise OutOfMemory(f"mapping {max(size, limit)} bytes: more than there are addresses")
    wanted = candidates(size, hugepages, pages, shared)
    if file is not None:
        return _file_region(Path(file), size, limit, hugepages, pages, node, at, prefault)
    for kind in wanted:
        try:
            return _region(size, limit, kind, shared, -1, node, at,
                           prefault=prefault or kind == "thp" and hugepages == "require",
                           gather=kind == "thp" and hugepages == "require")
        except OutOfMemory:
            if kind == wanted[-1]:
                raise
    raise AssertionError("there is always a last kind")


def attach(source: int | str | os.PathLike[str], *, anywhere: bool = False) -> Region:
    """Map the shared memory of another process, at the address it has there.

    :param source: a descriptor of it (which stays the caller's), or a path that opens it, such as
        ``/proc/PID/fd/N``.
    :param anywhere: take another address if that one is occupied; heaps cannot be opened then.
    :raises NotFound: there is no such descriptor or path.
    :raises AlreadyExists: the address is occupied in this process; the message says by what.
    :raises InvalidArgument: it is not shared memory.
    """
    try:
        fd = os.dup(source) if isinstance(source, int) else os.open(source, os.O_RDWR
                                                                    | os.O_CLOEXEC)
    except PermissionError as error:
        raise NoPermission(f"attaching to {source}: {error.strerror}") from error
    except OSError as error:
        raise NotFound(f"attaching to {source}: {error.strerror}") from error
    match = _LABEL.match(str(Path(f"/proc/self/fd/{fd}").readlink()))
    size = os.fstat(fd).st_size
    if not match or not size:
        os.close(fd)
        raise InvalidArgument(f"attaching to {source}: it is no shared memory of unikit")
    address, limit = int(match[1], 16), int(match[2], 16)
    try:
        return _region(size, limit, pages_of(fd), True, os.dup(fd), None, address)
    except AlreadyExists:
        if not anywhere:
            raise
        return _region(size, limit, pages_of(fd), True, os.dup(fd), None, 0)
    finally:
        os.close(fd)


def receive(peer: socket.socket) -> Region:
    """Map the shared memory that the other end of a Unix socket passes by :meth:`Region.send`.

    :raises InvalidArgument: what comes is something else.
    :raises AlreadyExists: as for :func:`attach`.
    """
    message, fds, _, _ = socket.recv_fds(peer, 6, 1)
    if message != b"unikit" or len(fds) != 1:
        for fd in fds:
            os.close(fd)
        raise InvalidArgument(f"receiving shared memory: {message!r} came, with {len(fds)} "
                              "descriptors")
    try:
        return attach(fds[0])
    finally:
        os.close(fds[0])


def _rebuild(duplicate: Any) -> Region:
    fd = duplicate.detach()
    try:
        return attach(fd)
    finally:
        os.close(fd)


def _region(size: int, limit: int, pages: Pages, shared: bool, fd: int, node: int | None,
            at: int, *, prefault: bool = False, gather: bool = False) -> Region:
    """Map one kind of pages; takes the descriptor over, and closes it on failure."""
    page, own = PAGE[pages], size
    step = max(page, HUGE_PAGE if size >= HUGE_PAGE else page)  # small pages may become huge
    length = round_up(size, HUGE_PAGE if gather else page)
    span = round_up(max(length, limit), page)
    new: Region | None = None
    try:
        base = _reserve(span, step, at, common=shared)
        if shared and fd < 0:
            fd = _memfd(base, span, pages)
        new = Region(pages, fd, shared, base, span)
        new._node = node
        new._map(length)
        if shared and node is None:
            _seal(fd)
        new._bind(base, length if limit or gather or page > kernel.PAGE else own)
        if prefault:
            new.prefault()
        if gather:
            new._gather()
    except BaseException:
        if new is not None:
            new.close()
        elif fd >= 0:
            os.close(fd)
        raise
    return new


def _reserve(span: int, step: int, at: int, common: bool) -> int:
    """Reserve address space with a page more at each end; where the space between begins."""
    edge = kernel.PAGE
    flags = kernel.MAP_PRIVATE | kernel.MAP_ANONYMOUS | kernel.MAP_NORESERVE
    if at % step:
        raise InvalidArgument(f"mapping at {at:#x}: give a multiple of {step:#x}")
    if common and not at and span > _COMMON.stop - _COMMON.start:
        raise OutOfMemory(f"mapping {span} bytes to be shared: more than there is room for")
    common_zone = range(_COMMON.start, _COMMON.stop - span + 1, _COMMON.step)
    tries = [at] if at else random.Random().choices(common_zone, k=16) if common else []
    for address in tries:
        try:
            kernel.mmap(address - edge, span + 2 * edge, kernel.PROT_NONE,
                        flags | kernel.MAP_FIXED_NOREPLACE)
            return address
        except FileExistsError:
            continue
        except OSError as error:
            raise OutOfMemory(f"mapping {span} bytes at {address:#x}: {error}") from error
    if tries and not at:
        raise OutOfMemory(f"mapping {span} bytes to be shared: no free stretch of addresses found")
    if tries:
        raise AlreadyExists(f"mapping {span} bytes at {tries[0]:#x}: {_occupant(tries[0], span)} "
                            "is there; map it earlier, or give the maker another address (at=)")
    try:
        found = kernel.mmap(0, span + step + 2 * edge, kernel.PROT_NONE, flags)
    except OSError as error:
        raise OutOfMemory(f"mapping {span} bytes: {error}") from error
    base = round_up(found + edge, step)
    if base - edge > found:
        kernel.munmap(found, base - edge - found)
    if rest := found + step + edge - base:
        kernel.munmap(base + span + edge, rest)
    return base


def _memfd(base: int, span: int, pages: Pages) -> int:
    try:
        return kernel.memfd(f"unikit@{base:x}+{span:x}", PAGE[pages])
    except OSError as error:
        kernel.munmap(base - kernel.PAGE, span + 2 * kernel.PAGE)
        no_memory(span, pages, error)


def _seal(fd: int) -> None:
    """Forbid to make it shorter: a process that maps the end would die of it."""
    import fcntl
    with contextlib.suppress(OSError):  # sealed already
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)


def _occupant(address: int, span: int) -> str:
    for each in report():
        if each.start < address + span and address < each.start + each.size:
            return each.name or "anonymous memory"
    return "something"


def _file_region(path: Path, size: int, limit: int, hugepages: Policy, pages: Pages | None,
                 node: int | None, at: int, prefault: bool) -> Region:
    """Map a file; one that is made for it is gone again if that fails."""
    existed = path.exists()
    fd = _open_file(path)
    try:
        kind, before = pages_of(fd), os.fstat(fd).st_size
        if hugepages == "require" and kind != (pages or "2M"):
            raise InvalidArgument(f"mapping {path} on huge pages: it lies on no hugetlbfs with "
                                  f"pages of {pages or '2M'}")
        try:
            return _region(size, limit, kind, False, os.dup(fd), node, at, prefault=prefault)
        except BaseException:
            os.ftruncate(fd, before)
            raise
    except BaseException:
        if not existed:
            path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _open_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise NoPermission(f"mapping {path}: {error.strerror}") from error
    except OSError as error:
        raise NotFound(f"mapping {path}: {error.strerror}") from error
