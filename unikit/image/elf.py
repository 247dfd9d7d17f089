"""Read images: segments and entries for the platforms, plan and sizes for people.

An image is untrusted input. Whatever its headers say is checked against the file before it is used,
and every mistake is one :class:`~unikit.errors.ImageError` that says what is wrong.
"""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unikit.errors import ImageError
from unikit.platform.api import PAGE, BootImage, Segment

BASE = 0x100000
"""Address an image starts at; memory below holds nothing (facts of the sealed guest)."""
LIMIT = 1 << 40
"""No image reaches beyond this address."""
OWNER = b"unikit\0"
NAME = r"[a-z][a-z0-9_-]{0,62}"
"""What an image may be called, as a regular expression."""
NOTE_KVM = 1
"""Note type that holds the address of the kvm entry."""
NOTE_PLAN = 2
"""Note type that holds the plan as JSON."""
NOTE_ENTRY = 3
"""Note type that holds the address of a named entry: eight bytes, then the name in ASCII."""

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PF_X, _PF_W = 1, 1, 2
_EM_X86_64, _ET_EXEC = 62, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """One section of an image. ``size`` in bytes; ``kind`` is text, rodata, data or bss."""

    name: str
    kind: str
    address: int
    size: int


def load(path: str | Path) -> BootImage:
    """Read and check an image.

    :raises ImageError: it cannot be read, is no ELF file of ours, or contradicts itself.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    segments, entry = _segments(path, data)
    notes = _notes(path, data)
    plan = _plan(path, next((body for kind, body in notes if kind == NOTE_PLAN), None))
    entries = {"linux": entry} if entry else {}
    entries |= dict(_entry(path, kind, body) for kind, body in notes
                    if kind in (NOTE_KVM, NOTE_ENTRY))
    for name, address in entries.items():
        if not any(each.executable and each.address <= address < each.address + len(each.data)
                   for each in segments):
            raise ImageError(f"{path}: the {name} entry {address:#x} does not lie in its code")
    said = plan["entries"]
    if set(said) - set(entries):
        raise ImageError(f"{path}: its plan claims the entries {said!r}, the file has "
                         f"{sorted(entries)}")
    return BootImage(path, segments, {name: entries[name] for name in said}, plan,
                     _Symbols(path))


def _segments(path: Path, data: bytes) -> tuple[tuple[Segment, ...], int]:
    if data[:4] != b"\x7fELF":
        raise ImageError(f"{path} is not an ELF file; build one with: unikit build NAME")
    if len(data) < _EHDR.size:
        raise ImageError(f"{path} is cut off: it ends inside its header")
    ident, kind, machine, _, entry, phoff, _, _, _, phsize, phcount, *_ = _EHDR.unpack_from(data)
    if ident[4:6] != b"\x02\x01" or machine != _EM_X86_64 or kind != _ET_EXEC:
        raise ImageError(f"{path} is not a unikit image: an x86-64 ELF executable at a fixed "
                         "address is wanted")
    if phsize != _PHDR.size or not 1 <= phcount <= 64 or phoff + phcount * phsize > len(data):
        raise ImageError(f"{path} is cut off or damaged: its program headers lie outside the file")
    found: list[Segment] = []
    for index in range(phcount):
        kind, flags, offset, address, _, stored, size, _ = _PHDR.unpack_from(
            data, phoff + index * phsize)
        if kind != _PT_LOAD or size == 0:
            continue
        if offset + stored > len(data) or stored > size:
            raise ImageError(f"{path} is cut off: segment {index} lies outside the file")
        if not BASE <= address < LIMIT or size > LIMIT:
            raise ImageError(f"{path} is not a unikit image: segment {index} is at {address:#x}, "
                             f"images start at {BASE:#x}")
        if flags & _PF_W and flags & _PF_X:
            raise ImageError(f"{path}: segment {index} is writable and executable")
        found.append(Segment(address, data[offset:offset + stored], size, bool(flags & _PF_W),
                             bool(flags & _PF_X)))
    found.sort(key=lambda segment: segment.address)
    for one, two in zip(found, found[1:], strict=False):
        if (one.address + one.size + PAGE - 1) // PAGE > two.address // PAGE:
            raise ImageError(f"{path}: segments at {one.address:#x} and {two.address:#x} share "
                             "a page")
    if not any(segment.executable for segment in found):
        raise ImageError(f"{path} has no code")
    return tuple(found), entry


def _entry(path: Path, kind: int, body: bytes) -> tuple[str, int]:
    """Return name and address of the entry that a note speaks of."""
    name = "kvm" if kind == NOTE_KVM else body[8:].rstrip(b"\0").decode("ascii", "replace")
    if len(body) < 8 or (kind == NOTE_KVM and len(body) != 8) or not re.fullmatch(NAME, name):
        raise ImageError(f"{path}: the note of the {name or 'unnamed'} entry is damaged")
    return name, struct.unpack_from("<Q", body)[0]


def _notes(path: Path, data: bytes) -> list[tuple[int, bytes]]:
    """Return our notes (type, body); found by section headers, they need no guest memory."""
    notes: list[tuple[int, bytes]] = []
    shoff, = struct.unpack_from("<Q", data, 40)
    shsize, shcount = struct.unpack_from("<HH", data, 58)
    if shoff == 0 or shsize != 64 or shoff + shcount * shsize > len(data):
        raise ImageError(f"{path} is not a unikit image: it has no section headers "
                         "(cut off, or stripped too far)")
    for index in range(shcount):
        kind, = struct.unpack_from("<I", data, shoff + index * shsize + 4)
        offset, size = struct.unpack_from("<QQ", data, shoff + index * shsize + 24)
        if kind != 7:  # SHT_NOTE
            continue
        if offset + size > len(data):
            raise ImageError(f"{path} is cut off: its notes lie outside the file")
        at, end = offset, offset + size
        while at + 12 <= end:
            name_size, body_size, type_ = struct.unpack_from("<III", data, at)
            body = at + 12 + (name_size + 3 & ~3)
            if body + body_size > end:
                raise ImageError(f"{path}: a note is longer than its section")
            if data[at + 12:at + 12 + name_size] == OWNER:
                notes.append((type_, data[body:body + body_size]))
            at = body + (body_size + 3 & ~3)
    if not notes:
        raise ImageError(f"{path} is not a unikit image: it has no unikit note; "
                         "build one with: unikit build NAME")
    return notes


def _plan(path: Path, text: bytes | None) -> dict[str, Any]:
    if text is None:
        raise ImageError(f"{path} has no plan note; it was not made by unikit build")
    try:
        plan = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{path}: its plan note is damaged ({error})") from error
    if not isinstance(plan, dict):
        raise ImageError(f"{path}: its plan note is damaged")
    if plan.get("format") != 1:
        raise ImageError(f"{path}: its plan has format {plan.get('format')!r}, this unikit reads "
                         "format 1; build the image again")
    wrong = [key for key, fits in _FITS.items() if not fits(plan.get(key, _ABSENT.get(key)))]
    if wrong:
        raise ImageError(f"{path}: its plan note is damaged: {', '.join(wrong)} cannot be right; "
                         "build the image again")
    return plan


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_ABSENT: dict[str, Any] = {"components": {}, "options": {}, "forward": []}
_FITS = {
    "name": lambda value: isinstance(value, str) and re.fullmatch(NAME, value) is not None,
    "entries": _words,
    "components": lambda value: isinstance(value, dict)
    and all(isinstance(each, dict) for each in value.values()),
    "options": lambda value: isinstance(value, dict),
    "forward": _words,
}
"""What the parts of a plan that others rely on look like."""


class _Symbols(Sequence[tuple[int, int, str]]):
    """(address, size, name) of an image, read when first looked at: most boots never need them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: list[tuple[int, int, str]] | None = None

    def _get(self) -> list[tuple[int, int, str]]:
        if self._read is None:
            debug = self._path.with_name(self._path.name + ".debug")
            self._read = symbols(debug if debug.exists() else self._path)
        return self._read

    def __iter__(self) -> Any:
        return iter(self._get())

    def __len__(self) -> int:
        return len(self._get())

    def __getitem__(self, index: Any) -> Any:
        return self._get()[index]


