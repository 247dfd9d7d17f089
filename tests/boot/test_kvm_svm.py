"""The monitor on ordinary KVM: kvm_amd of a Debian kernel in an emulated machine (QEMU TCG).

The development machines' KVM has no hardware virtualization, so what differs there (the time stamp
counter's offset, CPUID, XCR0, CR4, a shutdown that loses its registers) is tested here: the monitor
as a static C program in an initramfs, and the same test image as in ``tests/platform/kvm``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikit import cache
from unikit.image import toolchain

pytestmark = pytest.mark.exercises("kvm-svm")
ROOT = toolchain.ROOT
HERE = Path(__file__).parent
VERBS = ["", "exit 305419896", "facts", "clock", "sleep 2000 20", "output 3000", "fill", "release",
         "panic at the disco", "write-text", "run-heap", "run-stack", "null", "jump-null",
         "overflow", "undefined", "divide", "privileged", "syscall", "port", "interrupt",
         "write-boot", "beyond", "bell 9", "bell-load", "bell-wide", "ring 1 4", "spin", "idle",
         "protect 1 2097152 4096 2", "protect 1 2097152 4096 3", "protect 0 4096 4096 1",
         "protect 1 8192 4096 1", "upcalls 10", "upcall-wild 1 1"]
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t proc none /proc
for m in irqbypass kvm kvm-amd; do /bin/busybox insmod /$m.ko; done
exec 2>&1
set --
while read -r verb; do set -- "$@" "$verb"; done < /verbs
/svm /probe.elf "$@"
echo "svm says $?"
/bin/busybox poweroff -f
"""


def needed(name: str) -> str:
    """Return a program's path or skip."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture(scope="module")
def kernel() -> Path:
    """Unpack Debian's cloud kernel into the cache, once."""
    folder = cache.folder() / "kvm-svm"
    if not any(folder.glob("boot/vmlinuz-*")):
        needed("apt-get"), needed("dpkg-deb")
        found = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], text=True,
                               capture_output=True, check=False).stdout
        match = re.search(r"Depends: (linux-image-\S+)", found)
        if match is None:
            pytest.skip("no Debian cloud kernel in the package lists (apt-get update)")
        fresh = folder.with_name(f"kvm-svm-{os.getpid()}")
        fresh.mkdir(parents=True)
        try:
            done = subprocess.run(["apt-get", "download", "-q", match[1]], cwd=fresh,
                                  capture_output=True, text=True, check=False)
            package = next(fresh.glob("*.deb"), None)
            if package is None:
                pytest.skip(f"cannot download {match[1]}: {done.stderr.strip()[-200:]}")
            subprocess.run(["dpkg-deb", "-x", package, fresh], check=True)
            package.unlink()
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """Return a cpio archive (Linux, early userspace: buffer-format) of (mode, contents)."""
    out = b""
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


@pytest.fixture(scope="module")
def said(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run everything in one emulated machine; what the monitor said, by argument string."""
    folder = tmp_path_factory.mktemp("svm")
    spec = importlib.util.spec_from_file_location("probe_build",
                                                  ROOT / "tests/platform/kvm/conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    probe = module.build(folder)
    sources = sorted((ROOT / "unikit/platform/kvm/vmm").glob("*.c"))
    toolchain.run((*toolchain.compiler(), "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-static",
                   f"-I{ROOT}", HERE / "svm.c", *sources, "-lpthread", "-o", folder / "svm"))
    modules = {path.name: path for path in kernel.rglob("*.ko")}
    files = {name: (0o40755, b"") for name in ("dev", "proc", "bin")}
    files |= {name: (0o100755, path.read_bytes()) for name, path in (
        ("bin/busybox", Path(needed("busybox"))), ("svm", folder / "svm"), ("probe.elf", probe),
        *((f"{each}.ko", modules[f"{each}.ko"]) for each in ("irqbypass", "kvm", "kvm-amd")))}
    files["init"] = (0o100755, INIT.encode())
    files["verbs"] = (0o100644, "".join(f"{verb}\n" for verb in VERBS).encode())
    (folder / "initrd").write_bytes(cpio(files))
    done = subprocess.run(
        [needed("qemu-system-x86_64"), "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512",
         "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
         "-kernel", next(kernel.glob("boot/vmlinuz-*")), "-initrd", folder / "initrd",
         "-append", "console=ttyS0 quiet panic=-1"],
        capture_output=True, text=True, errors="replace", timeout=180, check=False,
        stdin=subprocess.DEVNULL)
    text = done.stdout.replace("\r", "")
    assert "svm says 0" in text, text[-3000:]
    yield dict(re.findall(r"^>(.*?) \| (.*)$", text, re.MULTILINE))


def test_probe_guest_runs(said: dict[str, str]) -> None:
    """The probe is what chooses the platform."""
    assert said["probe"] == "ok"


@pytest.mark.parametrize(("verb", "says"), [
    ("", r"end 1 code 0 .*hello/"),
    ("exit 305419896", "end 1 code 305419896"),
    ("facts", "end 1 code 0 .*random 0 .*platform kvm cpus 1"),
    ("clock", "end 1 code 0 .*back 0/wall [1-9]"),
    ("sleep 2000 20", "end 1 code 0 .*late"),
    ("output 3000", "end 1 code 0 .*abcdefgh"),
    ("fill", "end 1 code 0 .*filled"),
    ("release", "end 1 code 0 .*refused -2 -2 -2"),
    ("panic at the disco", "end 3 .*at the disco"),
    ("write-text", "end 4 .*vector 14 cr2 0x10"),
    ("run-heap", "end 4 .*vector 14"),
    ("run-stack", "end 4 .*vector 14"),
    ("null", "end 4 .*vector 14 cr2 0x10 "),
    ("jump-null", "end 4 .*vector 14 cr2 0 "),
    ("overflow", "end 4 .*vector 14"),
    ("undefined", "end 4 .*vector 6"),
    ("divide", "end 4 .*vector 0"),
    ("privileged", "end 4 .*vector 13"),
    ("syscall", "end 4 .*vector 6"),
    ("port", "end 4 .*vector 13"),
    ("interrupt", "end 4 .*vector 13"),
    ("write-boot", "end 4 .*vector 14"),
    ("beyond", "end 4 .*vector 14"),
    ("bell 9", "end 5 .*call 9 does not exist"),
    ("bell-load", "end 5 .*only stores"),
    ("bell-wide", "end 5 .*a store of 8 bytes"),
    ("ring 1 4", "end 5 .*descriptor 4 does not exist"),
    ("spin", "end 2 .*spin/"),
    ("idle", "end 2 .*idle/"),
    ("protect 1 2097152 4096 2", "end 4 .*vector 14"),
    ("protect 1 2097152 4096 3", "end 1 code 0"),
    ("protect 0 4096 4096 1", "end 4 .*vector 14"),
    ("protect 1 8192 4096 1", "end 1 code 0"),
    ("upcalls 10", r"end 1 code 0 .*upcalls \d+ sum right"),
    ("upcall-wild 1 1", "end 1 code 0 .*upcalls 0 due 1"),
])
def test_same_as_everywhere(said: dict[str, str], verb: str, says: str) -> None:
    """What a guest does and how it ends is the same with hardware virtualization."""
    assert re.match(says, said[verb]), said[verb]


def test_clock_is_the_hosts(said: dict[str, str]) -> None:
    """The guest's time stamp counter is not the host's here, its time is."""
    match = re.search(r"from (\d+) to (\d+) .*now (\d+)", said["clock"])
    assert match, said["clock"]
    before, after, now = map(int, match.groups())
    assert before - 1_000_000 <= now <= after + 1_000_000
