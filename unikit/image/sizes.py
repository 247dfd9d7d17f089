"""Which part of an image's code comes from where, by its line table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from unikit.platform.api import BootImage


def by_component(image: BootImage) -> dict[str, int]:
    """Return bytes of code per component, largest first; what is inlined counts where it came from.

    Needs the ``.debug`` file beside the image; empty without it.
    """
    debug = image.path.with_name(image.path.name + ".debug")
    if not debug.exists():
        return {}
    known = sorted(image.plan.get("components", {}))
    code = [(part.address, part.address + part.size) for part in image.segments if part.executable]
    sizes: Counter[str] = Counter()
    for name, address, size in _ranges(debug):
        if any(start <= address < end for start, end in code):  # not what the linker dropped
            sizes[_owner(PurePosixPath(name), known)] += size
    return dict(sizes.most_common())


def _owner(path: PurePosixPath, known: list[str]) -> str:
    """Return what a source file belongs to: a component's id, a layer's name or the application."""
    words = list(path.parts)
    if "unikit" not in words:
        return "application"
    words = words[words.index("unikit") + 1:]
    if words[:1] == ["apps"]:
        return "application"
    for key in known:
        domain, stem = key.split(".")
        home = {"netif": ["net", "netif"], "console": ["platform", "console"]}.get(domain, [domain])
        rest = words[len(home):]
        if words[:len(home)] == home and rest and rest[0].partition(".")[0] == stem:
            return key
    if words[:1] == ["platform"] and len(words) > 2:
        return f"platform.{words[1]}"
    if words[:2] == ["image", "runtime"]:
        return "runtime"
    return words[0] if len(words) > 1 else "runtime"


def _ranges(debug: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (source path, address, bytes) for each run of code in the line table."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    try:
        with debug.open("rb") as file:
            elf = ELFFile(file)
            if not elf.has_dwarf_info():
                return
            dwarf = elf.get_dwarf_info()
            for unit in dwarf.iter_CUs():
                program = dwarf.line_program_for_CU(unit)
                if program is not None:
                    yield from _rows(program)
    except (OSError, ELFError, ValueError, KeyError):
        return


def _rows(program: Any) -> Iterator[tuple[str, int, int]]:
    header = program.header
    first = 0 if header.version >= 5 else 1
    folders = header["include_directory"]

    def name(index: int) -> str:
        entry = header["file_entry"][index - first]
        folder = entry.dir_index - (0 if header.version >= 5 else 1)
        base = folders[folder].decode() if 0 <= folder < len(folders) else ""
        return f"{base}/{entry.name.decode()}"

    last = None
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if last is not None and state.address > last[1]:
            yield name(last[0]), last[1], state.address - last[1]
        last = None if state.end_sequence else (state.file, state.address)
