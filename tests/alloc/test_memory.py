"""Regions: the pages asked for, what the kernel really gave, growth, give-back, sharing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unikit.alloc import Firstfit, Tlsf, memory
from unikit.alloc.memory import kernel
from unikit.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    NotSupported,
    OutOfMemory,
)

pytestmark = pytest.mark.fast

MIB = 1 << 20
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
needs_thp = pytest.mark.skipif(not THP.exists() or "[never]" in THP.read_text(),
                               reason="transparent huge pages are off")
needs_collapse = pytest.mark.skipif(
    tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (6, 1),
    reason="MADV_COLLAPSE takes Linux 6.1")


@pytest.fixture
def huge_pages() -> Iterator[Callable[[str, int], None]]:
    """Give a function that reserves that many huge pages of a kind; as before afterwards."""
    before: dict[Path, int] = {}
    with (Path(tempfile.gettempdir()) / "unikit-test-huge-pages").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # the pool is the machine's

        def reserve(pages: str, count: int) -> None:
            folder = kernel.pool({"2M": 2 * MIB, "1G": 1 << 30}[pages])
            total, free = folder / "nr_hugepages", folder / "free_hugepages"
            try:
                before.setdefault(total, int(total.read_text()))
                total.write_text(str(before[total] + count))
            except OSError as error:
                pytest.skip(f"huge pages of {pages} cannot be reserved here: {error.strerror}")
            if int(free.read_text()) < count:
                pytest.skip(f"the kernel has no {count} free huge pages of {pages}")

        try:
            yield reserve
        finally:
            for path, count in before.items():
                path.write_text(str(count))


def mapped(address: int) -> bool:
    """Whether anything is mapped there in this process."""
    return any(each.start <= address < each.start + each.size for each in memory.report())


# ---- pages ----------------------------------------------------------------------------------

@needs_thp
def test_transparent_huge_pages_are_measured() -> None:
    """``backing`` tells what the kernel gave, not what was asked for."""
    with memory.region("8M", pages="thp", prefault=True) as m:
        got = m.backing()
        assert m.pages == "thp"
        assert (got.size, got.resident, got.reserved) == (8 * MIB, 8 * MIB, 0)
        assert got.small + got.transparent == 8 * MIB
        assert sum(got.nodes.values()) in (0, 8 * MIB)
        assert "transparent" in repr(m)


@needs_thp
@needs_collapse
def test_required_transparent_pages_are_there_at_once() -> None:
    """"require" is a promise that was measured."""
    try:
        region = memory.region("6M", "require", pages="thp")
    except OutOfMemory as error:
        pytest.skip(str(error))
    with region as m:
        assert m.backing().transparent == len(m) == 6 * MIB


@pytest.mark.parametrize("pages", ["2M", "1G"])
def test_reserved_pages_are_what_the_kernel_counts(
        pages: str, huge_pages: Callable[[str, int], None]) -> None:
    """Sizes are rounded up to whole pages; smaps agrees; giving back works on them too."""
    page = {"2M": 2 * MIB, "1G": 1 << 30}[pages]
    huge_pages(pages, 2 if pages == "2M" else 1)
    with memory.region(5, "require", pages=pages) as m:  # type: ignore[arg-type]
        assert (m.pages, len(m), m.page_size, m.address % page) == (pages, page, page, 0)
        assert m.backing().resident == 0
        m[0] = 1
        got = m.backing()
        assert (got.reserved, got.page, got.small, got.transparent) == (page, page, 0, 0)
        (found,) = [each for each in memory.report() if each.start == m.address]
        assert (found.kind, found.page, found.huge) == ("hugetlb", page, page)
        assert m.give_back() == page
        assert m.backing().resident == 0
        assert m[0] == 0


def test_shared_memory_on_reserved_pages(huge_pages: Callable[[str, int], None]) -> None:
    """A memfd has them as well, and another mapping of it sees the same bytes."""
    huge_pages("2M", 2)
    with memory.region("4M", "require", shared=True) as m:
        assert (m.pages, m.kind) == ("2M", "shared")
        m[3 * MIB] = 7
        with memory.attach(m.fd, anywhere=True) as other:
            assert (other.pages, other[3 * MIB], len(other)) == ("2M", 7, 4 * MIB)
        assert m.give_back(2 * MIB) == 2 * MIB
        assert m[3 * MIB] == 0


def test_growth_on_reserved_pages(huge_pages: Callable[[str, int], None]) -> None:
    """It grows as long as there are pages, and says what is missing then; the rest stays."""
    huge_pages("2M", 2)
    with memory.region("2M", "require", reserve="64M") as m:
        m[0] = 9
        with pytest.raises(OutOfMemory, match=r"mapping 67108864 .*sysctl vm.nr_hugepages="):
            m.grow("62M")
        with m.grow("2M") as part:
            part[-1] = 1
        assert (len(m), m[0], m[4 * MIB - 1]) == (4 * MIB, 9, 1)


def test_file_on_hugetlbfs(huge_pages: Callable[[str, int], None], tmp_path: Path) -> None:
    """A mounted hugetlbfs gives its own pages."""
    huge_pages("2M", 1)
    if subprocess.run(["mount", "-t", "hugetlbfs", "none", tmp_path], check=False,
                      capture_output=True).returncode:
        pytest.skip("hugetlbfs cannot be mounted here")
    try:
        with memory.region(100, "require", file=tmp_path / "f") as m:
            m[0] = 1
            assert (m.pages, m.kind, m.backing().reserved) == ("2M", "file", 2 * MIB)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_try_goes_down_step_by_step() -> None:
    """Where no page is reserved there is still memory, and the region says what it is."""
    with memory.region("4M", pages="1G") as m:
        assert m.pages in ("1G", "2M", "thp", "4K")
        m[4 * MIB - 1] = 1


def test_required_pages_of_1_gib_come_with_a_remedy() -> None:
    """The pool of that size has no sysctl; the file to write is named."""
    with pytest.raises(OutOfMemory, match=r"reserve 64 pages of 1 GiB with: echo \d+ > "
                                          r"/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_"):
        memory.region("64G", "require", pages="1G")


@pytest.mark.parametrize(("arguments", "message"), [
    ({"hugepages": "never", "pages": "2M"}, "exclude each other"),
    ({"hugepages": "require", "pages": "4K"}, "exclude each other"),
    ({"pages": "3M"}, "pages one of 4K, thp, 2M, 1G"),
    ({"shared": True, "file": "x"}, "leave shared out"),
    ({"reserve": "much"}, "'much' is not a size"),
    ({"at": 12345}, "give a multiple"),
])
def test_contradictions_are_refused(arguments: dict[str, object], message: str) -> None:
    """Nothing is guessed, and the message says what would do."""
    with pytest.raises(InvalidArgument, match=message):
        memory.region("4M", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1 << 46, 1 << 62, 1 << 70])
def test_more_than_there_is_leaves_nothing_mapped(size: int) -> None:
    """A mapping that fails half way takes its reservation and descriptor back."""
    before, files = len(memory.report()), len(list(Path("/proc/self/fd").iterdir()))
    for shared in (False, True):
        with contextlib.suppress(OutOfMemory), \
                memory.region(size, "never", shared=shared, prefault=size > 1 << 60) as m:
            assert len(m) == size  # overcommitted
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert len(memory.report()) <= before + 2


def test_a_node_that_is_there_serves_and_another_is_refused() -> None:
    """The measured nodes agree; the message names those of the machine."""
    with pytest.raises(InvalidArgument, match="NUMA node 4711: this machine has "):
        memory.region("1M", node=4711)
    if not kernel.nodes():
        pytest.skip("no NUMA in this kernel")
    node = kernel.nodes()[0]
    with memory.region("1M", node=node, prefault=True) as m:
        assert m.backing().nodes == {node: MIB}


def test_a_machine_without_numa_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with what to leave out; and nothing stays mapped."""
    monkeypatch.setattr(kernel, "_NODES", Path("/nowhere"))
    with pytest.raises(InvalidArgument, match="no NUMA; leave node out"):
        memory.region("1M", node=0)
    monkeypatch.undo()

    def refuse(*arguments: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(kernel, "bind_to_node", refuse)
    monkeypatch.setattr(kernel, "nodes", lambda: (0,))
    with pytest.raises(NotSupported, match="leave node out"):
        memory.region("1M", node=0)


def test_prefault_has_every_page_there() -> None:
    """And the fallback for kernels without MADV_POPULATE_WRITE does the same."""
    with memory.region("1M", "never") as m:
        assert m.backing().resident == 0
        m.prefault()
        assert (m.backing().resident, m.prefaulted) == (MIB, "populate")


@pytest.mark.parametrize("shared", [False, True])
def test_prefault_on_an_older_kernel(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """Every page is touched, and what was written stays."""
    real = kernel.madvise

    def old(address: int, size: int, advice: int) -> None:
        if advice == kernel.MADV_POPULATE_WRITE:
            raise OSError(errno.EINVAL, "Invalid argument")
        real(address, size, advice)

    monkeypatch.setattr(kernel, "madvise", old)
    with memory.region("1M", "never", shared=shared) as m:
        m[4096] = 77
        m.prefault()
        assert (m.backing().resident, m.prefaulted, m[4096]) == (MIB, "touch", 77)


# ---- bounds, growth and give-back -------------------------------------------------------------

def test_a_region_ends_in_pages_without_access() -> None:
    """What runs off either end dies there instead of writing into a neighbour."""
    code = ("import ctypes\nfrom unikit.alloc import memory\n"
            "m = memory.region('64K', 'never')\n"
            "ctypes.memset(m.address + {}, 1, 1)")
    for offset, dies in ((-1, True), (65536, True), (0, False), (65535, False)):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code.format(offset)],
                              check=False)
        assert (done.returncode == -11) == dies, offset


