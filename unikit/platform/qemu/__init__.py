"""QEMU, with or without a hypervisor behind it: the image boots by PVH on a small virtual board."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from unikit.component import component, option
from unikit.platform.api import BootImage, Machine, Platform


@component
class Qemu(Platform):
    """A virtual machine of QEMU."""

    id = "platform.qemu"
    entry = "pvh"
    features = frozenset({"sealed", "unprivileged", "protect"})
    reference = "QEMU, docs/system/i386/microvm.rst; Xen, docs/misc/pvh.pandoc"

    accelerator: str = option("auto", "who runs the processor: the host's /dev/kvm, QEMU itself, "
                              "or the first of these that works", kind="choice",
                              choices=("auto", "kvm", "tcg"), when="boot")

    @classmethod
    def probe(cls) -> str | None:
        """Say whether QEMU is installed."""
        if shutil.which("qemu-system-x86_64") is None:
            return "QEMU is not installed: apt-get install qemu-system-x86"
        return None

    def boot(self, image: BootImage, *, memory: int, netif: Any = None,
             options: Mapping[str, str] | None = None, name: str = "",
             sink: Callable[[bytes], object] | None = None, cpus: int = 1) -> Machine:
        """Start the image; see :meth:`unikit.platform.api.Platform.boot`."""
        from unikit.platform.qemu.machine import QemuMachine
        return QemuMachine(image, memory=memory, accelerator=self.accelerator, netif=netif,
                           options=options or {}, name=name, sink=sink)
