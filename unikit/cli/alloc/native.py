"""The small C programs and libraries that measuring needs, compiled when first wanted."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from unikit import cache
from unikit.image import toolchain

_HERE = Path(__file__).resolve().parent
_COMMON = ("-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra")
_LIBRARY = ("-shared", "-fPIC", "-fvisibility=hidden", "-fno-builtin", "-ldl")


@functools.cache
def launcher() -> Path:
    """Return the program that runs others and says what they cost.

    :raises ToolchainError: there is no compiler.
    """
    return _made("launch", ())


@functools.cache
def witness() -> Path:
    """Return the library that says whose ``malloc`` a process reaches.

    :raises ToolchainError: there is no compiler.
    """
    return _made("witness", _LIBRARY)


@functools.cache
def glibc() -> Path:
    """Return glibc's allocator as a library to preload.

    :raises ToolchainError: there is no compiler.
    """
    return _made("glibc", _LIBRARY)


def _made(stem: str, flags: tuple[str, ...]) -> Path:
    return build(_HERE / f"host_{stem}.c", (*_COMMON, *flags), ".so" if flags else "")


def build(source: Path, flags: tuple[str, ...], ending: str = "",
          further: tuple[Path, ...] = ()) -> Path:
    """Return what the host's compiler makes of a hosted source, from the cache or made now.

    :param flags: of the compiler, which links as well.
    :param further: files whose contents count too: headers, further sources.
    :raises ToolchainError: there is no compiler, or it refused.
    """
    digest = hashlib.sha256()
    for text in (toolchain.identity(), *flags):
        digest.update(text.encode() + b"\0")
    for path in (source, *further):
        digest.update(path.read_bytes())
    target = cache.folder() / "hosted" / f"{source.stem}-{digest.hexdigest()[:24]}{ending}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / "made"
            extra = [path for path in further if path.suffix == ".c"]
            toolchain.run((*toolchain.compiler(), source, *extra, *flags, "-o", fresh))
            fresh.replace(target)
    return target