def test_growth_keeps_what_is_there_and_feeds_a_heap() -> None:
    """A heap over the region takes the new part as a further region, without a copy."""
    with memory.region("64K", "never", reserve="1M") as m, Firstfit().open(m) as heap:
        first = heap.alloc(40000)
        first[0] = 5
        with pytest.raises(OutOfMemory):
            heap.alloc(100_000)
        heap.add_region(m.grow("192K"))
        assert len(m) == 256 << 10
        second = heap.alloc(100_000)
        assert m.address < second.address < m.address + len(m)
        assert first[0] == 5
        heap.check()
        with pytest.raises(OutOfMemory, match="1048576 are reserved; give reserve="):
            m.grow("1M")


def test_pages_given_back_are_gone_and_read_as_zero() -> None:
    """Only whole pages inside the stretch go; the bytes around stay."""
    with memory.region("64K", "never") as m:
        m[:] = b"x" * 65536
        assert m.give_back(100, 3 * 4096) == 2 * 4096
        assert m.backing().resident == 65536 - 2 * 4096
        assert m[:] == b"x" * 4096 + bytes(2 * 4096) + b"x" * (65536 - 3 * 4096)
        assert m.give_back(1, 100) == 0
        with pytest.raises(InvalidArgument, match="of a region of 65536 bytes"):
            m.give_back(0, 65537)


