"""Run compiler, linker and their friends: the only file of this layer that starts processes.

Objects are kept in the user's cache folder under a name made of everything that went into them, so
that a second image with the same components compiles only what is its own. Same inputs give the
same bytes: paths are mapped away and seeds fixed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from unikit import cache
from unikit.errors import ToolchainError

ROOT = Path(__file__).resolve().parents[2]
"""The folder on which ``#include <unikit/...>`` stands."""

_WARNINGS = ("-Wall", "-Wextra")
_CODE = (
    "-std=gnu11", "-ffreestanding", "-nostdinc", "-fno-pie", "-fno-pic", "-U_FORTIFY_SOURCE",
    "-fcf-protection=none", "-fno-stack-clash-protection", "-fno-asynchronous-unwind-tables",
    "-ffunction-sections", "-fdata-sections", "-fno-math-errno", "-g1",
    "-malign-data=abi", "-fno-jump-tables", "-fno-omit-frame-pointer",
    "-fstack-protector-strong", "-mstack-protector-guard=global",
)
_KERNEL = ("-mgeneral-regs-only",)  # applications may use floating point and vectors
_FREESTANDING = ("-ffreestanding", "-nostdinc")
_LIBRARY = (  # what becomes part of a shared library of the host
    "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-fno-semantic-interposition",
    "-ftls-model=initial-exec", "-U_FORTIFY_SOURCE", "-fcf-protection=none",
    "-fno-stack-clash-protection", "-fno-stack-protector", "-fomit-frame-pointer",
    "-fasynchronous-unwind-tables", "-fno-math-errno", "-g1",
)
_LINK = (
    "-static", "-no-pie", "-nostdlib", "-Wl,--gc-sections", "-Wl,--build-id=none",
    "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096", "-Wl,--no-warn-rwx-segments",
    "-Wl,--orphan-handling=place",
)
_LEVELS = {"size": "-Os", "speed": "-O2", "debug": "-Og"}
_REMEDY = "install a C compiler: apt-get install gcc libc6-dev (or set CC)"


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """One file to compile.

    :ivar source: C or assembly (``.c``, ``.S``), or ready objects (``.o``, ``.a``) passed on.
    :ivar defines: ``-D`` words.
    :ivar application: whether vector registers are allowed.
    :ivar lto: whether it takes part in link-time optimisation.
    :ivar includes: folders for ``#include "..."``.
    :ivar flags: further compiler flags.
    :ivar optimise: ``speed``, ``size`` or ``debug``; empty: as the whole image.
    :ivar library: empty; or ``freestanding`` or ``hosted``: for a shared library of the host.
    """

    source: Path
    defines: tuple[str, ...] = ()
    application: bool = False
    lto: bool = True
    includes: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()
    optimise: str = ""
    library: str = ""


@functools.cache
def compiler() -> tuple[str, ...]:
    """Return the C compiler as a command (``CC`` or ``gcc``, then ``cc``).

    :raises ToolchainError: there is none; the message says what to install.
    """
    wish = os.environ.get("CC", "").split()
    for command in ([wish] if wish else [["gcc"], ["cc"]]):
        path = shutil.which(command[0])
        if path:
            return (path, *command[1:])
    raise ToolchainError(f"no C compiler: {wish[0] if wish else 'gcc'!r} is not on the PATH; "
                         f"{_REMEDY}")


@functools.cache
def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ToolchainError(f"{name} is not on the PATH; install it: apt-get install binutils")
    return path


@functools.cache
def identity() -> str:
    """Return a text that changes whenever the compiler does: path, size and time of its file."""
    path = Path(compiler()[0]).resolve()
    stat = path.stat()
    return " ".join((*compiler(), str(path), str(stat.st_size), str(stat.st_mtime_ns)))


@functools.cache
def _builtin_includes() -> tuple[str, ...]:
    """Return where the compiler keeps its own freestanding headers; asked once, kept on disk."""
    note = cache.folder() / f"cc-{hashlib.sha256(identity().encode()).hexdigest()[:16]}"
    if note.exists():
        folder = note.read_text()
        if Path(folder).is_dir():
            return ("-isystem", folder)
    folder = run((*compiler(), "-print-file-name=include")).strip()
    if not Path(folder).is_dir():
        raise ToolchainError(f"{compiler()[0]} does not say where its headers are; {_REMEDY}")
    cache.write(note, folder.encode())
    return ("-isystem", folder)


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a tool and return what it printed.

    :raises ToolchainError: it is missing or failed; carries command, exit status and stderr.
    """
    import subprocess  # a cached image needs none of it
    from tempfile import TemporaryDirectory
    words = [str(word) for word in command]
    # Their own folder, since compilers that are interrupted leave their files lying about.
    scratch = TemporaryDirectory(prefix="unikit-tools-", ignore_cleanup_errors=True)
    try:
        with scratch as folder:
            done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, errors="replace",
                                  stdin=subprocess.DEVNULL, check=False,
                                  env={**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0",
                                       "TMPDIR": folder})
    except FileNotFoundError as error:
        raise ToolchainError(f"{words[0]} is missing; {_REMEDY}", words) from error
    if done.returncode != 0:
        shown = _cause(done.stderr) or done.stderr.strip() or done.stdout.strip() or "no message"
        raise ToolchainError(f"{Path(words[0]).name} failed (exit {done.returncode}): {shown}",
                             words, done.returncode, done.stderr)
    return done.stdout


def _cause(stderr: str) -> str:
    """Return cause and remedy where a tool's own words bury them, or nothing."""
    if "No space left on device" in stderr:
        return "no space left on the disk; free some, or set UNIKIT_CACHE and TMPDIR to others"
    lacking = re.search(r"cannot execute ['‘](as|ld|collect2)['’]|cannot find ['‘](ld)['’]", stderr)
    if lacking:
        return (f"{lacking[1] or lacking[2]} is not on the PATH; install it: "
                "apt-get install binutils")
    return ""


