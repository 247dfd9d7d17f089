"""Calls in another process: one of its threads is borrowed, used and given back as it was.

By python-ptrace. A thread is *seized*, not attached: it gets no signal, and neither a job control
stop nor a wait in the kernel is disturbed, which goes on (or is begun anew by the kernel, as after
a signal handler) when the thread is let go.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptrace.binding import func
from ptrace.error import PtraceError

from unikit.errors import NotFound, PlatformError, TimedOut

_SEIZE, _INTERRUPT, _GETREGSET, _SETREGSET = 0x4206, 0x4207, 0x4204, 0x4205
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B
_NT_X86_XSTATE, _XSTATE_ROOM = 0x202, 16384
_EVENT_STOP = 128
_WALL = 0x40000000
_ALL_SIGNALS = (1 << 64) - 1 & ~(1 << signal.SIGTRAP - 1 | 1 << signal.SIGSEGV - 1
                                 | 1 << signal.SIGBUS - 1 | 1 << signal.SIGILL - 1
                                 | 1 << signal.SIGFPE - 1)
_DIRECTION = 0x400  # flag of the processor; must be clear in a call
_PATIENCE_S = 20.0

# System calls by which a thread waits, by number: neither an allocator nor the dynamic linker makes
# them: poll, select, pause, accept, recvfrom, recvmsg, wait4, rt_sigtimedwait, rt_sigsuspend,
# epoll_wait, waitid, pselect6, ppoll, epoll_pwait, accept4, epoll_pwait2.
_WAITS = frozenset({7, 23, 34, 43, 45, 47, 61, 128, 130, 232, 247, 270, 271, 281, 288, 441})
# glibc's makes none of these either, others spin by them: nanosleep, restart_syscall (of a wait
# with an end), clock_nanosleep; and futex, if not the plain wait of its locks.
_TIMED_WAITS = frozenset({35, 219, 230})
_READ, _FUTEX, _FUTEX_OPERATION, _FUTEX_WAIT_BITSET = 0, 202, 0x7F, 9
_RESTORER = b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05"  # what a signal handler returns to


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Memory:
    """The memory of another process, whatever its pages allow; :raises NotFound: it ended."""

    def __init__(self, pid: int) -> None:
        self._file = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes; fewer where the memory ends."""
        parts = []
        while size:
            try:
                part = os.pread(self._file, min(size, 1 << 24), address)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
            address, size = address + len(part), size - len(part)
        return b"".join(parts)

    def word(self, address: int) -> int:
        """Return 64 bits.

        :raises PlatformError: nothing is mapped there.
        """
        data = self.read(address, 8)
        if len(data) != 8:
            raise PlatformError(f"the process has nothing mapped at {address:#x}")
        return int.from_bytes(data, "little")

    def text(self, address: int, limit: int = 512) -> str:
        """Return a C string."""
        return self.read(address, limit).partition(b"\0")[0].decode(errors="replace")

    def write(self, address: int, data: bytes) -> None:
        """Write bytes, into pages that are read-only, too."""
        if os.pwrite(self._file, data, address) != len(data):
            raise PlatformError(f"the process took no {len(data)} bytes at {address:#x}")

    def close(self) -> None:
        """Let go."""
        os.close(self._file)


