"""What the kernel really gave: the mappings of a process and the pages behind them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any

from unikit.errors import NoPermission, NotFound


@dataclasses.dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping of a process and what the kernel really gave it. Sizes are bytes.

    :ivar start: first address.
    :ivar size: address space.
    :ivar permissions: as in ``/proc/PID/maps``: ``"rw-p"``.
    :ivar name: file or kernel name, empty for anonymous memory.
    :ivar resident: in memory now.
    :ivar huge: of these, on huge pages, transparent or reserved.
    :ivar page: the size of page this mapping is made of: 4096, or that of its reserved huge pages.
    :ivar transparent: of ``huge``, those that the kernel put together by itself or on advice.
    :ivar anonymous: of ``resident``, not backed by a file.
    :ivar shared: of ``resident``, also mapped by another process.
    :ivar swap: swapped out.
    :ivar nodes: NUMA node to bytes on it; empty where the kernel does not tell.
    """

    start: int
    size: int
    permissions: str
    name: str
    resident: int
    huge: int
    page: int = 4096
    transparent: int = 0
    anonymous: int = 0
    shared: int = 0
    swap: int = 0
    nodes: Table[int, int] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``anonymous``, ``shared`` (memfd, shmem), ``file``, ``hugetlb`` or ``kernel``."""
        if self.page > 4096:
            return "hugetlb"
        if self.name.startswith(("/memfd:", "/dev/shm/", "/dev/zero", "/SYSV", "[anon_shmem:")):
            return "shared"
        if self.name.startswith("/"):
            return "file"
        return "kernel" if self.name.startswith(("[v", "[uprobes")) else "anonymous"


@dataclasses.dataclass(frozen=True, slots=True)
class Backing:
    """What stands behind a stretch of memory, measured. Sizes are bytes.

    :ivar size: address space.
    :ivar resident: in memory now.
    :ivar small: of these, on pages of 4 KiB.
    :ivar transparent: of these, on transparent huge pages.
    :ivar reserved: of these, on reserved huge pages.
    :ivar page: the size of the reserved pages; 4096 where there are none.
    :ivar swap: swapped out.
    :ivar nodes: NUMA node to bytes on it.
    """

    size: int
    resident: int
    small: int
    transparent: int
    reserved: int
    page: int
    swap: int
    nodes: Table[int, int]

    @classmethod
    def of(cls, mappings: Iterable[Mapping]) -> Backing:
        """Add up mappings."""
        size = resident = huge = transparent = swap = 0
        page = 4096
        nodes: dict[int, int] = {}
        for each in mappings:
            size += each.size
            resident += each.resident
            huge += each.huge
            transparent += each.transparent
            swap += each.swap
            page = max(page, each.page)
            for node, amount in each.nodes.items():
                nodes[node] = nodes.get(node, 0) + amount
        return cls(size, resident, resident - huge, transparent, huge - transparent, page, swap,
                   nodes)


def report(pid: int | None = None) -> list[Mapping]:
    """Return the mappings of a process with what stands behind them, by address.

    Whether a region got huge pages is the kernel's decision; this is where to look it up.

    :param pid: the process; ``None``: this one.
    :raises NotFound: there is no such process.
    :raises NoPermission: it belongs to somebody else.

    >>> any(each.name == "[stack]" for each in report())
    True
    """
    from ptrace.debugger.memory_mapping import readProcessMappings
    from ptrace.debugger.process_error import ProcessError
    process = _Process(os.getpid() if pid is None else pid)
    folder = Path(f"/proc/{process.pid}")
    try:
        amounts = {start: each for start, each in _sections((folder / "smaps").read_text())}
        mappings = readProcessMappings(process)  # last: it hides why it cannot
        nodes = _nodes(folder / "numa_maps")
    except PermissionError as error:
        raise NoPermission(f"process {pid} belongs to somebody else; ask as its owner or as "
                           "root") from error
    except (OSError, ProcessError) as error:
        raise NotFound(f"there is no process {pid}") from error
    return [_mapping(each, amounts.get(each.start, {}), nodes.get(each.start, {}))
            for each in mappings]


class _Process:
    """What python-ptrace wants to know of a process it does not trace."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def _mapping(found: Any, amounts: dict[str, int], nodes: dict[int, int]) -> Mapping:
    def total(*keys: str) -> int:
        return sum(amounts.get(key, 0) for key in keys)

    reserved = total("Private_Hugetlb", "Shared_Hugetlb")  # not counted in Rss
    transparent = total("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")
    return Mapping(
        found.start, found.end - found.start, found.permissions, found.pathname or "",
        total("Rss") + reserved, transparent + reserved, amounts.get("KernelPageSize", 4096),
        transparent, total("Anonymous") + total("Private_Hugetlb"),
        total("Shared_Clean", "Shared_Dirty", "Shared_Hugetlb"), total("Swap"), nodes)


def _sections(smaps: str) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield the start address and the amounts in bytes of each mapping in the text of ``smaps``."""
    amounts: dict[str, int] = {}
    for line in smaps.splitlines():
        key, _, rest = line.partition(":")
        if "-" in key.partition(" ")[0]:
            amounts = {}
            yield int(key.partition("-")[0], 16), amounts
        elif rest.endswith(" kB"):
            amounts[key] = int(rest[:-3]) << 10


def _nodes(path: Path) -> dict[int, dict[int, int]]:
    """Return start address to bytes per NUMA node from ``numa_maps``; empty without NUMA."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    found: dict[int, dict[int, int]] = {}
    for line in lines:
        start, *words = line.split()
        pairs = dict(word.split("=", 1) for word in words if "=" in word)
        page = int(pairs.get("kernelpagesize_kB", 4)) << 10
        counts = {int(key[1:]): int(value) * page for key, value in pairs.items()
                  if key[0] == "N" and key[1:].isdigit()}
        if counts:
            found[int(start, 16)] = counts
    return found
