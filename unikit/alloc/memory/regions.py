"""The class of regions: mapped memory that says what it is, grows, and gives memory back."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import warnings
from collections.abc import Callable
from typing import Any, Literal

from unikit.alloc.memory import kernel
from unikit.alloc.memory.mappings import Backing, report
from unikit.alloc.memory.pages import PAGE, THP, WORDS, Pages, bind, no_memory, round_up
from unikit.component import parse_size
from unikit.errors import InvalidArgument, NotSupported, OutOfMemory
from unikit.ffi.buffer import Buffer


class Region(Buffer):
    """Mapped memory: a writable buffer and a context manager; made by :func:`region`.

    ``close()`` raises :class:`BufferError` while a heap or a view uses it. After a fork a private
    region is a copy and a shared one is the same memory, at the same address.

    :ivar pages: what it is made of: ``"2M"`` or ``"1G"`` (reserved huge pages), ``"thp"`` (the
        kernel may use huge pages where it has some) or ``"4K"``; :meth:`backing` measures.
    :ivar kind: ``"anonymous"``, ``"shared"`` or ``"file"``.
    :ivar fd: what other processes attach to; -1 for anonymous memory.
    :ivar prefaulted: how its pages were touched before use: ``""`` (not at all), ``"populate"``
        (the kernel did) or ``"touch"`` (an older kernel: one write or read per page).
    """

    pages: Pages
    kind: Literal["anonymous", "shared", "file"]

    def __init__(self, pages: Pages, fd: int, shared: bool, base: int, span: int) -> None:
        self.pages = pages
        self.fd = fd
        self.kind = "anonymous" if fd < 0 else "shared" if shared else "file"
        self.prefaulted = ""
        self._base = base - kernel.PAGE  # of the whole reservation, edges included
        self._span = span + 2 * kernel.PAGE
        self._start = base
        self._mapped = 0
        self._node: int | None = None
        self._grower: Callable[[], int] | None = None

    @property
    def address(self) -> int:
        """Where it lies in this process; 0 after it was closed."""
        return self._address

    @property
    def page_size(self) -> int:
        """Bytes of the pages that :meth:`give_back` counts in."""
        return PAGE[self.pages]

    @property
    def reserved(self) -> int:
        """Bytes it can grow to."""
        return self._span - 2 * kernel.PAGE

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._address == 0

    def backing(self) -> Backing:
        """Measure what the kernel really gave, from its own books (``smaps``, ``numa_maps``).

        With what a heap over the region grew into.

        :raises ValueError: it was closed.
        """
        self._open()
        end = self._start + (self._grower() if self._grower else self._mapped)
        return Backing.of(each for each in report()
                          if self._start <= each.start < end and "w" in each.permissions)

    def prefault(self) -> None:
        """Have all pages there now, so that no later access waits or fails for one.

        :raises OutOfMemory: there are not enough of them.
        """
        self._prefault(self._open(), self._mapped)

    def grow(self, size: int | str) -> memoryview:
        """Make it larger at its end, on pages of the same kind; views and heaps stay.

        :param size: bytes to add, rounded up to whole pages; 0 maps what another process added to
            shared memory.
        :returns: the new part, for example for :meth:`unikit.alloc.Heap.add_region`.
        :raises OutOfMemory: more than was reserved, or there is no memory; it is as before.
        :raises InvalidArgument: a heap over it grows it.
        """
        self._open()
        if self._grower is not None:
            raise InvalidArgument("growing a region that a heap grows by itself as it needs")
        page, before = self.page_size, self._mapped
        if self.fd >= 0:  # another process may have added something already
            before = max(before, os.fstat(self.fd).st_size // page * page)
        after = round_up(before + parse_size(size), page)
        if after > self.reserved:
            raise OutOfMemory(f"growing to {after} bytes: {self.reserved} are reserved; give "
                              "reserve= when mapping it")
        old = self._mapped
        self._map(after)
        if self.prefaulted:
            self._prefault(self._start + old, after - old)
        return memoryview(self)[old:]

    def give_back(self, start: int = 0, size: int | None = None) -> int:
        """Give the memory of whole pages in a stretch back; they read as zero when used again.

        The address space stays. Of shared memory and files every process loses the contents.

        :param start: offset in bytes.
        :param size: bytes; ``None``: up to the end.
        :returns: bytes given back: what whole pages the stretch holds.
        :raises InvalidArgument: the stretch leaves the region.
        :raises NotSupported: the kernel cannot with this kind of memory.
        """
        base, page = self._open(), self.page_size
        end = len(self) if size is None else start + size
        if not 0 <= start <= end <= len(self):
            raise InvalidArgument(f"giving back {start}...{end} of a region of {len(self)} bytes")
        low = round_up(start, page)
        high = self._mapped if end == len(self) else end // page * page
        if high <= low:
            return 0
        advice = kernel.MADV_DONTNEED if self.fd < 0 else kernel.MADV_REMOVE
        try:
            kernel.madvise(base + low, high - low, advice)
        except OSError as error:
            raise NotSupported(f"giving back {WORDS[self.pages]} of {self.kind} memory: "
                               f"{error.strerror}") from error
        return high - low

    def flush(self) -> None:
        """Write a file's region to its storage and wait for it; other kinds have none."""
        if self.kind == "file":
            kernel.msync(self._open(), self._mapped)

    def send(self, peer: socket.socket) -> None:
        """Pass shared memory through a Unix socket to a process that calls :func:`receive`.

        :raises NotSupported: it is anonymous.
        """
        socket.send_fds(peer, [b"unikit"], [self._common()])

    def close(self) -> None:
        """Unmap it. Closing twice does nothing.

        :raises BufferError: a heap or a view uses it.
        """
        if self._base:
            self._bind(0, 0)
            base, self._base = self._base, 0
            kernel.munmap(base, self._span)
            if self.fd >= 0:
                os.close(self.fd)

    def __enter__(self) -> Region:
        self._open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_base", 0):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            with contextlib.suppress(BufferError):  # at the end of the process
                self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<Region: closed>"
        kind = "" if self.kind == "anonymous" else f"{self.kind}, "
        return f"<Region: {len(self)} bytes, {kind}{WORDS[self.pages]}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Let ``multiprocessing`` pass shared memory to the processes it starts."""
        from multiprocessing.reduction import DupFd

        from unikit.alloc.memory.create import _rebuild
        return _rebuild, (DupFd(self._common()),)

    # ---- inside ----------------------------------------------------------------------------

    def _open(self) -> int:
        if not self._address:
            raise ValueError("the region is closed")
        return self._address

    def _shrink(self) -> None:
        """Take back what a heap grew into; the heap is closed."""
        if self._grower is not None and self._base:
            start = self._start + self._mapped
            if grown := self._start + self._grower() - start:
                kernel.mmap(start, grown, kernel.PROT_NONE, kernel.MAP_FIXED | kernel.MAP_PRIVATE
                            | kernel.MAP_ANONYMOUS | kernel.MAP_NORESERVE)
        self._grower = None

    def _growth(self) -> tuple[int, bool]:
        """Return what a heap must know to grow it: flags of ``mmap``, whether to advise THP."""
        flags = kernel.MAP_PRIVATE | kernel.MAP_ANONYMOUS
        if self.page_size > kernel.PAGE:
            flags |= kernel.MAP_HUGETLB | \
                (self.page_size.bit_length() - 1) << kernel.MAP_HUGE_SHIFT
        return flags, self.pages == "thp"

    def _common(self) -> int:
        self._open()
        if self.kind != "shared":
            raise NotSupported(f"passing {self.kind} memory on: only a region made with "
                               "shared=True has a descriptor that others can attach to")
        return self.fd

    def _map(self, size: int) -> None:
        """Map what is missing of the first ``size`` bytes, whole pages, and export them."""
        start, more = self._start + self._mapped, size - self._mapped
        flags = kernel.MAP_FIXED | (kernel.MAP_SHARED if self.fd >= 0 else self._growth()[0])
        if more:
            try:
                if self.fd >= 0 and os.fstat(self.fd).st_size < size:
                    os.ftruncate(self.fd, size)
                kernel.mmap(start, more, kernel.PROT_READ | kernel.PROT_WRITE, flags, self.fd,
                            self._mapped)
            except OSError as error:
                kernel.mmap(start, more, kernel.PROT_NONE, kernel.MAP_FIXED | kernel.MAP_PRIVATE
                            | kernel.MAP_ANONYMOUS | kernel.MAP_NORESERVE)
                no_memory(size, self.pages, error)
            self._advise(start, more)
        self._mapped = size
        if self._address:
            self._extend(size)

    def _advise(self, start: int, size: int) -> None:
        if self.pages == "thp":
            kernel.madvise(start, size, kernel.MADV_HUGEPAGE)
        if self.kind == "anonymous":
            kernel.name(start, size, "unikit")
        if self._node is not None:
            bind(start, size, self._node)

    def _prefault(self, start: int, size: int) -> None:
        try:
            kernel.madvise(start, size, kernel.MADV_POPULATE_WRITE)
            self.prefaulted = "populate"
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel before 5.14
                no_memory(size, self.pages, error)
            self._touch(start - self._start, size)

    def _touch(self, offset: int, size: int) -> None:
        """Touch every page without the kernel's help; nobody may write private memory meanwhile."""
        if self.fd >= 0:
            os.posix_fallocate(self.fd, offset, size)
            sum(memoryview(self)[offset:offset + size:self.page_size])
        else:
            view = memoryview(self)[offset:offset + size:self.page_size]
            view[:] = array.array("B", view)
        self.prefaulted = "touch"

    def _gather(self) -> None:
        """Have transparent huge pages now, all of them, or raise."""
        with contextlib.suppress(OSError):  # the measurement decides
            kernel.madvise(self._start, self._mapped, kernel.MADV_COLLAPSE)
        got = self.backing().transparent
        if got < self._mapped:
            raise OutOfMemory(
                f"mapping {self._mapped} bytes on transparent huge pages: the kernel gave {got}; "
                "free memory and run: sysctl vm.compact_memory=1, or look at "
                f"{THP / ('enabled' if self.fd < 0 else 'shmem_enabled')}")