class Thread:
    """A thread that is seized and stopped until :meth:`release`."""

    def __init__(self, tid: int, *, settle: bool = True) -> None:
        """Seize it and tell it to stop.

        :param settle: wait until it has stopped; else call :meth:`settle`.
        :raises PtraceError: it cannot be traced; its ``errno`` says why.
        :raises NotFound: it ended.
        """
        self.tid = tid
        self._signal = 0  # that was on its way to the thread
        func.ptrace(_SEIZE, tid)
        try:
            func.ptrace(_INTERRUPT, tid)
            if settle:
                self.settle()
        except BaseException:
            self.release()
            raise

    def settle(self) -> None:
        """Wait until it has stopped."""
        self._wait(time.monotonic() + _PATIENCE_S)

    def release(self) -> None:
        """Let it run on, and no longer trace it."""
        try:
            func.ptrace_detach(self.tid, self._take_signal())
        except PtraceError:  # it has not stopped yet, or it ended
            with contextlib.suppress(PtraceError, NotFound, TimedOut):
                self.settle()
                func.ptrace_detach(self.tid, self._take_signal())

    def _take_signal(self) -> int:
        pending, self._signal = self._signal, 0
        return pending

    def _wait(self, deadline: float) -> int:
        """Wait for the next stop and return its signal; 0: it is the one we asked for."""
        pause = 0.00002
        while True:
            try:
                pid, status = os.waitpid(self.tid, _WALL | os.WNOHANG)
            except ChildProcessError as error:
                raise NotFound(f"thread {self.tid} ended") from error
            if pid:
                break
            if time.monotonic() > deadline:
                raise TimedOut(f"thread {self.tid} did not stop within {_PATIENCE_S:.0f} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.001)
        if not os.WIFSTOPPED(status):
            raise NotFound(f"thread {self.tid} ended")
        if status >> 16 == _EVENT_STOP:
            return 0
        number = os.WSTOPSIG(status)
        if number != signal.SIGTRAP:
            self._signal = number
        return number

    # ---- a call --------------------------------------------------------------------------

    def registers(self) -> Any:
        """Return its registers."""
        return func.ptrace_getregs(self.tid)

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """Put registers, vector state and signal mask back on leaving; block signals meanwhile."""
        registers, vectors, mask = self.registers(), self._vectors(), self._mask()
        self._set_mask(_ALL_SIGNALS)
        try:
            yield
        finally:
            func.ptrace_setregs(self.tid, registers)
            self._set_vectors(vectors)
            self._set_mask(mask)

    def syscall(self, instruction: int, number: int, *arguments: int) -> int:
        """Make a system call; ``instruction`` is where the process has a ``syscall``."""
        regs = self.registers()
        regs.rip, regs.rax, regs.orig_rax = instruction, number, _minus_one()
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments, strict=False):
            setattr(regs, name, value & (1 << 64) - 1)
        func.ptrace_setregs(self.tid, regs)
        func.ptrace_singlestep(self.tid)
        self._expect_trap("a system call")
        return ctypes.c_int64(self.registers().rax).value

    def call(self, stub: int, stack: int, function: int, *arguments: int) -> int:
        """Call a function; ``stub`` is ``call *%rax; int3``, ``stack`` the top of a free one.

        :raises PlatformError: the process did something else instead of returning.
        """
        regs = self.registers()
        regs.rip, regs.rax, regs.rsp, regs.orig_rax = stub, function, stack & ~15, _minus_one()
        regs.rbp = 0
        regs.eflags &= ~_DIRECTION
        for name, value in zip(("rdi", "rsi", "rdx", "rcx"), arguments, strict=False):
            setattr(regs, name, value & (1 << 64) - 1)
        func.ptrace_setregs(self.tid, regs)
        func.ptrace_cont(self.tid)
        self._expect_trap(f"a call of {function:#x}")
        regs = self.registers()
        if regs.rip != stub + 3:
            raise PlatformError(f"a call of {function:#x} in thread {self.tid} ended at "
                                f"{regs.rip:#x}")
        return int(regs.rax)

    def _expect_trap(self, doing: str) -> None:
        number = self._wait(time.monotonic() + _PATIENCE_S)
        while number == 0:  # an old interrupt that had not been seen
            func.ptrace_cont(self.tid)
            number = self._wait(time.monotonic() + _PATIENCE_S)
        if number != signal.SIGTRAP:
            self._signal = 0
            raise PlatformError(f"{doing} in thread {self.tid} ended with "
                                f"{signal.Signals(number).name}")

    def _vectors(self) -> bytes:
        buffer = ctypes.create_string_buffer(_XSTATE_ROOM)
        vector = _Vector(ctypes.addressof(buffer), _XSTATE_ROOM)
        func.ptrace(_GETREGSET, self.tid, _NT_X86_XSTATE, ctypes.addressof(vector))
        return buffer.raw[:vector.size]

    def _set_vectors(self, state: bytes) -> None:
        buffer = ctypes.create_string_buffer(state, len(state))
        vector = _Vector(ctypes.addressof(buffer), len(state))
        func.ptrace(_SETREGSET, self.tid, _NT_X86_XSTATE, ctypes.addressof(vector))

    def _mask(self) -> int:
        mask = ctypes.c_uint64()
        func.ptrace(_GETSIGMASK, self.tid, 8, ctypes.addressof(mask))
        return mask.value

    def _set_mask(self, value: int) -> None:
        mask = ctypes.c_uint64(value)
        func.ptrace(_SETSIGMASK, self.tid, 8, ctypes.addressof(mask))


