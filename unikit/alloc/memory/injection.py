"""System calls that another process makes for us, while python-ptrace holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from pathlib import Path
from typing import Any

from unikit.alloc.memory.mappings import report
from unikit.errors import NoPermission, NotFound, NotSupported

_MADVISE = 28
_SYSCALL = b"\x0f\x05"
_WALL = 0x40000000  # wait for threads too
_LONG_MODE = 0x33  # code segment of 64-bit programs
_NONE = 2**64 - 1


class Stopped:
    """A process that is held while the ``with`` block runs, and runs on unharmed afterwards.

    Only its main thread is held. Nothing of its code is changed: a ``syscall`` instruction that it
    has anyway is executed with other registers. Signals that come meanwhile are delivered later.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._signals: list[int] = []

    def __enter__(self) -> Stopped:
        from ptrace.binding import func
        self._ptrace: Any = func
        self._instruction = _executable(self.pid, _SYSCALL)
        self._call("ptrace_attach")
        try:
            while self._wait() != signal.SIGSTOP:
                self._call("ptrace_cont", self._signals.pop())
            self._saved = self._call("ptrace_getregs")
            if self._saved.cs != _LONG_MODE:
                raise NotSupported(f"process {self.pid} is no 64-bit program")
        except BaseException:
            self._call("ptrace_detach")
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(NotFound):  # it ended
            self._call("ptrace_setregs", self._saved)
            self._call("ptrace_detach", self._signals.pop(0) if self._signals else 0)
            for number in self._signals:
                os.kill(self.pid, number)

    def madvise(self, start: int, size: int, advice: int) -> None:
        """Have the process advise on its memory.

        :raises OSError: what the kernel told it.
        """
        registers = self._call("ptrace_getregs")
        registers.rip, registers.rax, registers.orig_rax = self._instruction, _MADVISE, _NONE
        registers.rdi, registers.rsi, registers.rdx = start, size, advice
        self._call("ptrace_setregs", registers)
        while True:
            self._call("ptrace_singlestep")
            if self._wait() == signal.SIGTRAP:
                break
        result = self._call("ptrace_getregs").rax
        if result > _NONE - 4096:
            number = _NONE + 1 - result
            raise OSError(number, os.strerror(number))

    def _wait(self) -> int:
        """Wait until it stops; by which signal. Those not of ours are kept for later."""
        _, status = os.waitpid(self.pid, _WALL)
        if not os.WIFSTOPPED(status):
            raise NotFound(f"process {self.pid} ended meanwhile")
        number = os.WSTOPSIG(status)
        if number not in (signal.SIGSTOP, signal.SIGTRAP):
            self._signals.append(number)
        return number

    def _call(self, function: str, *arguments: Any) -> Any:
        from ptrace import PtraceError
        try:
            return getattr(self._ptrace, function)(self.pid, *arguments)
        except PtraceError as error:
            if error.errno == errno.ESRCH:
                raise NotFound(f"process {self.pid} ended meanwhile") from error
            raise NoPermission(f"stopping process {self.pid}: {error}; another debugger has it, "
                               "or ask as its owner or as root") from error


def _executable(pid: int, wanted: bytes) -> int:
    """Return the address of these bytes in executable memory of a process."""
    mappings = report(pid)
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for each in mappings:
                if "x" in each.permissions and each.name != "[vsyscall]":
                    memory.seek(each.start)
                    found = memory.read(each.size).find(wanted)
                    if found >= 0:
                        return each.start + found
    except PermissionError as error:
        raise NoPermission(f"process {pid} belongs to somebody else; ask as its owner or as "
                           "root") from error
    raise NotSupported(f"process {pid} has no syscall instruction")
