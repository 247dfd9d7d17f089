"""Make the preload library of an allocator: the malloc family of a Linux program over a component.

The library is composed like an image: a readable ``composition.c`` takes the component's source and
``unikit/alloc/preload`` into one compilation, so that ``malloc`` is the component's own ``alloc``
with next to nothing around it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unikit import cache, registry
from unikit.alloc.api import Allocator
from unikit.component import Component
from unikit.errors import CompositionError, UnikitError
from unikit.image import resolve, toolchain

FOLDER = toolchain.ROOT / "unikit/alloc/preload"
_HOSTED = ("host_heap.c", "host_thread.c", "host_raise.c", "host_report.c", "host_leaks.c")
_FEATURES = ("unsized", "threads", "pages", "zeroed", "add_region", "sites", "leaks")
"""What the library makes use of where it is there: ``KIT_PRELOAD_...``, 0 or 1."""


def choose(names: str, settings: Mapping[str, Any] | None = None) -> Allocator:
    """Return the allocator that names stand for, with options that suit a whole program.

    :param names: ``"tlsf"``; with layers from the outside in ``"guard,tlsf"``.
    :param settings: option values by ``alloc.NAME.OPTION``; they go before
        :attr:`Allocator.for_process`.
    :raises CompositionError: with every problem found.
    """
    suited: dict[str, Any] = {}
    for name in names.split(","):
        try:
            record = registry.find(name, "alloc")
        except UnikitError:
            continue  # the resolver says so, with everything else
        if issubclass(record, Allocator):
            suited |= {f"{record.id}.{key}": value for key, value in record.for_process.items()}
    return resolve.allocator(names, suited | dict(settings or {}))


def library(record: Allocator, *, notes: bool | None = None) -> Path:
    """Return the preload library of an allocator, made now unless it was made before.

    :param record: an allocator or layers over one: ``Tlsf()``, ``Guard(Tlsf())``.
    :param notes: whether each call notes its block and its caller, so that a panic can name both;
        default: where there are layers, of which some are there to find mistakes.
    :raises CompositionError: it has no C source.
    :raises ToolchainError: a compiler is missing or failed.
    """
    parts = record.layers()
    problems = [f"{part.id}: has no C source and cannot serve a program" for part in parts
                if not part.sources]
    if problems:
        raise CompositionError(problems)
    text = composition(record)
    defines = _defines(record, len(parts) > 1 if notes is None else notes)
    folder = cache.folder() / "preload" / _fingerprint(parts, text, defines)
    target = folder / f"libunikit-{'-'.join(part.stem() for part in parts)}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / "composition.c"
        cache.write(source, text.encode())
        toolchain.link_library(toolchain.compile_all(_units(parts, source, defines)), target)
        cache.prune("preload", keep=256)
    return target


def composition(record: Allocator) -> str:
    """Return ``composition.c``: the innermost component's source, the choice, the malloc family.

    The digest of each file stands beside it, so that the text changes when a file does.
    """
    def include(path: Path) -> str:
        return f'#include "{path}" /* {hashlib.sha256(path.read_bytes()).hexdigest()} */'

    parts = record.layers()
    main = _main_source(parts[-1])
    lines = ["/* Made by unikit: the preload library of "
             f"{', '.join(part.id for part in parts)}. */"]
    lines += [include(main)] if main else []
    lines += ["#include <unikit/alloc/preload/host.h>"]
    rows = []
    for index, part in enumerate(parts):
        values = [f"    UINT64_C({value})," for value in part.encoded()] or ["    0,"]
        lines += [f"extern const struct kit_alloc_component {part.symbol()};",
                  f"static const uint64_t preload_options_{index}[] = {{", *values, "};"]
        rows.append(f"    {{&{part.symbol()}, preload_options_{index}}},")
    name = ",".join(part.stem() for part in parts)
    lines += ["const struct kit_alloc_choice kit_preload_choices[] = {", *rows, "};",
              f"const size_t kit_preload_choice_count = {len(parts)};",
              f'const char kit_preload_name[] = "{name}";',
              include(FOLDER / "host_malloc.c"), include(FOLDER / "host_new.c")]
    return "\n".join([*lines, ""])


def _main_source(part: Component) -> Path | None:
    """Return the source that defines the component; it is compiled together with malloc."""
    pattern = re.compile(rf"\bkit_alloc_component\s+{part.symbol()}\b")
    return next((path for path in part.source_files()
                 if path.suffix == ".c" and pattern.search(path.read_text())), None)


def _defines(record: Allocator, notes: bool) -> tuple[str, ...]:
    defines = [f"KIT_PRELOAD_{name.upper()}={int(name in record.features)}" for name in _FEATURES]
    defines.append(f"KIT_PRELOAD_NOTES={int(notes)}")
    if len(record.layers()) == 1:
        defines += [f"KIT_SOLE_ALLOC={record.symbol()}", *record.sole_defines()]
    return tuple(defines)


def _units(parts: Sequence[Component], source: Path, defines: tuple[str, ...]
           ) -> list[toolchain.Unit]:
    folders = tuple(dict.fromkeys(part.folder() for part in parts))
    main = _main_source(parts[-1])
    inner = [path for part in parts for path in part.source_files() if path != main]
    units = [toolchain.Unit(path, defines, includes=folders, library="freestanding",
                            lto=path.suffix == ".c") for path in (source, *inner)]
    return units + [toolchain.Unit(FOLDER / name, defines, library="hosted") for name in _HOSTED]


def _fingerprint(parts: Sequence[Component], text: str, defines: Sequence[str]) -> str:
    """Return a name for everything a library is made from; files by path, size and time."""
    digest = hashlib.sha256()
    for word in (toolchain.identity(), text, *defines):
        digest.update(word.encode() + b"\1")
    paths = {path for part in parts
             for path in (*part.source_files(), *part.folder().glob("*.h"))}
    paths |= {*(toolchain.ROOT / "unikit").rglob("*.h"), *FOLDER.glob("*.c"),
              Path(toolchain.__file__)}
    for path in sorted(paths):
        stat = path.stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\1".encode())
    return digest.hexdigest()[:32]
