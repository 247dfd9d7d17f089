"""A running image as a child process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unikit.errors import ImageError
from unikit.platform.api import FAULTED, PAGE, READ_FROM_OUTSIDE, BootImage
from unikit.platform.process.machine import ProcessMachine

_STACK_MINIMUM = 16 << 10  # as in guest/memory.c
_MEMORY_MINIMUM = 48 << 10


class LinuxMachine(ProcessMachine):
    """An image that runs as a process of this host. Thread safe."""

    platform = "linux"

    def __init__(self, image: BootImage, *, memory: int, netif: Any = None,
                 options: Mapping[str, str], name: str = "",
                 sink: Callable[[bytes], object] | None = None, cpus: int = 1) -> None:
        _check(image, memory)
        super().__init__(image, netif=netif, name=name, sink=sink)
        self._kept: int | None = None
        try:
            self._boot(memory, options, cpus)
        except BaseException:
            self._undo.close()
            raise

    def _boot(self, memory: int, options: Mapping[str, str], cpus: int) -> None:
        words = [str(self.image.path), f"memory={memory}", f"parent={os.getpid()}"]
        if self.image.plan.get("cpus", 1) > 1:
            words.append(f"cpus={cpus}")
        self._kept = self._keep(memory)
        if self._kept is not None:
            words.append(f"memory.fd={self._kept}")
        network = self._connect()
        if network is not None:
            mac = ":".join(f"{byte:02x}" for byte in self.netif.mac)
            words += [f"net.fd={network}", f"net.mac={mac}", f"net.mtu={self.netif.mtu}"]
        with _executable(self.image.path) as path:
            self._start([*words, *_arguments(options)], path,
                        [fd for fd in (network, self._kept) if fd is not None])

    def _keep(self, memory: int) -> int | None:
        """Return a file for the heap, if the image leaves something there for readers outside."""
        if not set(READ_FROM_OUTSIDE) & set(self.image.plan.get("components", {})):
            return None
        fd = os.memfd_create(self.name, os.MFD_CLOEXEC)
        self._undo.callback(os.close, fd)
        os.truncate(fd, memory)
        return fd

    def memory(self) -> bytes:
        """Return a copy of the heap, and zeros behind it; see :meth:`Machine.memory`.

        :raises NotSupported: no component of the image leaves anything there to be read.
        """
        if self._kept is None:
            return super().memory()
        found = bytearray(os.fstat(self._kept).st_size)
        view = memoryview(found)
        done = 0
        while count := os.preadv(self._kept, [view[done:]], done):
            done += count
        return bytes(found)

    def _code(self) -> int:
        if self._report.refusal and self._status == 2:
            self._fail(f"{self.name} did not start: {self._report.refusal}", "killed", 2)
        if self._status == -signal.SIGSYS:
            self._fail(f"{self.name} was killed: it made a system call that images are not "
                       "allowed (seccomp)", "killed", 128 + signal.SIGSYS)
        if self._status in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL):
            self._fail(f"{self.name} faulted and could not report it", "fault", FAULTED)
        if self._status < 0:
            what = signal.strsignal(-self._status) or f"signal {-self._status}"
            self._fail(f"{self.name} was ended from outside: {what}", "killed",
                       128 - self._status)
        return self._status


def _check(image: BootImage, memory: int) -> None:
    """Refuse what cannot run before anything is started."""
    if "linux" not in image.entries:
        raise ImageError(f"{image.path} has no entry for linux; build it with --for linux")
    last = image.segments[-1]
    size = -(-(last.address + last.size) // PAGE) * PAGE - image.segments[0].address // PAGE * PAGE
    least = max(size + _STACK_MINIMUM + PAGE, _MEMORY_MINIMUM)
    if memory < least:
        raise ImageError(f"{image.path} does not fit into {memory} bytes of memory: as a Linux "
                         f"process it needs at least {least >> 10}K")


def _arguments(options: Mapping[str, str]) -> list[str]:
    words = [f"{name}={value}" for name, value in options.items() if name]
    return [*words, "--", options[""]] if "" in options else words


@contextlib.contextmanager
def _executable(path: Path) -> Iterator[str]:
    """Yield a path that can be executed: where mode or mount forbid it, of a copy in memory."""
    if os.access(path, os.X_OK):
        yield str(path.absolute())  # a bare name would be looked for on the PATH
        return
    fd = os.memfd_create(path.name)
    try:
        data = memoryview(path.read_bytes())
        while data:
            data = data[os.write(fd, data):]
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)
