"""Call sites: from return addresses to modules, functions and source lines, when they are asked."""

from __future__ import annotations

import bisect
import dataclasses
import os
from functools import cache
from pathlib import Path
from typing import Any

_DEBUG = Path("/usr/lib/debug/.build-id")


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """A stretch of code that was mapped from a file.

    :ivar start: its first address.
    :ivar end: behind its last.
    :ivar offset: of its first byte in the file.
    :ivar path: of the file.
    """

    start: int
    end: int
    offset: int
    path: str


def parse_maps(text: str) -> list[Module]:
    """Return the executable mappings in lines of ``/proc/PID/maps``, sorted; later lines win."""
    found: dict[int, Module] = {}
    for line in text.splitlines():
        parts = line.split(None, 5)
        if len(parts) < 5 or "x" not in parts[1]:
            continue
        try:
            start, end = (int(word, 16) for word in parts[0].split("-"))
            offset = int(parts[2], 16)
        except ValueError:
            continue
        for old in [each for each in found.values() if each.start < end and start < each.end]:
            del found[old.start]
        found[start] = Module(start, end, offset, parts[5].strip() if len(parts) > 5 else "")
    return sorted(found.values(), key=lambda module: module.start)


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """A place in the program that asked for memory.

    :ivar address: where the call returns to; 0: unknown.
    :ivar module: path of the file the code came from; empty: unknown.
    :ivar offset: of the address in that file.
    """

    address: int
    module: str = ""
    offset: int = 0
    _said: tuple[str, str] | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The function: ``main+0x1f``; the module and offset where no symbol tells."""
        if self._said is not None:
            return self._said[0]
        if not self.address:
            return "unknown"
        found = _function(self.module, self.offset) if self.module else None
        if found is not None:
            return found
        if self.module:
            return f"{Path(self.module).name}+{self.offset:#x}"
        return f"{self.address:#x}"

    @property
    def place(self) -> str:
        """File and line of the call, empty where there is no debug information.

        Costs an ``addr2line`` per module and site; for many, see :func:`places`.
        """
        if self._said is not None:
            return self._said[1]
        return places([self])[0] if self.module else ""

    def __str__(self) -> str:
        return self.name


def site(address: int, modules: list[Module], said: dict[int, tuple[str, str]]) -> Site:
    """Return the call site of an address, given what was mapped and what the trace itself says."""
    at = bisect.bisect_right(modules, address, key=lambda module: module.start) - 1
    module = modules[at] if at >= 0 and address < modules[at].end else None
    if module is None:
        return Site(address, _said=said.get(address))
    return Site(address, module.path, address - module.start + module.offset, said.get(address))


def places(sites: list[Site]) -> list[str]:
    """Return ``file:line`` of many sites at once, by ``addr2line`` where it is installed."""
    from unikit.errors import ToolchainError
    from unikit.image import toolchain
    found = {each: "" for each in sites}
    by_module: dict[str, list[Site]] = {}
    for each in sites:
        if each._said is not None:
            found[each] = each._said[1]
        elif each.module.startswith("/"):
            by_module.setdefault(each.module, []).append(each)
    for module, group in by_module.items():
        table = _symbols(module)
        if table is None or not table.lines:
            continue
        words = [f"{table.virtual(each.offset) - 1:#x}" for each in group]
        try:
            text = toolchain.run(("addr2line", "-e", table.file, *words))
        except ToolchainError:
            continue
        for each, line in zip(group, text.splitlines(), strict=False):
            found[each] = "" if line.startswith("??") or line.endswith(":?") \
                else line.partition(" (")[0]
    return [found[each] for each in sites]


@dataclasses.dataclass(frozen=True, slots=True)
class _Symbols:
    """The functions of one ELF file, by virtual address."""

    file: str  # that has the symbols: the module or its debug file
    starts: list[int]
    names: list[tuple[str, int]]
    segments: list[tuple[int, int, int]]  # file offset, size, virtual address
    lines: bool

    def virtual(self, offset: int) -> int:
        for start, size, address in self.segments:
            if start <= offset < start + size:
                return offset - start + address
        return offset


def _function(module: str, offset: int) -> str | None:
    table = _symbols(module)
    if table is None:
        return None
    address = table.virtual(offset)
    at = bisect.bisect_right(table.starts, address - 1) - 1
    if at < 0:
        return None
    name, size = table.names[at]
    inside = address - table.starts[at]
    return f"{name}+{inside:#x}" if inside <= size else None


@cache
def _symbols(module: str) -> _Symbols | None:
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    try:
        with Path(module).open("rb") as stream:
            elf = ELFFile(stream)
            segments = [(each["p_offset"], each["p_filesz"], each["p_vaddr"])
                        for each in elf.iter_segments() if each["p_type"] == "PT_LOAD"]
            found, debug = _functions(elf), _debug_file(elf)
            lines, file = elf.get_section_by_name(".debug_line") is not None, module
        if debug is not None:
            with debug.open("rb") as stream:
                elf = ELFFile(stream)
                found |= _functions(elf)
                lines, file = elf.get_section_by_name(".debug_line") is not None, str(debug)
    except (OSError, ELFError):
        return None
    starts = sorted(found)
    return _Symbols(file, starts, [found[start] for start in starts], segments, lines)


def _functions(elf: Any) -> dict[int, tuple[str, int]]:
    found: dict[int, tuple[str, int]] = {}
    for name in (".dynsym", ".symtab"):
        section = elf.get_section_by_name(name)
        if section is None or section["sh_type"] == "SHT_NOBITS":
            continue
        for symbol in section.iter_symbols():
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF":
                found[symbol["st_value"]] = (symbol.name, symbol["st_size"])
    return found


def _debug_file(elf: Any) -> Path | None:
    section = elf.get_section_by_name(".note.gnu.build-id")
    notes = section.iter_notes() if section is not None else ()
    for note in notes:
        word: str = note["n_desc"]
        path = _DEBUG / word[:2] / f"{word[2:]}.debug"
        if os.access(path, os.R_OK):
            return path
    return None
