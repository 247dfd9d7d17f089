"""Facts about the machine that belong to every figure measured on it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from pathlib import Path

_VARIABLES = re.compile(r"^(MALLOC_|_?RJEM_MALLOC|MIMALLOC_|TCMALLOC_|GLIBC_TUNABLES|SCUDO_|"
                        r"PYTHONMALLOC|LD_PRELOAD$|TBB_MALLOC|SNMALLOC_|RPMALLOC_)")


def facts() -> dict[str, str]:
    """Return processor, kernel, libc, page and frequency settings, load, as texts.

    Environment variables that change how an allocator behaves are among them.
    """
    found = {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
             "processor": _processor(), "CPUs": str(len(os.sched_getaffinity(0))),
             "memory": f"{_memory() / 2**30:.1f} GiB",
             "kernel": f"{platform.system()} {platform.release()}",
             "libc": " ".join(platform.libc_ver()).strip() or "unknown",
             "transparent huge pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
             "overcommit": _text("/proc/sys/vm/overcommit_memory"),
             "frequency governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
             "load": " ".join(_text("/proc/loadavg").split()[:3])}
    if "hypervisor" in _text("/proc/cpuinfo"):
        found["virtual machine"] = "yes"
    if variables := [f"{key}={value}" for key, value in sorted(os.environ.items())
                     if _VARIABLES.match(key)]:
        found["environment"] = " ".join(variables)
    return {key: value for key, value in found.items() if value}


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace").strip()
    return ""


def _chosen(path: str) -> str:
    """Return the word in brackets of a file of the kernel that lists choices."""
    match = re.search(r"\[(\w+)\]", _text(path))
    return match[1] if match else ""


def _processor() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return match[1] if match else platform.machine()
