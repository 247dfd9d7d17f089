"""The system calls of memory, as Linux has them on x86-64, one function each.

The ``mmap`` module of Python has neither fixed addresses nor reservations. Every function raises
:class:`OSError` with the error of the kernel.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

PAGE = 4096
PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
# asm-generic/mman.h and mman-common.h
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x01, 0x02, 0x10, 0x20
MAP_NORESERVE, MAP_HUGETLB, MAP_FIXED_NOREPLACE = 0x4000, 0x40000, 0x100000
MAP_HUGE_SHIFT = 26
MADV_DONTNEED, MADV_REMOVE, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 4, 9, 14, 15
MADV_POPULATE_WRITE, MADV_COLLAPSE = 23, 25
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_HUGETLB = 1, 2, 4
MS_SYNC = 4
MPOL_BIND = 2
_MBIND, _PROCESS_MADVISE = 237, 440
_PR_SET_VMA, _PR_SET_VMA_ANON_NAME = 0x53564D41, 0
_FAILED = ctypes.c_void_p(-1).value

_NODES = Path("/sys/devices/system/node/online")
_POOLS = Path("/sys/kernel/mm/hugepages")


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size, word, integer = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    libc.mmap.restype = word
    libc.mmap.argtypes = [word, size, integer, integer, integer, ctypes.c_long]
    libc.munmap.argtypes = [word, size]
    libc.madvise.argtypes = [word, size, integer]
    libc.msync.argtypes = [word, size, integer]
    libc.prctl.argtypes = [integer, *[ctypes.c_ulong] * 3, ctypes.c_char_p]
    libc.syscall.restype = ctypes.c_long
    return libc


def _check(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def mmap(address: int, size: int, protection: int, flags: int, fd: int = -1,
         offset: int = 0) -> int:
    """Map memory; its address."""
    result = _libc().mmap(address, size, protection, flags, fd, offset)
    return int(_check(-1 if result == _FAILED else result or 0))


def munmap(address: int, size: int) -> None:
    """Unmap memory."""
    _check(_libc().munmap(address, size))


def madvise(address: int, size: int, advice: int) -> None:
    """Advise on memory of this process."""
    _check(_libc().madvise(address, size, advice))


def msync(address: int, size: int) -> None:
    """Write a shared file mapping back and wait for it."""
    _check(_libc().msync(address, size, MS_SYNC))


def process_madvise(pidfd: int, address: int, size: int, advice: int) -> int:
    """Advise on memory of the process behind a pidfd; bytes that were done."""
    vector = _Vector(address, size)
    return int(_check(_libc().syscall(
        ctypes.c_long(_PROCESS_MADVISE), ctypes.c_long(pidfd), ctypes.byref(vector),
        ctypes.c_long(1), ctypes.c_long(advice), ctypes.c_long(0))))


def bind_to_node(address: int, size: int, node: int) -> None:
    """Take the pages of a mapping from one NUMA node only (``mbind``)."""
    mask = (ctypes.c_ulong * (node // 64 + 1))()
    mask[node // 64] = 1 << node % 64
    _check(_libc().syscall(ctypes.c_long(_MBIND), ctypes.c_void_p(address), ctypes.c_size_t(size),
                           ctypes.c_long(MPOL_BIND), mask, ctypes.c_long(len(mask) * 64 + 1),
                           ctypes.c_long(0)))


def name(address: int, size: int, text: str) -> None:
    """Name an anonymous mapping in ``/proc/PID/maps``, where the kernel can."""
    _libc().prctl(_PR_SET_VMA, _PR_SET_VMA_ANON_NAME, address, size, text.encode())


def memfd(label: str, page: int) -> int:
    """Make shared memory without a name in the file system, on pages of that size; its fd."""
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    if page > PAGE:
        flags |= MFD_HUGETLB | (page.bit_length() - 1) << MAP_HUGE_SHIFT
    return os.memfd_create(label, flags)


def nodes() -> Sequence[int]:
    """Return the NUMA nodes of the machine; empty where the kernel knows of none."""
    try:
        text = _NODES.read_text().strip()
    except OSError:
        return ()
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def pool(page: int) -> Path:
    """Return the folder of the kernel's pool of reserved huge pages of that size."""
    return _POOLS / f"hugepages-{page >> 10}kB"
