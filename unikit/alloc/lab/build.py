"""Compile hosted C of the laboratory: libraries and programs, kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from unikit import cache
from unikit.image import toolchain

HERE = Path(__file__).resolve().parent
_FLAGS = ("-std=gnu11", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-D_GNU_SOURCE", "-Wall",
          "-Wextra", "-fno-semantic-interposition")


def library(name: str, sources: Sequence[Path], defines: Sequence[str] = (),
            includes: Sequence[Path] = (), flags: Sequence[str] = ()) -> Path:
    """Return a shared library made of C files, compiled now unless it was compiled before.

    :param name: of the file, without ``.so``.
    :param defines: ``-D`` words.
    :param includes: folders for ``#include "..."``.
    :raises ToolchainError: a compiler is missing or failed.
    """
    return _make(f"{name}.so", sources, ("-shared", "-Wl,-z,defs", *flags), defines, includes)


def program(name: str, sources: Sequence[Path], defines: Sequence[str] = (),
            flags: Sequence[str] = ()) -> Path:
    """Return a program made of C files; see :func:`library`."""
    return _make(name, sources, flags, defines, ())


def _make(name: str, sources: Sequence[Path], flags: Sequence[str], defines: Sequence[str],
          includes: Sequence[Path]) -> Path:
    words = [*_FLAGS, *flags, *(f"-D{word}" for word in defines), "-I", str(toolchain.ROOT),
             *(word for folder in includes for word in ("-I", str(folder)))]
    digest = hashlib.sha256()
    for word in (toolchain.identity(), name, *words, toolchain.tree_digest(
            toolchain.ROOT / "unikit"), *(toolchain.tree_digest(folder) for folder in includes)):
        digest.update(word.encode() + b"\0")
    for source in sources:
        digest.update(source.read_bytes())
    folder = cache.folder() / "lab" / digest.hexdigest()[:32]
    target = folder / name
    if not target.exists():
        from tempfile import TemporaryDirectory
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as place:
            fresh = Path(place) / name
            toolchain.run((*toolchain.compiler(), *words, *sources, "-o", fresh, "-pthread",
                           *(word for word in flags if word.startswith("-l"))))
            fresh.replace(target)
        cache.prune("lab", keep=128)
    return target
