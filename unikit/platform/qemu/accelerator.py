"""Find out what runs the processor under QEMU here: the host's /dev/kvm, or QEMU itself.

Whether /dev/kvm opens says little: modules of another hypervisor, nested hosts and processor models
that QEMU cannot set up refuse only later. So a tiny image is run, once for each version of QEMU and
kernel.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import struct
from pathlib import Path

from unikit import cache

PROGRAM = "qemu-system-x86_64"
BOARD = ("microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,"
         "auto-kernel-cmdline=on")
"""The smallest board there is: no firmware that takes time, devices by MMIO, one serial line."""
_SECONDS = 5
_STATUS = 2 * 0x2a + 1  # what isa-debug-exit makes of the image's 0x2a


def board(accelerator: str) -> list[str]:
    """Return QEMU's words for the machine without its devices; accelerator: ``kvm`` or ``tcg``.

    The model ``host`` without that one feature: some nested hosts offer a register for it that
    they do not have.
    """
    cpu = "host,-arch-capabilities" if accelerator == "kvm" else "max"
    return ["-M", BOARD, "-accel", accelerator, "-cpu", cpu, "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot"]


@functools.cache
def best() -> tuple[str, str]:
    """Return ``kvm`` or ``tcg``, and why in words for people."""
    if not Path("/dev/kvm").exists():
        return "tcg", "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "no permission on /dev/kvm"
    remembered = cache.folder() / "qemu" / _fingerprint()
    try:
        works = remembered.read_text() == "kvm"
    except OSError:
        works = _runs("kvm")
        remembered.parent.mkdir(parents=True, exist_ok=True)
        cache.write(remembered, b"kvm" if works else b"tcg")
    if works:
        return "kvm", "/dev/kvm works"
    return "tcg", "QEMU does not get an image to run on this host's /dev/kvm"


def _fingerprint() -> str:
    program = Path(shutil.which(PROGRAM) or PROGRAM)
    stat = program.stat()
    text = f"{program} {stat.st_size} {stat.st_mtime_ns} {os.uname().release} {BOARD}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _runs(accelerator: str) -> bool:
    """Run the tiny image."""
    import subprocess
    from tempfile import TemporaryDirectory
    with TemporaryDirectory(prefix="unikit-qemu-") as folder:
        path = Path(folder) / "tiny.elf"
        path.write_bytes(_tiny())
        words = [PROGRAM, *board(accelerator), "-m", "16", "-kernel", str(path), "-device",
                 "isa-debug-exit,iobase=0xf4,iosize=4", "-serial", "null"]
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == _STATUS


def _tiny() -> bytes:
    """Return an ELF file whose PVH entry leaves by the debug exit with 0x2a."""
    base, header = 0x100000, 64 + 2 * 56
    code = bytes.fromhex("b82a000000 e7f4 f4 ebfd")  # mov $0x2a, %eax; out %eax, $0xf4; 1: hlt; jmp
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", base + header)
    at = header + (len(code) + 3) // 4 * 4
    size = at + len(note)
    ehdr = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, base + header, 64, 0, 0,
                       64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    notes = struct.pack("<IIQQQQQQ", 4, 4, at, base + at, base + at, len(note), len(note), 4)
    return (ehdr + load + notes + code).ljust(at, b"\0") + note
