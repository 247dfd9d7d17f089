"""A running image in a process of QEMU."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable, Mapping
from typing import Any

from unikit.errors import ImageError, InvalidArgument, PlatformError
from unikit.platform.api import PAGE, BootImage
from unikit.platform.process.machine import ProcessMachine
from unikit.platform.qemu.accelerator import PROGRAM, best, board

_BASE = 1 << 20  # memory counts from where images are linked; below it lies nothing of theirs
_LEAST = 256 << 10
_TABLES = 64 * PAGE  # guest/boot.c: tables, ring 0 stack, and what lies around the image's stack


class QemuMachine(ProcessMachine):
    """An image under QEMU: its serial line is the console, its debug console the report.

    :ivar accelerator: who runs the processor: ``kvm`` or ``tcg``.
    """

    platform = "qemu"

    def __init__(self, image: BootImage, *, memory: int, accelerator: str, netif: Any = None,
                 options: Mapping[str, str], name: str = "",
                 sink: Callable[[bytes], object] | None = None) -> None:
        _check(image, memory)
        _found(PROGRAM)
        self.accelerator = best()[0] if accelerator == "auto" else accelerator
        words = [*_launcher(), PROGRAM, *board(self.accelerator),
                 "-m", f"{(_BASE + memory + 1023) >> 10}k", "-kernel", str(image.path.absolute()),
                 "-append", command_line(options),
                 "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
                 "-chardev", "file,id=report,path=/dev/fd/2,append=on",
                 "-device", "isa-debugcon,iobase=0xe9,chardev=report",
                 "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
                 "-object", "rng-builtin,id=random", "-device", "virtio-rng-device,rng=random"]
        super().__init__(image, netif=netif, name=name, sink=sink)
        try:
            network = self._connect()
            if network is not None:
                words += self._card(network)
            self._start(words, _found(words[0]), [] if network is None else [network])
        except BaseException:
            self._undo.close()
            raise

    def stats(self) -> dict[str, int | float | str]:
        """Return memory and time of QEMU, its accelerator and, over a bridge, frames."""
        return {**super().stats(), "accelerator": self.accelerator}

    def _card(self, network: int) -> list[str]:
        """Return the words for a network card on a descriptor: a TAP, or a datagram socket."""
        mac = ":".join(f"{byte:02x}" for byte in self.netif.mac)
        kind = (f"dgram,id=net,local.type=fd,local.str={network}"
                if stat.S_ISSOCK(os.fstat(network).st_mode) else
                f"tap,id=net,fd={network},vhost=off")
        return ["-netdev", kind, "-device", f"virtio-net-device,netdev=net,mac={mac},"
                f"host_mtu={self.netif.mtu}"]

    def _code(self) -> int:
        if self._report.code is not None:
            return self._report.code
        if self._status < 0:
            what = signal.strsignal(-self._status) or f"signal {-self._status}"
            self._fail(f"{self.name} was ended from outside: {what}", "killed",
                       128 - self._status)
        said = self._report.refusal or self._report.other or "it ended without a word"
        self._fail(f"{self.name} did not run: {said}", "killed", 2)
        return None


def command_line(options: Mapping[str, str]) -> str:
    """Return boot options as the image's command line.

    :raises InvalidArgument: one cannot be said there.
    """
    words = []
    for name, value in options.items():
        if any(letter.isspace() for letter in name + value) and name:
            raise InvalidArgument(f"{name}={value!r}: a boot option with spaces cannot be given to "
                                  "an image under QEMU")
        if name:
            words.append(f"{name}={value}")
    if "" in options:
        words += ["--", options[""]]
    return " ".join(words)


def _launcher() -> list[str]:
    """Return words that make the kernel end QEMU with the thread that starts it."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise PlatformError(f"{program} is not installed: apt-get install qemu-system-x86")
    return path


def _check(image: BootImage, memory: int) -> None:
    """Refuse what cannot run before anything is started."""
    if "pvh" not in image.entries:
        raise ImageError(f"{image.path} has no entry for PVH, by which QEMU boots; build it with "
                         "--for pvh")
    last = image.segments[-1]
    least = max(last.address + last.size - _BASE + _TABLES, _LEAST)
    if memory < least:
        raise ImageError(f"{image.path} does not fit into {memory} bytes of memory: under QEMU it "
                         f"needs at least {-(-least >> 10)}K")
