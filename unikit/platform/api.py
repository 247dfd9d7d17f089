"""The hypervisor backend API: platforms, machines and their consoles.

A *platform* is a place where an image runs; :meth:`Platform.boot` gives a *machine*. A third party
adds a hypervisor by a :class:`Platform` of its own under the entry-point group
``unikit.components``; :func:`unikit.testing.check_platform` is the suite it must pass.
"""

from __future__ import annotations

import abc
import dataclasses
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from unikit.component import Component
from unikit.errors import NotSupported, TimedOut

PAGE = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """One loadable piece of an image.

    :ivar address: where it goes (virtual = physical), bytes.
    :ivar data: its bytes as in the file.
    :ivar size: bytes in memory, >= ``len(data)``; the rest is zero.
    :ivar writable: may be written; never together with ``executable``.
    """

    address: int
    data: bytes
    size: int
    writable: bool
    executable: bool


@dataclasses.dataclass(frozen=True, slots=True)
class BootImage:
    """What a platform needs to know of an image; made by :func:`unikit.image.elf.load`.

    :ivar path: the ELF file.
    :ivar segments: in order of addresses, not overlapping.
    :ivar entries: platform entry name (``"kvm"``, ``"linux"``) to address.
    :ivar plan: the plan that rides in the ELF note.
    :ivar symbols: (address, size, name) sorted by address; from the image or its ``.debug`` file,
        empty if there is neither.
    """

    path: Path
    segments: tuple[Segment, ...]
    entries: Mapping[str, int]
    plan: Mapping[str, Any]
    symbols: Sequence[tuple[int, int, str]] = ()

    def symbolise(self, address: int) -> str:
        """Return ``name+0x12`` for an address in the image's code, or the bare number."""
        best = None
        for start, size, name in self.symbols:
            if start <= address < start + max(size, 1):
                best = f"{name}+{address - start:#x}"
        return best or f"{address:#x}"


