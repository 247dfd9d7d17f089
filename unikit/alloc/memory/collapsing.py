"""Huge pages for memory that a running process already uses."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Callable, Iterator

from unikit.alloc.memory import HUGE_PAGE, kernel
from unikit.alloc.memory.mappings import Backing, Mapping, report
from unikit.errors import InvalidArgument, NoPermission, NotFound, NotSupported

_PRESENT = bytes(byte >= 0x80 for byte in range(256))  # of a pagemap entry's highest byte

Advise = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Collapse:
    """What :func:`collapse` did.

    :ivar pid: the process.
    :ivar method: ``"madvise"`` (this process), ``"process_madvise"``, or ``"ptrace"``: the process
        was stopped for the calls, which it made itself.
    :ivar before: its pages before, from ``smaps``.
    :ivar after: its pages afterwards.
    :ivar tried: bytes that were worth a huge page and had none.
    :ivar refused: the kernel's reason to bytes it did not collapse, for example ``ENOMEM``: no free
        huge page; ``EINVAL``: memory of a kind that has none.
    """

    pid: int
    method: str
    before: Backing
    after: Backing
    tried: int
    refused: dict[str, int]

    @property
    def gained(self) -> int:
        """Bytes that are on huge pages now and were not."""
        return self.after.transparent - self.before.transparent


def collapse(pid: int | None = None, *, fill: float = 0.5) -> Collapse:
    """Give a running process huge pages where the kernel can (``MADV_COLLAPSE``, Linux 6.1).

    The kernel copies the small pages of each aligned 2 MiB into a huge one, while the process runs
    on. What THP is set to does not matter; the settings of the process do. Needs CAP_SYS_NICE for
    other processes; without it the process is stopped and makes the calls itself, by python-ptrace.

    :param pid: the process; ``None``: this one.
    :param fill: collapse only where so large a part of the 2 MiB is there already; the rest is
        new memory for the process.
    :raises NotFound: there is no such process.
    :raises NoPermission: it belongs to somebody else, or another debugger has it.
    :raises NotSupported: the kernel is older than 6.1.
    :raises InvalidArgument: ``fill`` is no part of 1.
    """
    if not 0 < fill <= 1:
        raise InvalidArgument(f"collapsing with fill={fill}: give more than 0 and at most 1")
    number = os.getpid() if pid is None else pid
    mappings = report(number)
    ranges = list(_worthwhile(number, mappings, fill))
    refused: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        method, advise = _adviser(number, stack)
        for start, size in ranges:
            try:
                advise(start, size)
            except PermissionError:
                if method == "ptrace":
                    raise
                method, advise = "ptrace", _by_ptrace(number, stack)
                _tally(advise, start, size, refused)
            except OSError:
                _tally(advise, start, size, refused)
    return Collapse(number, method, Backing.of(mappings), Backing.of(report(number)),
                    sum(size for _, size in ranges), refused)


def _tally(advise: Advise, start: int, size: int, refused: dict[str, int]) -> None:
    """Go through a range by single huge pages, so that one that cannot be stops no other."""
    for address in range(start, start + size, HUGE_PAGE):
        try:
            advise(address, HUGE_PAGE)
        except OSError as error:
            why = errno.errorcode.get(error.errno or 0, str(error))
            refused[why] = refused.get(why, 0) + HUGE_PAGE


def _worthwhile(pid: int, mappings: list[Mapping], fill: float) -> Iterator[tuple[int, int]]:
    """Yield stretches of whole huge pages that are filled well enough and are not huge yet."""
    try:
        pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise NoPermission(f"process {pid} belongs to somebody else; ask as its owner or as "
                           "root") from error
    except OSError as error:
        raise NotFound(f"there is no process {pid}") from error
    try:
        for each in mappings:
            if each.page == 4096 and each.kind in ("anonymous", "shared") \
                    and each.resident > each.transparent and "w" in each.permissions:
                yield from _filled(pagemap, each, fill)
    finally:
        os.close(pagemap)


def _filled(pagemap: int, mapping: Mapping, fill: float) -> Iterator[tuple[int, int]]:
    first = -(-mapping.start // HUGE_PAGE) * HUGE_PAGE
    last = (mapping.start + mapping.size) // HUGE_PAGE * HUGE_PAGE
    pages, start = HUGE_PAGE // 4096, 0
    for address in range(first, last, HUGE_PAGE):
        entries = os.pread(pagemap, pages * 8, address // 4096 * 8)
        good = entries[7::8].translate(_PRESENT).count(1) >= fill * pages
        if good and not start:
            start = address
        elif not good and start:
            yield start, address - start
            start = 0
    if start:
        yield start, last - start


def _adviser(pid: int, stack: contextlib.ExitStack) -> tuple[str, Advise]:
    """Return how to advise on the memory of a process, and the function that does it."""
    if pid == os.getpid():
        return "madvise", lambda start, size: _supported(
            lambda: kernel.madvise(start, size, kernel.MADV_COLLAPSE))
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise NotFound(f"there is no process {pid}") from error
    stack.callback(os.close, pidfd)

    def advise(start: int, size: int) -> None:
        while size:
            done = kernel.process_madvise(pidfd, start, size, kernel.MADV_COLLAPSE)
            start, size = start + done, size - done

    return "process_madvise", lambda start, size: _supported(lambda: advise(start, size))


def _supported(call: Callable[[], None]) -> None:
    try:
        call()
    except OSError as error:
        if error.errno == errno.ENOSYS or (error.errno == errno.EINVAL and _release() < (6, 1)):
            raise NotSupported("giving huge pages to memory in use takes Linux 6.1 "
                               f"(MADV_COLLAPSE); this is {os.uname().release}") from error
        raise


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def _by_ptrace(pid: int, stack: contextlib.ExitStack) -> Advise:
    """Stop the process; the function makes it call ``madvise`` itself."""
    from unikit.alloc.memory.injection import Stopped
    process = stack.enter_context(Stopped(pid))
    return lambda start, size: _supported(
        lambda: process.madvise(start, size, kernel.MADV_COLLAPSE))
