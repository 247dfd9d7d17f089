"""Run an image as under a kernel that keeps FSGSBASE to itself: ``without.py IMAGE [WORD ...]``.

Stops the new process before its first instruction and takes the bit out of its auxiliary vector.
"""

from __future__ import annotations

import ctypes
import os
import sys

TRACEME, PEEK, POKE, REGISTERS, DETACH = 0, 2, 5, 12, 17
RSP, WORD = 19, 8
AT_HWCAP2, FSGSBASE = 26, 2

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 3


def change(pid: int) -> None:
    """Clear the bit on the stack of a process that has just been loaded."""
    registers = (ctypes.c_uint64 * 27)()
    libc.ptrace(REGISTERS, pid, None, ctypes.addressof(registers))
    at = registers[RSP]

    def words() -> int:
        nonlocal at
        at += WORD
        return libc.ptrace(PEEK, pid, at - WORD, None)

    count = words()
    at += WORD * (count + 1)  # the arguments and their end
    while words():            # the environment
        pass
    while kind := words():
        value = words()
        if kind == AT_HWCAP2:
            libc.ptrace(POKE, pid, at - WORD, value & ~FSGSBASE)
            return
    raise LookupError("the kernel gave no AT_HWCAP2")


def main() -> int:
    """Return the image's exit code."""
    pid = os.fork()
    if pid == 0:
        libc.ptrace(TRACEME, 0, None, None)
        os.execv(sys.argv[1], sys.argv[1:])
    os.waitpid(pid, 0)
    change(pid)
    libc.ptrace(DETACH, pid, None, None)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main() & 0xff)
