"""What the law tests share: the source tree, its layers, and plain freestanding objects."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from unikit import registry
from unikit.component import Component

ROOT = Path(__file__).resolve().parents[2]
UNIKIT = ROOT / "unikit"
DOMAINS = ("alloc", "sched", "net", "console", "block", "posix", "fs")

FLAGS = (
    "-std=c11", "-O2", "-ffreestanding", "-fno-lto", "-fno-pic", "-fno-pie", "-nostdinc",
    "-mgeneral-regs-only", "-fno-stack-protector", "-U_FORTIFY_SOURCE", "-fcf-protection=none",
    "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wvla", "-Wundef", "-Wmissing-prototypes",
    "-Wstrict-prototypes", "-Werror",
)
ALLOWED_UNDEFINED = frozenset({"memcpy", "memmove", "memset", "memcmp", "strlen", "kit_panic"})


def run(*command: object) -> str:
    """Run a tool; its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stderr}"
    return done.stdout


def tracked(*endings: str) -> Iterator[Path]:
    """Yield the package's files with these endings, generated and built ones left out."""
    for path in sorted(UNIKIT.rglob("*")):
        if path.suffix in endings and "build" not in path.parts and "__pycache__" not in path.parts:
            yield path


def hosted(path: Path) -> bool:
    """Whether a C file is hosted glue, which may use libc and keep state."""
    return path.name.startswith("host") or "vmm" in path.parts or "preload" in path.parts \
        or "ffi" in path.parts or path.is_relative_to(UNIKIT / "platform/host")


@cache
def image_components() -> tuple[type[Component], ...]:
    """Return unikit's own components that are compiled into images."""
    return tuple(record for record in registry.components()
                 if record.sources and record.side == "image"
                 and registry.entries()[record.id].distribution == registry.DISTRIBUTION)


@cache
def compile_plain(source: Path, folder: Path) -> Path:
    """Return the plain freestanding object of one file; compiled once per folder."""
    target = folder / (source.relative_to(ROOT).as_posix().replace("/", "-") + ".o")
    builtin = run("gcc", "-print-file-name=include").strip()
    run("gcc", *FLAGS, "-isystem", builtin, "-I", ROOT, "-c", source, "-o", target)
    return target


def symbols(target: Path) -> list[tuple[str, str]]:
    """Return (kind, name) of every symbol that ``nm`` prints."""
    return [(match[1], match[2]) for match in
            re.finditer(r"^(?:[0-9a-f]+)?\s+([A-Za-z]) (\S+)$", run("nm", target), re.MULTILINE)]


def sections(target: Path) -> dict[str, int]:
    """Return section name to size."""
    rows = re.finditer(r"^(\.\S+)\s+(\d+)\s+\d+$", run("size", "-A", target), re.MULTILINE)
    return {row[1]: int(row[2]) for row in rows}
