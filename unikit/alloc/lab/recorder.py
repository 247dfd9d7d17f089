"""Record what a program asks of its allocator: the library that does it, and what it left behind.

Starting programs is the command line's business (:mod:`unikit.cli.alloc.record`); attaching to a
running one is :mod:`unikit.alloc.lab.attach`'s.
"""

from __future__ import annotations

import re
from pathlib import Path

from unikit.alloc.lab import build
from unikit.alloc.lab.trace import Trace
from unikit.errors import NotFound
from unikit.ffi import load

VARIABLE = "UNIKIT_TRACE"
"""Environment variable with the base of the trace's name; a process appends ``.PID``."""

_MOMENT = 48  # where the header has its second moment: see struct kit_trace_header
_CPU = re.compile(r"^model name\s*: (.*)$", re.MULTILINE)


def library(*, attach: bool = False) -> Path:
    """Return the recorder as a library to preload, or to attach.

    :raises ToolchainError: there is no compiler.
    """
    sources = [build.HERE / "host_record.c", build.HERE / "host_modules.c",
               build.HERE / "host_family.c",
               build.HERE.parent / "preload/host_raise.c"]
    return build.library(
        f"libunikit-{'attach' if attach else 'record'}", sources,
        defines=["KIT_RECORD_ATTACH"] if attach else [],
        flags=("-fno-builtin", "-fexceptions", "-flto", "-Wl,-Bsymbolic-functions"))


def recorded(base: Path) -> list[Path]:
    """Return the files that the recorder made for a base name, oldest first."""
    pattern = re.compile(re.escape(base.name) + r"\.\d+(\.\d+)?")
    found = [path for path in base.parent.iterdir() if pattern.fullmatch(path.name)]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, _number(path)))


def pid_of(raw: Path, base: Path) -> int:
    """Return which process a file of :func:`recorded` belongs to."""
    return int(raw.name[len(base.name) + 1:].partition(".")[0])


def finish(raw: Path, target: Path, *, ended: str = "", names: bool = True) -> Trace:
    """Turn what a recorder left into a finished trace: in one order, with names and end marker.

    The program must have ended, or been left by the recorder.

    :param raw: its file, which is removed.
    :param target: where the trace goes; may be the same.
    :param ended: how the program ended: ``exit 0``, ``SIGKILL``.
    :param names: look up the names of call sites now, while the program's files are there.
    :raises NotFound: nothing was recorded.
    :raises Malformed: the file is damaged.
    """
    if not raw.exists():
        raise NotFound(f"{raw}: nothing was recorded; the recorder was not loaded, or could not "
                       "make this file")
    ffi, lib = load.extension("unikit.alloc.lab._lab")
    moment = ffi.new("uint64_t[2]")
    lib.kit_trace_moment(moment, moment + 1)
    with raw.open("r+b") as file:
        file.seek(_MOMENT)
        file.write(ffi.buffer(moment))
    trace = Trace.load(raw)
    trace.facts |= {"cpu": _cpu(), "thp": _thp(), "ended": ended}
    trace.save(target, names=names)
    if raw != target:
        raw.unlink()
    trace.complete = True
    return trace


def _number(path: Path) -> int:
    parts = path.name.split(".")
    return int(parts[-1]) if parts[-2:-1] and parts[-2].isdigit() else 0


def _cpu() -> str:
    try:
        found = _CPU.search(Path("/proc/cpuinfo").read_text())
    except OSError:
        return ""
    return found[1].strip() if found else ""


def _thp() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return ""
    return text.partition("[")[2].partition("]")[0]
