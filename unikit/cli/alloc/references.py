"""Which allocators there are to compare: our components, and what this machine has installed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unikit import registry
from unikit.alloc.api import Allocator
from unikit.errors import CompositionError, UnikitError

_SONAMES = {
    "jemalloc": r"libjemalloc\.so", "mimalloc": r"libmimalloc\.so",
    "mimalloc-secure": r"libmimalloc-secure\.so", "tcmalloc": r"libtcmalloc\.so",
    "tcmalloc_minimal": r"libtcmalloc_minimal\.so", "tbbmalloc": r"libtbbmalloc_proxy\.so",
    "hoard": r"libhoard\.so", "snmalloc": r"libsnmallocshim\.so",
    "snmalloc-checks": r"libsnmallocshim-checks\.so", "rpmalloc": r"librpmalloc(wrap)?\.so",
    "scudo": r"libclang_rt\.scudo_standalone(-x86_64|-aarch64)?\.so",
    "hardened_malloc": r"libhardened_malloc\.so",
    "hardened_malloc-light": r"libhardened_malloc-light\.so", "mesh": r"libmesh\.so",
    "dieharder": r"libdieharder\.so", "mallocng": r"libmallocng\.so",
}
_NAMED_ONLY = ("alloc.firstfit",)
_FOLDERS = ("/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64", "/opt/lib",
            "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-musl")
_DEEP = ("/usr/lib/llvm-*/lib/clang/*/lib/*", "/usr/lib/clang/*/lib/*",
         "/usr/lib64/clang/*/lib/*")
_WORDS = (rb"\b(\d+\.\d+\.\d+)-\d+-g[0-9a-f]{40}", rb"gperftools (\d+\.\d+[.\d]*)",
          rb"TBBmalloc: VERSION\s+(\d+[.\d]+)",
          rb"(?:rpmalloc|snmalloc|mimalloc) v?(\d+\.\d+[.\d]*)")


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """One allocator to compare.

    :ivar name: as in the table and for ``--allocator``.
    :ivar kind: ``"baseline"``, ``"component"`` (ours, or a plug-in's), ``"installed"``, ``"file"``
        or ``"own"``: what the program is linked to.
    :ivar version: as far as it can be told.
    :ivar preload: libraries to preload; empty for none.
    :ivar record: of a component.
    :ivar environment: variables that go with it.
    """

    name: str
    kind: str
    version: str = ""
    preload: tuple[Path, ...] = ()
    record: Allocator | None = None
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def glibc() -> Candidate:
    """Return the baseline: the C library's own allocator, nothing preloaded."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        version = ""
    return Candidate("glibc", "baseline", version.removeprefix("glibc "))


@functools.cache
def installed() -> dict[str, Path]:
    """Return the allocators that this machine has installed, by name."""
    found: dict[str, Path] = {}
    libraries = list(_libraries())
    for name, pattern in _SONAMES.items():
        matching = [path for path in libraries if re.match(pattern + r"(\.|$)", path.name)]
        if matching:
            found[name] = max(matching, key=_generation)
    if "tcmalloc" in found:
        found.pop("tcmalloc_minimal", None)  # the same allocator without its profiler
    return found


def _generation(path: Path) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", path.name.partition(".so")[2]))


def _libraries() -> Iterator[Path]:
    """Yield libraries for this machine's programs: of the linker's cache and of known folders."""
    tool = shutil.which("ldconfig") or shutil.which("ldconfig", path="/sbin:/usr/sbin")
    if tool:
        with contextlib.suppress(OSError):
            listing = subprocess.run([tool, "-p"], capture_output=True, text=True, check=False)
            for match in re.finditer(r"\((?:libc6,x86-64|libc6,AArch64)[^)]*\) => (\S+)",
                                     listing.stdout):
                yield Path(match[1])
    folders = [Path(word) for word in os.environ.get("LD_LIBRARY_PATH", "").split(":") if word]
    folders += [Path(word) for word in _FOLDERS]
    for pattern in _DEEP:
        folders += sorted(Path("/").glob(pattern.removeprefix("/")))
    machine = os.uname().machine
    for folder in folders:
        for path in sorted(folder.glob("lib*.so*")) if folder.is_dir() else ():
            foreign = re.search(r"-(i386|x86_64|aarch64|arm\w*)\.so", path.name)
            if foreign is None or foreign[1] == machine:
                yield path


def version_of(path: Path) -> str:
    """Return the version of a library: of its package, else what its own bytes or name say."""
    for tool, asked in (("dpkg-query", "-S"), ("rpm", "-qf")):
        if shutil.which(tool):
            for each in (path, path.resolve()):
                if found := _package(tool, asked, each):
                    return found
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        for pattern in _WORDS:
            if match := re.search(pattern, data):
                return match[1].decode()
    return path.resolve().name.partition(".so.")[2]


def _package(tool: str, asked: str, path: Path) -> str:
    done = subprocess.run([tool, asked, str(path)], capture_output=True, text=True, check=False,
                          env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0 or not done.stdout:
        return ""
    if tool == "rpm":
        return done.stdout.split()[0]
    name = done.stdout.splitlines()[0].partition(": ")[0].split(",")[0]
    shown = subprocess.run([tool, "-W", "-f", "${Version}", name], capture_output=True, text=True,
                           check=False)
    return shown.stdout.strip() if shown.returncode == 0 else ""


def components() -> list[type[Allocator]]:
    """Return the allocators of the registry that a program could live on.

    Layers stand on another one, what never reuses a block is no allocator for a program, and what
    searches all blocks for each request does not come to an end: these have to be named.
    """
    return [record for record in registry.components("alloc") if issubclass(record, Allocator)
            and "layer" not in record.features and "reuses" in record.features
            and record.id not in _NAMED_ONLY]


def everything(tell: Callable[[str], None] = lambda text: None
               ) -> tuple[list[Candidate], dict[str, str]]:
    """Return every allocator found, the baseline first, and those that cannot be used, with why.

    :param tell: is told what takes time: libraries are compiled when first wanted.
    """
    found = [glibc()]
    unusable: dict[str, str] = {}
    for record in components():
        tell(f"making the preload library of {record.stem()}")
        try:
            found.append(_candidate(record.stem(), record_of(record.stem())))
        except UnikitError as error:
            unusable[record.stem()] = str(error).splitlines()[0]
    for name, path in installed().items():
        found.append(Candidate(name, "installed", version_of(path), (path,)))
    return found, unusable


def named(words: Sequence[str]) -> list[Candidate]:
    """Return what ``--allocator`` names, the baseline first whether it is named or not.

    :param words: each a list with commas.
    :raises CompositionError: some name nothing; all of them are listed, with what there is.
    """
    found = [glibc()]
    problems: list[str] = []
    for word in (part.strip() for each in words for part in each.split(",")):
        try:
            if word and word != "glibc":
                found.append(one(word))
        except CompositionError as error:
            problems += error.problems
    if problems:
        raise CompositionError(problems)
    unique: dict[str, Candidate] = {}
    for each in found:
        if unique.get(each.name, each).preload != each.preload:  # two files of one name
            each = dataclasses.replace(each, name=str(each.preload[0]))
        unique[each.name] = each
    return list(unique.values())


def one(word: str) -> Candidate:
    """Return what one word names: a file, an installed allocator or a component.

    :raises CompositionError: it names nothing, or its options are wrong.
    """
    if "/" in word or word.endswith(".so"):
        path = Path(word).resolve()
        if not path.is_file():
            raise CompositionError([f"--allocator {word}: there is no such file"])
        if any(letter in str(path) for letter in " :"):
            raise CompositionError([f"--allocator {word}: the dynamic linker takes no path with a "
                                    f"space or a colon: {path}"])
        return Candidate(path.name.partition(".so")[0], "file", version_of(path), (path,))
    places = installed()
    if word in places:
        return Candidate(word, "installed", version_of(places[word]), (places[word],))
    record = component(word)
    if record is None:
        known = ["glibc", *sorted(each.stem() for each in registry.components("alloc")),
                 *sorted(places)]
        raise CompositionError([f"--allocator {word}: no such allocator; found here: "
                                f"{', '.join(known)}; or give a file: ./{word}.so"])
    return _candidate(word, record)


def component(word: str) -> Allocator | None:
    """Return the record of a component that a word names; ``None``: it names something else.

    :raises CompositionError: its options are wrong.
    """
    stems = {record.stem() for record in registry.components("alloc")}
    return record_of(word) if word.partition(":")[0].partition("+")[0] in stems else None


def record_of(word: str) -> Allocator:
    """Return the record that ``tlsf``, ``tlsf:pool=64M`` or ``guard+tlsf:pool=64M`` describes.

    Layers come first, the outermost one foremost. What is not said is as suits a whole program.

    :raises CompositionError: a name or an option is wrong.
    """
    names, settings = [], {}
    for part in word.split("+"):
        name, *options = part.split(":")
        names.append(name)
        for each in options:
            key, equals, value = each.partition("=")
            if not equals:
                raise CompositionError([f"--allocator {word}: write NAME:OPTION=VALUE"])
            settings[f"alloc.{name}.{key}"] = value
    from unikit.image import preload
    return preload.choose(",".join(names), settings)


def typed(word: str) -> str:
    """Return how ``unikit alloc run`` takes what a word means to ``compare``.

    >>> typed("guard+tlsf:pool=1M")
    '--allocator guard,tlsf --set alloc.tlsf.pool=1M'
    """
    parts = [part.split(":") for part in word.split("+")]
    settings = [f"--set alloc.{part[0]}.{option}" for part in parts for option in part[1:]]
    return " ".join(["--allocator", ",".join(part[0] for part in parts), *settings])


def _candidate(word: str, record: Allocator) -> Candidate:
    from unikit import __version__
    from unikit.image import preload
    entry = registry.entries().get(record.id)
    own = entry is None or entry.distribution == registry.DISTRIBUTION
    return Candidate(word, "component", __version__ if own else "plug-in",
                     (preload.library(record),), record)