class Console:
    """The outer end of a machine's console: collects output, finds text in it, sends input.

    Thread safe. Sinks get every chunk as it arrives (a terminal, a log file).
    """

    def __init__(self, send: Callable[[bytes], int] | None = None, limit: int = 1 << 20) -> None:
        self._send = send
        self._limit = limit
        self._data = bytearray()
        self._dropped = 0
        self._matched = 0
        self._closed = False
        self._changed = threading.Condition()
        self._sinks: list[Callable[[bytes], object]] = []

    def feed(self, data: bytes) -> None:
        """Take output of the guest; called by the platform.

        A sink that raises gets nothing more: the guest and the other sinks go on.
        """
        with self._changed:
            self._data += data
            excess = len(self._data) - self._limit
            if excess > 0:
                del self._data[:excess]
                self._dropped += excess
                self._matched = max(0, self._matched - excess)
            sinks = tuple(self._sinks)
            self._changed.notify_all()
        for sink in sinks:
            try:
                sink(data)
            except Exception:  # a closed terminal, a full disk: not the guest's fault
                _logger().warning("a console sink failed and is left out", exc_info=True)
                with self._changed:
                    self._sinks.remove(sink)

    def end(self) -> None:
        """Say that no more output will come; called by the platform."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def attach(self, sink: Callable[[bytes], object]) -> None:
        """Give all output so far and from now on to ``sink``."""
        with self._changed:
            seen = bytes(self._data)
            self._sinks.append(sink)
        if seen:
            sink(seen)

    @property
    def text(self) -> str:
        """Everything kept so far (the last ``limit`` bytes), undecodable bytes replaced."""
        with self._changed:
            return self._data.decode(errors="replace")

    def lines(self, count: int | None = None) -> list[str]:
        """Return the last ``count`` lines, all without one."""
        lines = self.text.splitlines()
        return lines if count is None else lines[-count:]

    def expect(self, pattern: str | re.Pattern[str], timeout: float = 10.0) -> re.Match[str]:
        """Wait for text and return the match; the next call goes on behind it.

        :param pattern: plain text, or a compiled regular expression.
        :param timeout: seconds.
        :raises TimedOut: it did not come in time, or the machine ended without it; the message
            shows the last lines.
        """
        compiled = pattern if isinstance(pattern, re.Pattern) else re.compile(re.escape(pattern))
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                text = self._data[self._matched:].decode(errors="surrogateescape")
                match = compiled.search(text)
                if match:
                    self._matched += len(text[:match.end()].encode(errors="surrogateescape"))
                    return match
                left = end - time.monotonic()
                if self._closed or left <= 0:
                    why = "the machine ended" if self._closed else f"{timeout:g} s passed"
                    tail = "\n".join(self._data.decode(errors="replace").splitlines()[-5:])
                    raise TimedOut(f"waiting for {compiled.pattern!r}: {why}; last output:\n{tail}")
                self._changed.wait(left)

    def write(self, data: bytes | str) -> int:
        """Send input to the guest; the number of bytes it took."""
        if self._send is None:
            return 0
        return self._send(data.encode() if isinstance(data, str) else bytes(data))


READ_FROM_OUTSIDE = ("alloc.trace", "console.buffer")
"""Components that leave something in memory for readers outside: where keeping the memory beyond
the end of an image costs something, it is kept for images that have one of these."""


class Machine(abc.ABC):
    """A running image. Leaving its ``with`` block stops it and frees everything.

    :ivar name: unique among the caller's machines.
    :ivar image: what was booted.
    :ivar console: its console.
    :ivar netif: the open network interface it uses, or ``None``.
    """

    name: str
    image: BootImage
    console: Console
    netif: Any = None

    @property
    @abc.abstractmethod
    def running(self) -> bool:
        """Whether the image has not ended yet."""

    @abc.abstractmethod
    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the image's exit code.

        :param timeout: seconds; ``None``: for ever.
        :raises TimedOut: it still runs.
        :raises GuestExit: it panicked, faulted or broke a device contract.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """End the image now; a no-op if it has ended. ``wait`` then returns ``STOPPED``."""

    @abc.abstractmethod
    def stats(self) -> dict[str, int | float | str]:
        """Return counters of the machine: memory, time, frames, exits; names end in their unit."""

    def memory(self) -> bytes:
        """Return a copy of what the image's heap holds.

        While the image runs, and after its end until :meth:`close`. Readers find in it what they
        know: :func:`unikit.platform.console.read_buffer` a console's last lines,
        :func:`unikit.alloc.lab.inside.in_memory` a trace. An image that runs meanwhile may be in
        the midst of writing.

        :raises NotSupported: this platform does not keep the memory of this image (see
            :attr:`READ_FROM_OUTSIDE`).
        """
        raise NotSupported(f"{self.name}: this platform does not let its memory be read")

    @abc.abstractmethod
    def close(self) -> None:
        """Stop and free everything; idempotent."""

    def adopt(self, resource: Any) -> None:
        """Close ``resource`` (anything with ``close()``) once the machine is closed."""
        self.__dict__.setdefault("_adopted", []).append(resource)

    def release(self) -> None:
        """Close what was adopted, last first; :meth:`close` of every platform ends with this."""
        adopted: list[Any] = self.__dict__.pop("_adopted", [])
        while adopted:
            adopted.pop().close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


STOPPED = 143
"""Exit code of a machine that was stopped from outside (128 + SIGTERM)."""
PANICKED = 134
"""Exit code of a command whose image panicked (128 + SIGABRT)."""
FAULTED = 139
"""Exit code of a command whose image faulted (128 + SIGSEGV)."""
BROKE_DEVICE = 135
"""Exit code of a command whose image broke a device contract (128 + SIGBUS)."""


class Platform(Component):
    """Base of platform records. ``entry`` names the image entry that it boots."""

    side = "host"
    entry: ClassVar[str] = ""

    @classmethod
    def entry_sources(cls) -> tuple[Path, ...]:
        """Return the C and assembly files of its image entry: all in ``guest/`` beside the record.

        A platform that boots another's entry has none and names that entry.
        """
        guest = cls.folder() / "guest"
        return tuple(sorted(path for ending in ("*.S", "*.c") for path in guest.glob(ending)))

    @classmethod
    @abc.abstractmethod
    def probe(cls) -> str | None:
        """Say why this platform does not work here and what would help; ``None`` if it works.

        Asked once per process and cached by :func:`probe`.
        """

    @abc.abstractmethod
    def boot(self, image: BootImage, *, memory: int, netif: Any = None,
             options: Mapping[str, str] | None = None, name: str = "",
             sink: Callable[[bytes], object] | None = None, cpus: int = 1) -> Machine:
        """Start an image.

        :param image: made by :func:`unikit.image.elf.load`.
        :param memory: bytes the guest gets in all.
        :param netif: an open network interface (``unikit.net``), which stays the caller's; or
            ``None``.
        :param options: boot options by name (``"net.mini.address"``), ``""`` for the argument
            string.
        :param name: for messages; made up if empty.
        :param sink: gets console output from the first byte on.
        :param cpus: processors; given only for images that were composed for several.
        :raises PlatformError: the host refused; the message has the remedy.
        :raises ImageError: the image lacks this platform's entry or does not fit into memory.
        """


_probed: dict[str, str | None] = {}


def probe(platform: type[Platform]) -> str | None:
    """Return the platform's :meth:`Platform.probe`, asked once per process."""
    if platform.id not in _probed:
        _probed[platform.id] = platform.probe()
    return _probed[platform.id]


def _logger() -> Any:
    import logging  # only when something went wrong
    return logging.getLogger(__name__)
