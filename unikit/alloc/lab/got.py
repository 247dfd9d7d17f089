"""Where the modules of a running process keep the addresses of functions they call.

Everything is read from the process's memory: the files may have been replaced since. See the ELF
specification, chapter 5, and the System V ABI for x86-64, section 4.4, for the numbers.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

from unikit.alloc.lab.remote import Memory

_PT_LOAD, _PT_DYNAMIC = 1, 2
_STRTAB, _SYMTAB, _RELA, _RELASZ, _STRSZ, _JMPREL, _PLTRELSZ, _GNU_HASH = (
    5, 6, 7, 8, 10, 23, 2, 0x6FFFFEF5)
_R_64, _R_GLOB_DAT, _R_JUMP_SLOT = 1, 6, 7
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A word in which a module keeps a function's address.

    :ivar module: path of the module.
    :ivar address: of the word.
    :ivar name: of the function.
    :ivar lazy: whether the word may still lead to the dynamic linker.
    """

    module: str
    address: int
    name: str
    lazy: bool


class Module:
    """An ELF file in a process's memory.

    :ivar path: of the file.
    :ivar base: what is added to its addresses.
    :ivar start: its first mapped address.
    :ivar end: behind its last.
    """

    def __init__(self, memory: Memory, path: str, start: int) -> None:
        """Read its tables.

        :raises ValueError: there is no ELF file of this machine's kind.
        """
        self.path, self._memory, self.start = path, memory, start
        head = memory.read(start, 64)
        if head[:5] != b"\x7fELF\x02" or struct.unpack_from("<H", head, 18)[0] != 62:
            raise ValueError(f"{path}: is no 64-bit x86 module")
        place, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        table = memory.read(start + place, size * count)
        segments = [struct.unpack_from("<IIQQQQQ", table, at)
                    for at in range(0, len(table) - 55, size)]
        loads = [each for each in segments if each[0] == _PT_LOAD]
        if not loads:
            raise ValueError(f"{path}: has nothing to load")
        lowest: int = min(each[3] for each in loads) & ~4095
        self.base = start - lowest
        self.end = self.base + max(each[3] + each[6] for each in loads)
        self._symbols = b""
        self._tags: dict[int, int] = {}
        for each in segments:
            if each[0] == _PT_DYNAMIC:
                data = memory.read(self.base + each[3], each[6])
                for tag, value in struct.iter_unpack("<QQ", data[:len(data) // 16 * 16]):
                    self._tags.setdefault(tag, value)

    def _pointer(self, tag: int) -> int:
        """Return the address in a tag; the dynamic linker has relocated most of them in place."""
        value = self._tags.get(tag, 0)
        return value if not value or value >= self.start else value + self.base

    def slots(self, names: frozenset[str]) -> Iterator[Slot]:
        """Yield the words for functions of these names."""
        strings = self._memory.read(self._pointer(_STRTAB), self._tags.get(_STRSZ, 0))
        for place, size in ((_JMPREL, _PLTRELSZ), (_RELA, _RELASZ)):
            data = self._memory.read(self._pointer(place), self._tags.get(size, 0))
            for offset, info, addend in _RELOCATION.iter_unpack(
                    data[:len(data) // _RELOCATION.size * _RELOCATION.size]):
                kind = info & 0xFFFFFFFF
                if kind not in (_R_64, _R_GLOB_DAT, _R_JUMP_SLOT) or (kind == _R_64 and addend):
                    continue
                symbol = self._symbol(info >> 32)
                name = strings[symbol[0]:strings.find(b"\0", symbol[0])].decode(errors="replace")
                if name in names:
                    yield Slot(self.path, self.base + offset, name, kind == _R_JUMP_SLOT)

    def defined(self, names: frozenset[str] | None = None) -> dict[str, tuple[int, int]]:
        """Return (address, size) of the functions the module defines for others."""
        strings = self._memory.read(self._pointer(_STRTAB), self._tags.get(_STRSZ, 0))
        found: dict[str, tuple[int, int]] = {}
        for index in range(self._symbol_count()):
            name_at, info, _, section, value, size = self._symbol(index)
            if info & 15 in (2, 10) and section and value:
                name = strings[name_at:strings.find(b"\0", name_at)].decode(errors="replace")
                if names is None or name in names:
                    found.setdefault(name, (self.base + value, size))
        return found

    def objects(self, name: str) -> int:
        """Return the address of a variable the module defines; 0: none."""
        strings = self._memory.read(self._pointer(_STRTAB), self._tags.get(_STRSZ, 0))
        for index in range(self._symbol_count()):
            symbol = self._symbol(index)
            if symbol[3] and strings[symbol[0]:strings.find(b"\0", symbol[0])] == name.encode():
                return self.base + symbol[4]
        return 0

    def _symbol(self, index: int) -> tuple[int, int, int, int, int, int]:
        end = (index + 1) * _SYMBOL.size
        if end > len(self._symbols):
            room = max(end, 2 * len(self._symbols), 65536)
            self._symbols = self._memory.read(self._pointer(_SYMTAB), room)
        if end > len(self._symbols):
            return (0, 0, 0, 0, 0, 0)
        found: tuple[int, int, int, int, int, int] = _SYMBOL.unpack_from(
            self._symbols, index * _SYMBOL.size)
        return found

    def _symbol_count(self) -> int:
        """Return how many symbols there are: the hash table's last chain says so."""
        table = self._pointer(_GNU_HASH)
        if not table:
            return 0
        buckets, first, bloom, _ = struct.unpack("<4I", self._memory.read(table, 16))
        at = table + 16 + 8 * bloom
        chains = at + 4 * buckets
        data = self._memory.read(at, 4 * buckets)
        last = max((each[0] for each in struct.iter_unpack("<I", data)), default=0)
        if last < first:
            return int(first)
        while True:
            word = self._memory.read(chains + 4 * (last - first), 4)
            last += 1
            if len(word) < 4 or word[0] & 1:
                return int(last)


def modules(pid: int, memory: Memory) -> list[Module]:
    """Return the ELF files that a process has mapped, by address."""
    found, seen = [], set()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        words = line.split(None, 5)
        if len(words) < 6 or not words[5].startswith("/") or int(words[2], 16):
            continue
        start = int(words[0].partition("-")[0], 16)
        path = words[5].removesuffix(" (deleted)")
        if start in seen:
            continue
        seen.add(start)
        try:
            found.append(Module(memory, path, start))
        except (ValueError, struct.error):
            continue
    return found