def test_shared_pages_given_back_are_gone_for_all() -> None:
    """The memory goes, not only this process's view of it."""
    with memory.region("64K", shared=True) as m, memory.attach(m.fd, anywhere=True) as other:
        m[:] = b"x" * 65536
        assert m.give_back() == 65536
        assert os.fstat(m.fd).st_blocks == 0
        assert other[:] == bytes(65536)


def test_views_and_heaps_keep_a_region_open() -> None:
    """Like ``mmap``: no unmapping under an exported buffer."""
    with memory.region("64K") as m:
        view = memoryview(m)
        with pytest.raises(BufferError):
            m.close()
        view.release()
        with Tlsf().open(m), pytest.raises(BufferError):
            m.close()
    m.close()
    for use in (m.backing, m.prefault, lambda: m.grow(0), m.give_back, lambda: m[0]):
        with pytest.raises(ValueError, match="closed|given back"):
            use()


def test_a_region_that_is_not_closed_warns_and_is_unmapped() -> None:
    """Forgotten memory is named, and does not stay."""
    m = memory.region("64K")
    address = m.address
    with pytest.warns(ResourceWarning, match="not closed"):
        del m
    assert not mapped(address)


# ---- files and sharing ------------------------------------------------------------------------

def test_a_file_keeps_what_was_written(tmp_path: Path) -> None:
    """It is made and grown to the size, and read again by the next mapping."""
    path = tmp_path / "arena"
    with memory.region("64K", file=path) as m:
        m[:5] = b"hello"
        m.flush()
        assert (m.kind, m.pages) == ("file", "4K")
        assert any(each.kind == "file" and each.name == str(path) for each in memory.report())
    assert path.stat().st_size == 65536
    with memory.region("128K", file=path) as m:
        assert (m[:5], path.stat().st_size) == (b"hello", 131072)
        with pytest.raises(NotSupported, match="shared=True"):
            m.send(socket.socket())
    with pytest.raises(NotFound, match="No such file"):
        memory.region("64K", file=tmp_path / "no" / "arena")


