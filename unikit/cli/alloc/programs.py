"""What a program is before it runs: whether a library can be preloaded, whose allocator it has."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import stat
from pathlib import Path

from unikit.errors import InvalidArgument, NotFound, UnikitError

_INSIDE = {"je_malloc": "jemalloc", "mi_malloc": "mimalloc", "tc_malloc": "tcmalloc",
           "rpmalloc": "rpmalloc", "moz_arena_malloc": "mozjemalloc", "sn_malloc": "snmalloc"}
_LINKED = re.compile(r"^lib(jemalloc|mimalloc|tcmalloc|tbbmalloc|hoard|snmalloc|rpmalloc)")


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A program as its file describes it.

    :ivar path: the file that the kernel executes; of a script, the interpreter.
    :ivar obstacle: why nothing can be preloaded, or an empty text.
    :ivar inside: the allocator compiled into it, which no preloading replaces, or an empty text.
    :ivar linked: libraries of other allocators that it is linked to.
    """

    path: Path
    obstacle: str = ""
    inside: str = ""
    linked: tuple[str, ...] = ()


def examine(word: str) -> Program | None:
    """Return what can be said about a program by its file; ``None``: there is no such file."""
    place = shutil.which(word)
    if place is None:
        return None
    path = _interpreter(Path(place).resolve())
    mode = path.stat().st_mode
    if mode & (stat.S_ISUID | stat.S_ISGID) and os.geteuid() != path.stat().st_uid:
        return Program(path, "it changes its user or group at start (setuid), and the linker "
                             "ignores LD_PRELOAD for such programs")
    return _elf(path)


def missing(word: str) -> UnikitError:
    """Return the error that says why a word is no program, and what may be meant."""
    path = Path(word)
    if path.is_dir():
        return InvalidArgument(f"{word}: it is a folder, not a program")
    if not path.exists():
        return NotFound(f"{word}: there is no such program")
    if os.access(path, os.X_OK):
        return NotFound(f"{word}: there is no such program on the PATH; the one here is ./{word}")
    return InvalidArgument(f"{word}: it may not be executed (chmod +x would allow it), and it is "
                           "no trace of unikit alloc record, either")


def _interpreter(path: Path, depth: int = 4) -> Path:
    """Return what executes a script, following ``/usr/bin/env NAME``."""
    with contextlib.suppress(OSError):
        with path.open("rb") as file:
            line = file.readline(256)
        if line.startswith(b"#!") and depth:
            words = line[2:].decode(errors="replace").split()
            if words and Path(words[0]).name == "env":
                words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            found = shutil.which(words[0]) if words else None
            if found:
                return _interpreter(Path(found).resolve(), depth - 1)
    return path


def _elf(path: Path) -> Program:
    from elftools.common.exceptions import ELFError
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            if elf.elfclass != 64:
                return Program(path, "it is a 32-bit program, and the libraries are not")
            if not any(part.header.p_type == "PT_INTERP" for part in elf.iter_segments()):
                return Program(path, "it is linked statically, so that there is no dynamic linker "
                                     "to preload a library")
            linked, defined = [], set()
            for section in elf.iter_sections():
                if isinstance(section, DynamicSection):
                    linked += [str(getattr(tag, "needed", ""))
                               for tag in section.iter_tags("DT_NEEDED")]
                elif isinstance(section, SymbolTableSection):
                    defined |= {symbol.name for symbol in section.iter_symbols()
                                if symbol["st_shndx"] != "SHN_UNDEF"
                                and symbol["st_info"]["type"] == "STT_FUNC"}
            inside = next((name for key, name in _INSIDE.items() if key in defined),
                          "its own" if "malloc" in defined else "")
            return Program(path, inside=inside,
                           linked=tuple(match[1] for name in linked
                                        if (match := _LINKED.match(name))))
    except (ELFError, OSError, ValueError):
        return Program(path)  # no file of ours to judge; the run will tell