def _minus_one() -> int:
    return (1 << 64) - 1


def threads(pid: int) -> list[int]:
    """Return the ids of a process's threads, the first one first; empty: it is gone."""
    try:
        found = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return sorted(found, key=lambda tid: (tid != pid, tid))


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[list[Thread]]:
    """Stop all threads of a process; they run on on leaving.

    :raises NotFound: the process ended.
    """
    held: dict[int, Thread] = {}
    try:
        fresh = threads(pid)
        while fresh:  # until no running thread can have made another
            for tid in fresh:  # all are told before any is waited for
                try:
                    held[tid] = Thread(tid, settle=False)
                except PtraceError as error:
                    if not ended(pid, tid, error):
                        raise
            for tid in fresh:
                try:
                    if tid in held:
                        held[tid].settle()
                except NotFound:
                    del held[tid]
            fresh = [tid for tid in threads(pid) if tid not in held and _alive(pid, tid)]
        if not held:
            raise NotFound(f"process {pid} ended")
        yield list(held.values())
    finally:
        for thread in held.values():
            thread.release()


def ended(pid: int, tid: int, error: PtraceError) -> bool:
    """Say whether a thread could not be seized because it is ending or gone."""
    return error.errno == errno.ESRCH or (error.errno == errno.EPERM and not _alive(pid, tid))


def _alive(pid: int, tid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/task/{tid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(") ")[2][:1] not in ("Z", "X")


def safe(thread: Thread, memory: Memory, unsafe: list[tuple[int, int]], *, glibc: bool = False
         ) -> bool:
    """Say whether a stopped thread is outside the code in ``unsafe``, as far as its stack tells.

    Looks for return addresses in the frames nearest to the top: words that point behind a call
    instruction. Too much caution costs another try; locks of the allocator and the dynamic linker
    are held only a few frames deep. Such words may be left over from calls that ended long ago, and
    a thread that waits has the same ones at every try: so the call it waits in counts for more.

    :param glibc: the allocator is glibc's, of which it is known how it waits.
    """
    regs = thread.registers()
    words = [int(regs.rip), *_words(memory, regs.rsp, 4096)]
    for number, word in enumerate(words):
        if any(start <= word < end for start, end in unsafe) \
                and (number == 0 or _after_call(memory.read(word - 7, 7))):
            return number > 0 and _waits(thread.tid, regs, memory, glibc)
    return True


def _words(memory: Memory, address: int, size: int) -> tuple[int, ...]:
    data = memory.read(address, size)
    return struct.unpack(f"<{len(data) // 8}Q", data[:len(data) // 8 * 8])


def _waits(tid: int, regs: Any, memory: Memory, glibc: bool) -> bool:
    """Whether a thread waits by a system call that neither an allocator nor the linker makes.

    Not if that is in a signal handler, which may have come into either of them.
    """
    call = int(regs.orig_rax)
    if memory.read(regs.rip - 2, 2) != b"\x0f\x05" or not (
            call in _WAITS or (call == _READ and _no_file(tid, int(regs.rdi)))
            or (glibc and (call in _TIMED_WAITS or (
                call == _FUTEX and regs.rsi & _FUTEX_OPERATION == _FUTEX_WAIT_BITSET)))):
        return False
    return not any(memory.read(word, len(_RESTORER)) == _RESTORER
                   for word in set(_words(memory, regs.rsp, 16384)) if 0 < word >> 12 < 1 << 35)


def _no_file(tid: int, descriptor: int) -> bool:
    """Whether a descriptor is a terminal, a pipe or a socket: the linker reads files only."""
    try:
        return not stat.S_ISREG(Path(f"/proc/{tid}/fd/{descriptor}").stat().st_mode)
    except OSError:
        return False


def _after_call(before: bytes) -> bool:
    """Whether bytes end with a call instruction."""
    return len(before) == 7 and (
        before[2] == 0xE8 or any(before[-size] == 0xFF and before[1 - size] >> 3 & 7 == 2
                                 for size in (2, 3, 6, 7)))
