"""``console.buffer``: what the C side writes, the Python reader finds in any memory around it."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unikit.errors import GuestExit, NotFound
from unikit.image import Image
from unikit.platform.console import Buffer, Platform, read_buffer

pytestmark = pytest.mark.fast


def dump(program: Path, size: int, rounds: int) -> bytes:
    """Return header and ring after that many lines."""
    return subprocess.run([program, str(size), str(rounds)], capture_output=True,
                          check=True).stdout


def text(rounds: int) -> str:
    """Return what was written in all."""
    return "".join(f"{i:0{i % 40 + 1}d}\n" for i in range(rounds))


@pytest.mark.parametrize("size", [256, 300, 4096])
@pytest.mark.parametrize("rounds", [0, 1, 10, 13, 100, 1000])
def test_the_last_bytes_are_found(console_program: Path, size: int, rounds: int) -> None:
    """Before the ring wraps, when it just does, and long after."""
    assert read_buffer(dump(console_program, size, rounds)) == text(rounds)[-size:]


def test_it_is_found_in_a_whole_guest(console_program: Path) -> None:
    """At any address, after a false magic, with garbage on both sides."""
    ring = dump(console_program, 512, 50)
    seeded = random.Random(1)
    for shift in (0, 1, 64, 4095):
        memory = seeded.randbytes(10000) + ring[:16] + seeded.randbytes(2000 + shift) + ring + \
            seeded.randbytes(3000)
        assert read_buffer(memory) == text(50)[-512:]
        assert read_buffer(memoryview(bytearray(memory))) == text(50)[-512:]


def test_the_one_that_was_written_most_is_taken(console_program: Path) -> None:
    """A buffer of an earlier life may still lie around."""
    old, new = dump(console_program, 256, 5), dump(console_program, 512, 60)
    assert read_buffer(old + bytes(100) + new) == text(60)[-512:]
    assert read_buffer(new + bytes(100) + old) == text(60)[-512:]


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_a_damaged_header_is_no_buffer(console_program: Path, place: int) -> None:
    """A wild write must not make the reader believe nonsense. (`written` is not covered: it only
    turns the text.)"""
    memory = bytearray(dump(console_program, 256, 50))
    memory[place] ^= 0x10
    if 24 <= place < 32:
        assert len(read_buffer(memory)) <= 256
    else:
        with pytest.raises(NotFound):
            read_buffer(memory)


def test_a_cut_dump_is_no_buffer(console_program: Path) -> None:
    """What lies behind the end of the memory is not made up."""
    memory = dump(console_program, 256, 50)
    for cut in (10, 41, 64, len(memory) - 1):
        with pytest.raises(NotFound):
            read_buffer(memory[:cut])


def test_the_code_does_not_contain_the_magic(tmp_path: Path) -> None:
    """Otherwise every guest with the component compiled in would have a false buffer."""
    source = Buffer.source_files()[0]
    root = Path(__file__).resolve().parents[3]
    for level in ("-O2", "-Os", "-O0"):
        built = tmp_path / "buffer.o"
        subprocess.run(["gcc", level, "-ffreestanding", f"-I{root}", "-c", source, "-o", built],
                       check=True)
        found = built.read_bytes()
        assert b"ukit-con" not in found and b"-buffer1" not in found, level


def process_memory(pid: int) -> bytes:
    """Return all writable memory of a process."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, access = line.split()[:2]
            if access.startswith("rw"):
                start, end = (int(each, 16) for each in area.split("-"))
                memory.seek(start)
                found.append(memory.read(end - start))
    return b"".join(found)


def read(pid: int) -> str:
    """Return what the reader finds in a process."""
    try:
        return read_buffer(process_memory(pid))
    except PermissionError:
        pytest.skip("this user may not read the memory of a child")
    except NotFound:
        return ""


def test_a_live_image_is_read_from_outside(writer: Callable[..., Any]) -> None:
    """The image runs as a process; the reader sees nothing but its memory."""
    with writer([Platform(), Buffer(size=512)], args="x" * 300) as machine:
        machine.console.expect("said ")
        machine.console.expect("\n")
        deadline = time.monotonic() + 5
        while (text := machine.console.text)[-1:] != "\n" or read(machine.pid) != text:
            assert time.monotonic() < deadline, read(machine.pid)


@pytest.mark.kvm
def test_a_guest_is_read_after_its_panic(tmp_path: Path) -> None:
    """What it is for: the last words of a guest that is dead."""
    source = tmp_path / "main.c"
    source.write_text('#include <unikit/app.h>\n'
                      'int init_application(void)\n'
                      '{ kit_log("the last words"); kit_panic("ouch"); }\n')
    image = Image("dying", [source], console=Buffer(), platforms=("kvm",))
    with image.boot("kvm", memory="2M") as machine:
        with pytest.raises(GuestExit, match="ouch"):
            machine.wait(5)
        layout = machine._layout()
        memory = machine._ffi.new("char[]", layout.heap_size)
        assert machine._lib.kit_kvm_peek(machine._vm, layout.heap_base, memory, layout.heap_size)
        assert machine.console.text == ""
        assert read_buffer(machine._ffi.buffer(memory)) == "the last words\n"
