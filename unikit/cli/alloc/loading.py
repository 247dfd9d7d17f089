"""Get a preload library into a program, and make sure beforehand that it will be loaded.

The dynamic linker does no more than warn where a library does not load; so it is asked to list what
it would load, which does not run the program.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from unikit.errors import NotSupported

_PT_INTERP = 3


def environment(library: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment with the library in front of what is preloaded already.

    :param base: default: that of this process.
    :raises NotSupported: the path of the library cannot be said there.
    """
    if any(letter in str(library) for letter in " :"):
        raise NotSupported(f"{library}: the dynamic linker takes no path with a space or a colon; "
                           "set UNIKIT_CACHE to another folder")
    found = dict(os.environ if base is None else base)
    others = found.get("LD_PRELOAD", "")
    found["LD_PRELOAD"] = f"{library}:{others}" if others else str(library)
    return found


def verify(program: Path, library: Path, variables: Mapping[str, str]) -> None:
    """Make sure that the dynamic linker of a program will load the library.

    :param program: an ELF file.
    :raises NotSupported: it will not; the message says why.
    """
    import subprocess
    linker = _linker(program)
    if linker is None:
        raise NotSupported(f"{program} names no dynamic linker that could load {library.name}")
    try:
        done = subprocess.run([linker, "--list", program], env=dict(variables), text=True,
                              capture_output=True, errors="replace", stdin=subprocess.DEVNULL,
                              check=False)
    except OSError as error:
        raise NotSupported(f"{program}: its dynamic linker {linker} cannot run: "
                           f"{error.strerror}") from error
    if any(line.split()[0] == str(library) for line in done.stdout.splitlines() if line.strip()):
        return
    reasons = [line for line in done.stderr.splitlines() if library.name in line]
    raise NotSupported(f"{program} will not load {library.name}: "
                       f"{(reasons or done.stderr.split(chr(10)) or ['no reason given'])[0]}")


def _linker(program: Path) -> Path | None:
    """Return the dynamic linker that a 64-bit ELF program asks for."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02" or len(head) < 64:
            return None
        offset, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(offset)
        table = file.read(size * count)
        for at in range(0, len(table) - size + 1, size):
            kind, place, length = (struct.unpack_from(form, table, at + shift)[0]
                                   for form, shift in (("<I", 0), ("<Q", 8), ("<Q", 32)))
            if kind == _PT_INTERP:
                file.seek(place)
                return Path(os.fsdecode(file.read(length).rstrip(b"\0")))
    return None