def test_a_file_is_as_before_when_it_cannot_be_mapped(tmp_path: Path) -> None:
    """Made for nothing, it is gone; grown for nothing, it has its size."""
    for arguments in ({"hugepages": "require"}, {"at": 4096 * 3}, {"size": 1 << 46}):
        more = {"size": 65536, "at": 0} | arguments
        path = tmp_path / "new"
        with memory.region("4K", at=0x7000_0000_0000), pytest.raises(
                (InvalidArgument, OutOfMemory, AlreadyExists)):
            memory.region(file=path, **{**more, "at": more["at"] and 0x7000_0000_0000})
        assert not path.exists()
    path.write_bytes(b"kept")
    with memory.region("4K", at=0x7000_0000_0000), pytest.raises(AlreadyExists):
        memory.region("1M", file=path, at=0x7000_0000_0000)
    assert path.read_bytes() == b"kept"


def answer(m: memory.Region) -> None:
    """Run in another process: answer in the memory itself."""
    m[1] = m[0] + 1
    m[2] = m.address == int.from_bytes(m[8:16], "little")
    m.close()


@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_multiprocessing_passes_shared_memory(way: str) -> None:
    """As an argument, by any start method; it lies at the same address there."""
    with memory.region("64K", shared=True) as m:
        m[0], m[8:16] = 41, m.address.to_bytes(8, "little")
        child = multiprocessing.get_context(way).Process(target=answer, args=(m,))
        child.start()
        child.join()
        assert (child.exitcode, m[1], m[2]) == (0, 42, 1)
    with memory.region("64K") as private, pytest.raises(NotSupported, match="anonymous"):
        private.__reduce__()


def test_shared_memory_passes_through_a_socket() -> None:
    """SCM_RIGHTS, as between programs that are no relatives."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    code = ("import socket, sys\nfrom unikit.alloc import memory\n"
            "with socket.socket(fileno=int(sys.argv[1])) as peer, memory.receive(peer) as m:\n"
            "    m[0] += 1\n    m.grow(0) if len(m) < 1 << 17 else None\n"
            "    peer.send(b'x')\n")
    with left, memory.region("64K", shared=True, reserve="1M") as m:
        with right:
            child = subprocess.Popen([sys.executable, "-c", code, str(right.fileno())],
                                     pass_fds=[right.fileno()])
        m[0] = 9
        m.send(left)
        assert left.recv(1) == b"x"
        assert (child.wait(), m[0]) == (0, 10)
    with left, pytest.raises(OSError):
        memory.receive(left)


def test_growth_of_shared_memory_reaches_the_others() -> None:
    """The other side maps what was added by growing by nothing."""
    with memory.region("64K", shared=True, reserve="1M") as m, \
            memory.attach(f"/proc/{os.getpid()}/fd/{m.fd}", anywhere=True) as other:
        m.grow("64K").release()
        m[100_000] = 3
        assert len(other) == 65536
        with other.grow(0) as part:
            assert part[100_000 - 65536] == 3
        with pytest.raises(PermissionError):
            os.ftruncate(m.fd, 4096)  # sealed: the end cannot vanish under a reader


def test_an_occupied_address_is_named() -> None:
    """Heaps hold addresses: another one is no use, so the message says what is in the way."""
    with memory.region("64K", shared=True) as m:
        with pytest.raises(AlreadyExists, match=f"at {m.address:#x}: /memfd:unikit"):
            memory.attach(m.fd)
        with pytest.raises(AlreadyExists, match="memfd"):
            memory.region("64K", at=m.address)
    with memory.region("64K", at=m._start) as again:
        assert again.address == m._start


def test_what_is_no_shared_memory_is_refused(tmp_path: Path) -> None:
    """A wrong descriptor, and one of something else."""
    with pytest.raises(NotFound, match="attaching to 4711"):
        memory.attach(4711)
    with (tmp_path / "file").open("wb") as file, \
            pytest.raises(InvalidArgument, match="no shared memory of unikit"):
        memory.attach(file.fileno())
    left, right = socket.socketpair()
    with left, right:
        left.send(b"nonsense")
        with pytest.raises(InvalidArgument, match="b'nonsen' came"):
            memory.receive(right)


# ---- other processes --------------------------------------------------------------------------

CHILD = """
import mmap, signal, threading, time
m = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m[:] = b"x" * len(m)
came = []
signal.signal(signal.SIGUSR1, lambda *a: came.append(1))
done = threading.Event()
threading.Thread(target=done.wait).start()
print("up", flush=True)
line = input()
print(m[:] == b"x" * len(m), line, len(came), flush=True)
done.set()
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process with two threads and 16 MiB of touched memory, waiting in a system call."""
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "up\n"
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@needs_collapse
@pytest.mark.parametrize("method", ["process_madvise", "ptrace"])
def test_a_running_process_gets_huge_pages(child: subprocess.Popen[str], method: str,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is the same afterwards, its system call goes on, and smaps shows the gain."""
    if method == "ptrace":
        def refuse(*arguments: int) -> int:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(kernel, "process_madvise", refuse)
    elif os.geteuid() != 0:
        pytest.skip("needs CAP_SYS_NICE")
    result = memory.collapse(child.pid)
    assert (result.pid, result.method) == (child.pid, method)
    assert result.before.transparent < 14 * MIB  # 7 aligned stretches at least
    assert result.gained + sum(result.refused.values()) >= 14 * MIB
    if not result.refused:
        assert result.after.transparent == result.before.transparent + result.tried
        assert memory.collapse(child.pid).gained == 0
    assert child.communicate("hi\n")[0] == "True hi 0\n"
    assert child.returncode == 0