@functools.cache
def tree_digest(folder: Path, endings: tuple[str, ...] = (".h",)) -> str:
    """Return a digest of the contents of all files with these endings below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in endings and path.is_file():
            digest.update(f"{path.relative_to(folder)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _flags(unit: Unit, optimise: str) -> list[str]:
    level = _LEVELS[unit.optimise or optimise]
    if unit.library == "hosted":
        flags = [*_LIBRARY, "-D_GNU_SOURCE"]
    else:
        flags = [*(_LIBRARY + _FREESTANDING if unit.library else _CODE), *_builtin_includes()]
    flags += [*_WARNINGS, level, "-I", str(ROOT)]
    flags += [word for folder in unit.includes for word in ("-I", str(folder))]
    if not unit.application and unit.library != "hosted":
        flags += _KERNEL
    flags += ["-flto"] if unit.lto else ["-fno-lto", "-fno-tree-loop-distribute-patterns"]
    flags += [f"-D{word}" for word in unit.defines]
    home = unit.source.parent
    mapped = [] if home.is_relative_to(ROOT) else [f"-ffile-prefix-map={home}=app"]
    flags += [*mapped, f"-ffile-prefix-map={ROOT}=.", f"-frandom-seed={unit.source.name}"]
    return flags + list(unit.flags)


def compile_unit(unit: Unit, optimise: str = "speed") -> Path:
    """Return the object of one unit, from the cache or made now.

    :raises ToolchainError: the compiler is missing or refused the source.
    """
    if unit.source.suffix in (".o", ".a"):
        return unit.source
    flags = _flags(unit, optimise)
    digest = hashlib.sha256()
    for text in (identity(), *flags, tree_digest(ROOT / "unikit"),
                 *(tree_digest(folder) for folder in (unit.source.parent, *unit.includes))):
        digest.update(text.encode() + b"\0")
    digest.update(unit.source.read_bytes())
    target = cache.folder() / "objects" / f"{unit.source.stem}-{digest.hexdigest()[:32]}.o"
    if not target.exists():
        from tempfile import TemporaryDirectory
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / "unit.o"
            run((*compiler(), *flags, "-c", unit.source, "-o", fresh), cwd=ROOT)
            fresh.replace(target)
    return target


def compile_all(units: Iterable[Unit], optimise: str = "speed") -> list[Path]:
    """Compile units in parallel; objects come in the order of the units.

    :raises ToolchainError: one failed; the first in order is reported.
    """
    from concurrent.futures import ThreadPoolExecutor
    units = list(units)
    compiler()  # one clear error instead of one per thread
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda unit: compile_unit(unit, optimise), units))


def link_library(objects: Sequence[Path], target: Path, optimise: str = "speed") -> None:
    """Link objects into a shared library of the host that needs nothing but libc.

    :raises ToolchainError: the linker refused.
    """
    from tempfile import TemporaryDirectory
    with TemporaryDirectory(dir=target.parent) as name:
        fresh = Path(name) / target.name
        run((*compiler(), *_LIBRARY, _LEVELS[optimise], "-shared", "-flto=auto",
             "-flto-partition=one", "-frandom-seed=unikit", f"-ffile-prefix-map={ROOT}=.",
             f"-ffile-prefix-map={name}=.", "-Wl,--build-id=none", "-Wl,-z,noexecstack",
             "-Wl,-z,now", "-Wl,-z,relro", "-Wl,--as-needed", "-Wl,--no-undefined",
             "-Wl,-Bsymbolic-functions", f"-Wl,-soname,{target.name}", *objects, "-o", fresh),
            cwd=Path(name))
        fresh.chmod(0o755)
        fresh.replace(target)


def link(objects: Sequence[Path], script: Path, target: Path, optimise: str = "speed",
         defines: Sequence[str] = ()) -> None:
    """Link objects into an image: stripped at ``target``, symbols in ``target`` + ``.debug``.

    :raises ToolchainError: the linker refused; undefined symbols are in its stderr.
    """
    from tempfile import TemporaryDirectory
    level = _LEVELS[optimise]
    with TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        whole, stripped, debug = folder / "whole", folder / "stripped", folder / "debug"
        run((*compiler(), *_CODE, *_KERNEL, level, "-flto=auto", "-flto-partition=one",
             "-fipa-pta", "-frandom-seed=unikit", f"-ffile-prefix-map={ROOT}=.",
             f"-ffile-prefix-map={folder}=.", *_LINK, *defines, f"-Wl,-T,{script}",
             *objects, "-o", whole), cwd=folder)
        run((_tool("objcopy"), "--only-keep-debug", whole, debug))
        run((_tool("objcopy"), "--strip-all", whole, stripped))
        stripped.chmod(0o755)
        debug.chmod(0o644)
        debug.replace(target.with_name(target.name + ".debug"))
        stripped.replace(target)
