"""An image as a Linux process: the same file, the same components, no privileges, no hypervisor.

The process is confined by a system call filter that it installs before the application starts
(``guest/seccomp.c``). The file also runs by itself: ``./hello.elf memory=32M -- arguments``;
``guest/linux.h`` has the command line.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unikit.component import component
from unikit.platform.api import BootImage, Machine, Platform

_LINKED_AT = 0x100000


@component
class Linux(Platform):
    """A process of this host, sealed by seccomp; the network is a TAP or a packet socket."""

    id = "platform.linux"
    entry = "linux"
    features = frozenset({"unprivileged", "network", "release", "protect", "cpus"})

    @classmethod
    def probe(cls) -> str | None:
        """Say why images do not run as processes here, if so."""
        if os.uname().sysname != "Linux" or platform.machine() != "x86_64":
            return "it needs Linux on x86-64"
        lowest = Path("/proc/sys/vm/mmap_min_addr")
        if lowest.exists() and int(lowest.read_text()) > _LINKED_AT:
            return (f"processes may not use memory at {_LINKED_AT:#x}, where images are linked; "
                    "allow it with: sysctl vm.mmap_min_addr=65536")
        return None

    def boot(self, image: BootImage, *, memory: int, netif: Any = None,
             options: Mapping[str, str] | None = None, name: str = "",
             sink: Callable[[bytes], object] | None = None, cpus: int = 1) -> Machine:
        """Start the image as a process; see :meth:`unikit.platform.api.Platform.boot`."""
        from unikit.platform.linux.machine import LinuxMachine
        return LinuxMachine(image, memory=memory, netif=netif, options=options or {}, name=name,
                            sink=sink, cpus=cpus)


__all__ = ["Linux"]