def symbols(path: Path) -> list[tuple[int, int, str]]:
    """Return (address, size, name) of an ELF file's functions and objects, by address.

    Empty if the file has none or is damaged: a backtrace without names beats none.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection
    found = []
    try:
        with path.open("rb") as file:
            for section in ELFFile(file).iter_sections():
                if isinstance(section, SymbolTableSection):
                    found += [(symbol["st_value"], symbol["st_size"], symbol.name)
                              for symbol in section.iter_symbols()
                              if symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT")]
    except (OSError, ELFError, ValueError, KeyError):
        return []
    return sorted(found)


def sections(path: str | Path) -> list[Section]:
    """Return the sections of an image that take memory, by address.

    :raises ImageError: the file is no ELF file.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    found = []
    try:
        with Path(path).open("rb") as file:
            for section in ELFFile(file).iter_sections():
                flags = section["sh_flags"]
                per_task = flags & 0x400 and section["sh_type"] == "SHT_NOBITS"  # SHF_TLS
                if flags & 2 and section["sh_size"] and not per_task:  # SHF_ALLOC
                    kind = ("text" if flags & 4 else "bss" if section["sh_type"] == "SHT_NOBITS"
                            else "data" if flags & 1 else "rodata")
                    found.append(Section(section.name, kind, section["sh_addr"],
                                         section["sh_size"]))
    except (OSError, ELFError, ValueError) as error:
        raise ImageError(f"cannot read the sections of {path}: {error}") from error
    return found
