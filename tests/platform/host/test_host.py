"""The environment of this process: what components get outside images."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from unikit.errors import AlreadyExists, Closed, InvalidArgument, NotFound, OutOfMemory
from unikit.ffi import load
from unikit.platform.host import (
    NEVER,
    WAKE_ANY,
    WAKE_CONSOLE,
    WAKE_CPU,
    WAKE_NETWORK,
    HostEnvironment,
)

pytestmark = pytest.mark.fast
EINVAL = -2
ROOT = Path(__file__).resolve().parents[3]


def test_clocks_are_the_hosts() -> None:
    """Monotonic and wall time agree with what Python reads around them."""
    with HostEnvironment() as env:
        before, wall = time.monotonic_ns(), time.time_ns()
        now, there = env.now_ns(), env.wall_ns()
        assert before <= now <= time.monotonic_ns()
        assert wall <= there <= time.time_ns()
        assert env.ptr.start_ns <= before


def test_entropy_differs_and_has_every_length() -> None:
    """Zero bytes, odd lengths and more than one system call gives."""
    with HostEnvironment() as env:
        assert env.entropy(0) == b""
        assert env.entropy(32) != env.entropy(32)
        assert len(set(env.entropy(100_001))) == 256


def test_memory_is_zeroed_whole_pages() -> None:
    """What a platform promises of env.memory holds here as well."""
    with HostEnvironment(memory=10_000) as env:
        assert len(env.memory) == 12_288
        assert bytes(env.memory) == bytes(12_288)
        assert int(load.abi()[0].cast("uintptr_t", env.ptr.memory.base_address)) % 4096 == 0
    with HostEnvironment() as env:
        assert env.ptr.memory.size == 0


def test_absurd_memory_is_out_of_memory() -> None:
    """An error, not a crash on first touch."""
    with pytest.raises(OutOfMemory):
        HostEnvironment(memory=1 << 60)


def test_console_keeps_output_and_counts_room() -> None:
    """64 KiB each way; what does not fit is refused, never overwritten."""
    ffi, lib = load.abi()
    with HostEnvironment() as env:
        console = env.ptr.console
        for _ in range(3):  # round and round the ring
            assert lib.kit_console_write(console, b"x" * 40_000, 40_000) == 40_000
            assert env.console.read(30_000) == b"x" * 30_000
            assert env.console.read() == b"x" * 10_000
        assert lib.kit_console_write(console, b"y" * 70_000, 70_000) == 65_536
        assert env.console.read() == b"y" * 65_536
        assert env.console.write("typed") == 5
        buffer = ffi.new("char[]", 3)
        assert lib.kit_console_input(console, buffer, 3) == 3
        assert bytes(ffi.buffer(buffer)) == b"typ"
        assert lib.kit_console_input(console, buffer, 3) == 2
        assert lib.kit_console_input(console, buffer, 3) == 0


def test_console_over_descriptors() -> None:
    """A full pipe cuts the write short instead of blocking; end of input is silence."""
    ffi, lib = load.abi()
    reader, writer = os.pipe()
    source, typed = os.pipe()
    with HostEnvironment(output=writer, input=source) as env:
        console = env.ptr.console
        assert lib.kit_console_write(console, b"hello", 5) == 5
        assert os.read(reader, 10) == b"hello"
        assert lib.kit_console_write(console, bytes(1 << 20), 1 << 20) == 1 << 16
        buffer = ffi.new("char[]", 8)
        assert lib.kit_console_input(console, buffer, 8) == 0
        os.write(typed, b"abc")
        assert env.wait(timeout=5) == WAKE_CONSOLE
        assert lib.kit_console_input(console, buffer, 8) == 3
        os.close(typed)
        assert env.wait(timeout=5) == WAKE_CONSOLE
        assert lib.kit_console_input(console, buffer, 8) == 0
        assert env.wait(timeout=0.01) == 0
    for fd in (reader, writer, source):
        os.close(fd)


def test_wait_keeps_its_deadline() -> None:
    """Not before it, and at once if it has passed."""
    with HostEnvironment() as env:
        deadline = env.now_ns() + 20_000_000
        assert env.wait(deadline) == 0
        assert env.now_ns() >= deadline
        assert env.wait(1) == env.wait(0) == 0


def test_console_input_wakes_only_who_asks() -> None:
    """Input that is already there ends a wait for it at once, and no other."""
    with HostEnvironment() as env:
        env.console.write(b"x")
        assert env.wait(wake=WAKE_CONSOLE) == WAKE_CONSOLE
        assert env.wait(wake=WAKE_NETWORK, timeout=0.01) == 0


def test_watched_descriptor_wakes() -> None:
    """As long as it is readable; after unwatch no more."""
    reader, writer = os.pipe()
    with HostEnvironment() as env:
        env.watch(reader)
        with pytest.raises(AlreadyExists):
            env.watch(reader)
        assert env.wait(timeout=0.01) == 0
        os.write(writer, b"x")
        assert env.wait(NEVER) == WAKE_NETWORK
        assert env.wait(wake=WAKE_CPU, timeout=0.01) == 0
        env.unwatch(reader)
        assert env.wait(timeout=0.01) == 0
        with pytest.raises(NotFound):
            env.unwatch(reader)
        for fd in range(1000, 1032):
            env.watch(fd)
        with pytest.raises(OutOfMemory):
            env.watch(2000)
    os.close(reader)
    os.close(writer)


def test_another_thread_wakes() -> None:
    """Before or during the wait, once."""
    with HostEnvironment() as env:
        env.wake()
        assert env.wait() == WAKE_CPU
        timer = threading.Timer(0.02, env.wake)
        timer.start()
        assert env.wait(env.now_ns() + 10 * 10**9, WAKE_ANY) == WAKE_CPU
        timer.join()
        assert env.wait(timeout=0.01) == 0


def test_a_signal_ends_the_wait() -> None:
    """Python must get the chance to raise KeyboardInterrupt."""
    seen = []
    previous = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with HostEnvironment() as env:
            assert env.wait() == 0
        assert seen == [1]
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_pages_are_released_and_refused_outside() -> None:
    """Within env.memory and registered regions only, whole pages only."""
    ffi, _ = load.abi()
    with HostEnvironment(memory="64K") as env, HostEnvironment(memory="64K") as other:
        ptr, base = env.ptr, env.ptr.memory.base_address
        env.memory[5] = 1
        assert ptr.page_release(ptr, base, 4096) == 0
        assert env.memory[5] == 0
        assert ptr.page_protect(ptr, base, 4096, 0) == 0
        assert ptr.page_protect(ptr, base, 4096, 3) == 0
        env.memory[5] = 1
        assert ptr.page_release(ptr, base + 1, 4096) == EINVAL
        assert ptr.page_protect(ptr, base, 100, 0) == EINVAL
        assert ptr.page_protect(ptr, base, 4096, 4) == EINVAL
        assert ptr.page_release(ptr, base, (64 << 10) + 4096) == EINVAL
        foreign = other.ptr.memory.base_address
        address = int(ffi.cast("uintptr_t", foreign))
        assert ptr.page_release(ptr, foreign, 4096) == EINVAL
        env.add_region(address, 8192)
        assert ptr.page_release(ptr, foreign, 8192) == 0
        assert ptr.page_release(ptr, foreign, 12288) == EINVAL
        env.remove_region(address)
        assert ptr.page_release(ptr, foreign, 4096) == EINVAL
        with pytest.raises(InvalidArgument):
            env.add_region(address + 1, 4096)
        with pytest.raises(NotFound):
            env.remove_region(address)


def test_protected_page_faults() -> None:
    """Protection is the processor's, not a note."""
    program = ("from unikit.platform.host import HostEnvironment\n"
               "env = HostEnvironment(memory=4096)\n"
               "assert env.ptr.page_protect(env.ptr, env.ptr.memory.base_address, 4096, 1) == 0\n"
               "assert env.memory[0] == 0\n"
               "env.memory[0] = 1\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGSEGV


def test_boot_options_by_name() -> None:
    """Empty values are values; what was not given is NULL."""
    ffi, _ = load.abi()
    with HostEnvironment(options={"net.mini.address": "10.0.0.2/24", "a.b": ""}, args="x y") as env:
        def option(name: bytes) -> bytes | None:
            found = env.ptr.boot_option(env.ptr, name)
            return ffi.string(found) if found else None
        assert option(b"net.mini.address") == b"10.0.0.2/24"
        assert option(b"a.b") == b""
        assert option(b"") == b"x y"
        assert option(b"a") is None
    with HostEnvironment() as env:
        assert not env.ptr.boot_option(env.ptr, b"")


def test_calls_of_a_single_processor() -> None:
    """cpu_start is refused in good order; the features are those of this machine."""
    ffi, _ = load.abi()
    with HostEnvironment() as env:
        assert env.ptr.cpus == 1
        assert env.ptr.cpu_start(env.ptr, 1, ffi.NULL, ffi.NULL, ffi.NULL) == EINVAL
        assert env.ptr.cpu_features & 1  # SSE3: every x86-64 since 2004
        assert ffi.string(env.ptr.platform) == b"host"


def test_panic_outside_a_guarded_call_aborts() -> None:
    """Nothing to unwind to: the message and the end, never a return."""
    program = ("from unikit.platform.host import HostEnvironment\n"
               "env = HostEnvironment()\n"
               "env.ptr.panic_handler(env.ptr, b'deliberate')\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False)
    assert done.returncode == -signal.SIGABRT
    assert done.stderr == "unikit panic: deliberate\n"


def test_closed_environment_says_so() -> None:
    """Use after close is an exception, not a crash; closing twice is fine."""
    env = HostEnvironment()
    assert env.exit_code is None
    env.close()
    env.close()
    for use in (lambda: env.ptr, env.wake, env.now_ns, env.wait, lambda: env.console.read()):
        with pytest.raises(Closed):
            use()


def test_nothing_leaks() -> None:
    """Each environment gives its descriptor back."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        HostEnvironment(memory="1M").close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_processors_of_a_process(sanitizer: str, tmp_path: Path) -> None:
    """Each further one is a thread that knows its number, is woken, and ends with the rest."""
    built = subprocess.run(
        ["gcc", "-std=gnu11", "-g", "-O1", "-D_GNU_SOURCE", f"-fsanitize={sanitizer}", f"-I{ROOT}",
         ROOT / "tests/platform/host/processors.c", ROOT / "unikit/platform/host/env.c",
         ROOT / "unikit/rt/host_panic.c", "-pthread", "-o", tmp_path / "processors"],
        capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "processors", "300"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
