"""A sealed virtual machine on /dev/kvm, with a monitor of our own.

The image runs at CPL 3 in long mode from its first instruction, on page tables that it cannot see:
no page is writable and executable, and page 0, the ends of the stack and the surroundings of the
device queues are not mapped. ``abi.h`` says what guest and monitor agree on, ``guest/`` is compiled
into images, ``vmm/`` into this package.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from unikit.component import component, option
from unikit.platform.api import BootImage, Machine, Platform

_REMEDIES = {
    errno.ENOENT: "there is no /dev/kvm: load the module (modprobe kvm-intel or kvm-amd), turn on "
                  "virtualization in the firmware, or allow nested virtualization",
    errno.EACCES: "no permission on /dev/kvm: join its group (usermod -aG kvm USER, then log in "
                  "again) or run as root",
    errno.EPERM: "no permission on /dev/kvm: allow the device in the container or sandbox",
    errno.ENODEV: "/dev/kvm has no hypervisor behind it: load kvm-intel or kvm-amd",
    errno.EBUSY: "the processor's virtualization is in use by another hypervisor: stop it",
}


@component
class Kvm(Platform):
    """A sealed virtual machine on the host's /dev/kvm."""

    id = "platform.kvm"
    entry = "kvm"
    features = frozenset({"sealed", "network", "release", "protect", "cpus"})
    reference = "Linux, Documentation/virt/kvm/api.rst; virtio 1.2, section 2.7"

    huge_pages: str = option("auto", "back the heap with huge pages; auto: from 128 MiB on",
                             kind="choice", choices=("auto", "off", "on"), when="boot")

    @classmethod
    def probe(cls) -> str | None:
        """Open /dev/kvm and run a tiny guest; say what is wrong and what would help."""
        from unikit.ffi import load
        try:
            ffi, lib = load.extension("unikit.platform.kvm._vmm")
        except ImportError as error:
            return str(error)
        refused = ffi.new("struct kit_kvm_refused *")
        return None if lib.kit_kvm_probe(refused) == 0 else explain(ffi, refused)

    def boot(self, image: BootImage, *, memory: int, netif: Any = None,
             options: Mapping[str, str] | None = None, name: str = "",
             sink: Callable[[bytes], object] | None = None, cpus: int = 1) -> Machine:
        """Start the image; see :meth:`unikit.platform.api.Platform.boot`.

        The memory is all there is of the guest: image, page tables, stack, queues and heap.
        """
        from unikit.platform.kvm.machine import KvmMachine
        huge = self.huge_pages == "on" or (self.huge_pages == "auto" and memory >= 128 << 20)
        return KvmMachine(image, memory=memory, netif=netif, options=options or {}, name=name,
                          sink=sink, huge_pages=huge, cpus=cpus)


def explain(ffi: Any, refused: Any) -> str:
    """Return why the monitor refused, with the remedy."""
    import os
    text = ffi.string(refused.text).decode(errors="replace")
    number = refused.number
    if number in _REMEDIES and "/dev/kvm" in text:
        return _REMEDIES[number]
    return f"{text}: {os.strerror(number)}" if number else text


__all__ = ["Kvm"]