@needs_collapse
def test_this_process_gets_huge_pages_too() -> None:
    """Only what is filled well enough: one touched page is not worth 2 MiB."""
    with memory.region("4M", "never") as full, memory.region("4M", "never") as empty:
        full[:] = b"x" * len(full)
        empty[0] = 1
        result = memory.collapse()
        assert result.method == "madvise"
        if not result.refused:
            assert full.backing().transparent == 4 * MIB
        assert empty.backing().resident == 4096
        memory.collapse(fill=1 / 512)
        assert empty.backing().resident in (4096, 2 * MIB)
        assert full[:] == b"x" * len(full)


@needs_collapse
def test_signals_that_come_meanwhile_are_not_lost(child: subprocess.Popen[str]) -> None:
    """The process is held, not disturbed: what was sent to it arrives after the release."""
    from unikit.alloc.memory.injection import Stopped
    with Stopped(child.pid) as stopped:
        os.kill(child.pid, 10)
        stopped.madvise(0, 0, kernel.MADV_HUGEPAGE)
        with pytest.raises(OSError, match="Cannot allocate|Invalid"):
            stopped.madvise(4096, 4096, kernel.MADV_HUGEPAGE)
    assert child.communicate("hi\n")[0] == "True hi 1\n"


def test_what_cannot_be_collapsed_is_said(child: subprocess.Popen[str]) -> None:
    """No such process, no such part, and a process that another debugger holds."""
    with pytest.raises(NotFound, match="no process 4194999"):
        memory.collapse(4194999)
    with pytest.raises(InvalidArgument, match="fill=2"):
        memory.collapse(child.pid, fill=2)


def test_an_old_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is a newer one; nothing is pretended."""
    def old(*arguments: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(kernel, "madvise", old)
    monkeypatch.setattr("unikit.alloc.memory.collapsing._release", lambda: (5, 10))
    with memory.region("4M", "never") as m:
        m[:] = bytes(len(m))
        with pytest.raises(NotSupported, match="takes Linux 6.1"):
            memory.collapse()


def test_the_report_adds_up() -> None:
    """Kinds, sizes of pages and nodes of this very process."""
    with memory.region("1M", "never", prefault=True) as m, \
            memory.region("1M", shared=True, prefault=True) as s:
        found = {each.start: each for each in memory.report()}
        private, shared = found[m.address], found[s.address]
        assert (private.kind, private.resident, private.anonymous) == ("anonymous", MIB, MIB)
        assert (shared.kind, shared.resident, shared.anonymous) == ("shared", MIB, 0)
        assert private.nodes == {} or sum(private.nodes.values()) == MIB
        kinds = {each.kind for each in found.values()}
        assert kinds >= {"anonymous", "shared", "file", "kernel"}
