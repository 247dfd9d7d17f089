"""Guests on /dev/kvm by themselves: how they end, what they are given, what they cannot do."""

from __future__ import annotations

import gc
import os
import re
import signal
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unikit.errors import GuestExit, ImageError, PlatformError, TimedOut
from unikit.platform.api import (
    BROKE_DEVICE,
    FAULTED,
    PANICKED,
    STOPPED,
    BootImage,
    Machine,
    Segment,
)
from unikit.platform.kvm import Kvm

pytestmark = pytest.mark.kvm
Boot = Callable[..., Machine]


def ends(machine: Machine, timeout: float = 10) -> GuestExit:
    """Return how a machine that must not end well ended."""
    with pytest.raises(GuestExit) as caught:
        machine.wait(timeout)
    return caught.value


def value(machine: Machine, name: str) -> str:
    """Return what a line ``name value`` of the console says."""
    match = re.search(rf"^{name} (.*)$", machine.console.text, re.MULTILINE)
    assert match, machine.console.text
    return match[1]


# ---- how it ends -------------------------------------------------------------------------------

@pytest.mark.parametrize("code", [0, 1, 255, 256, 305419896, 2**31 - 1])
def test_exit_code_has_32_bits(boot: Boot, code: int) -> None:
    """A hypervisor need not cut an exit code to a byte as a process must."""
    assert boot(f"exit {code}").wait(10) == code


def test_negative_exit_code(boot: Boot) -> None:
    """exit() takes an int32_t; its sign survives the doorbell."""
    assert boot(f"exit {2**32 - 7}").wait(10) == -7


def test_returning_from_main_ends_with_that_code(boot: Boot) -> None:
    """unikernel_main's result is the exit code."""
    assert boot("return 3").wait(10) == 3


def test_panic_carries_message_registers_and_names(boot: Boot) -> None:
    """The one thing that is left of a panicked image is its report."""
    error = ends(boot("panic the pool is empty"))
    assert error.reason == "panic" and error.code == PANICKED
    assert "the pool is empty" in str(error)
    assert any("do_panic" in line for line in error.backtrace)
    assert 0x100000 <= error.registers["rip"] < 0x200000


def test_panic_with_a_message_outside_memory(boot: Boot) -> None:
    """A panicking image may be so broken that its message is nonsense."""
    error = ends(boot("bad-panic 18446744073709551000"))
    assert error.reason == "panic" and "is not in memory" in str(error)


def test_smashed_stack_is_a_panic(boot: Boot) -> None:
    """The canary differs from what a loop over the end of an array writes."""
    error = ends(boot("smash"))
    assert error.reason == "panic" and "overwritten" in str(error)


def test_console_lines_ride_on_the_report(boot: Boot) -> None:
    """What an image said before it died usually says why."""
    error = ends(boot("protect 1 4096 4096 2"))
    assert error.console == ("protect 0",)


# ---- the seal ----------------------------------------------------------------------------------

@pytest.mark.parametrize(("verb", "says"), [
    ("write-text", "write to read-only memory at 0x[0-9a-f]+ in the image's code"),
    ("write-constant", "write to read-only memory at 0x[0-9a-f]+ in the image's constants"),
    ("run-data", "execution of non-executable memory at 0x[0-9a-f]+ in the image's data"),
    ("run-stack", "execution of non-executable memory at 0x[0-9a-f]+ in the stack"),
    ("run-heap", "execution of non-executable memory at 0x[0-9a-f]+ in the heap"),
    ("null", "read of the null page at 0x10"),
    ("jump-null", "execution of the null page at 0x0"),
    ("overflow", "stack overflow: write to the guard below the stack"),
    ("peek-tables", "read of the guard below the stack"),
    ("behind-queues", "read of the guard behind the device queues"),
    ("beyond", "read of no memory"),
    ("write-boot", "write to read-only memory at 0x[0-9a-f]+ in the boot page"),
    ("divide", "division by zero"),
    ("undefined", "invalid instruction"),
    ("privileged", "privileged instruction"),
    ("halt", "privileged instruction"),
    ("port", "privileged instruction"),
    ("canonical", "non-canonical address"),
])
def test_fault_says_what_was_wrong(boot: Boot, verb: str, says: str) -> None:
    """Every way out of the seal ends the guest with one sentence that names the place."""
    error = ends(boot(verb))
    assert error.reason == "fault" and error.code == FAULTED
    assert re.search(says, str(error)), str(error)


@pytest.mark.parametrize("verb", ["syscall", "interrupt"])
def test_there_is_no_kernel_to_call(boot: Boot, verb: str) -> None:
    """SYSCALL and INT lead nowhere; they must not lead to more privilege either."""
    assert ends(boot(verb)).reason == "fault"


def test_fault_names_its_function(boot: Boot) -> None:
    """Frame pointers and the symbols beside the image give a backtrace without a debugger."""
    error = ends(boot("run-stack"))
    assert any("do_run_stack" in line for line in error.backtrace)
    deep = ends(boot("overflow"))
    assert sum("deeper" in line for line in deep.backtrace) > 20


# ---- memory ------------------------------------------------------------------------------------

@pytest.mark.parametrize("memory", [
    128 << 10, 200_000, 1 << 20, (1 << 20) + 4096, (2 << 20) - 4096, 3 << 20, (4 << 20) + 12288,
    16 << 20, 33 << 20])
def test_all_memory_is_there_and_zero(boot: Boot, memory: int) -> None:
    """Page tables for odd sizes: each heap page can be written, and was zero before."""
    machine = boot("fill", memory=memory)
    assert machine.wait(20) == 0


def test_large_memory_costs_only_what_is_touched(boot: Boot) -> None:
    """64 GiB of guest memory on a smaller host: untouched pages and their tables cost nothing."""
    machine = boot("facts", memory=64 << 30)
    assert machine.wait(10) == 0
    assert int(value(machine, "heap").split()[1]) > 60 << 30
    assert machine.stats()["resident_bytes"] < 1 << 20


@pytest.mark.exercises("huge pages")
def test_huge_pages_back_the_heap(boot: Boot) -> None:
    """The middle of the heap lies on huge pages where it was asked for, and works the same."""
    machine = boot("fill", memory=32 << 20, platform=Kvm(huge_pages="on"))
    assert machine.wait(20) == 0


def test_too_little_memory_is_refused_with_the_amount(boot: Boot) -> None:
    """The person learns what would do, and that amount does."""
    with pytest.raises(ImageError, match=r"needs at least (\d+) KiB") as caught:
        boot("", memory=64 << 10)
    least = int(re.search(r"needs at least (\d+) KiB", str(caught.value))[1])  # type: ignore[index]
    assert boot("", memory=least << 10).wait(10) == 0
    with pytest.raises(ImageError):
        boot("", memory=(least - 4) << 10)


def test_more_memory_than_any_guest_has_is_refused(boot: Boot) -> None:
    """The page tables have a limit; it is said, not met by accident."""
    with pytest.raises(ImageError, match="at most 256 GiB"):
        boot("", memory=1 << 40)


@pytest.mark.parametrize("change", [
    {"address": 0xff000}, {"address": 1 << 45}, {"size": 1 << 45}, {"executable": True}])
def test_lying_segments_are_refused(kvm: None, probe: BootImage, change: dict[str, int]) -> None:
    """Another loader may hand over segments that nobody checked."""
    import dataclasses
    segments = list(probe.segments)
    segments[-1] = dataclasses.replace(segments[-1], **change)
    with pytest.raises(ImageError):
        Kvm().boot(dataclasses.replace(probe, segments=tuple(segments)), memory=4 << 20)


def test_overlapping_segments_and_foreign_entry_are_refused(kvm: None, probe: BootImage) -> None:
    """Two permissions for one page, or an entry outside the code, cannot be."""
    import dataclasses
    double = (*probe.segments, Segment(probe.segments[-1].address, b"x", 1, True, False))
    with pytest.raises(ImageError, match="overlaps"):
        Kvm().boot(dataclasses.replace(probe, segments=double), memory=4 << 20)
    with pytest.raises(ImageError, match="does not lie in the image's code"):
        Kvm().boot(dataclasses.replace(probe, entries={"kvm": 0x900000}), memory=4 << 20)
    with pytest.raises(ImageError, match="no entry for kvm"):
        Kvm().boot(dataclasses.replace(probe, entries={"linux": 0x100000}), memory=4 << 20)


def test_too_many_boot_options_are_refused(boot: Boot) -> None:
    """The boot page has an end."""
    with pytest.raises(ImageError, match="boot options take"):
        boot("", options={"a": "x" * 5000})


def test_released_memory_goes_back_to_the_host_and_reads_zero(boot: Boot) -> None:
    """page_release is a promise about contents and about the host's memory."""
    machine = boot("release", memory=16 << 20)
    machine.console.expect("full")
    before = machine.stats()["resident_bytes"]
    machine.console.write("x")
    machine.console.expect("refused -2 -2 -2")
    assert before > 7 << 20  # type: ignore[operator]
    assert machine.stats()["resident_bytes"] < 2 << 20  # type: ignore[operator]
    machine.console.write("x")
    assert machine.wait(10) == 0


@pytest.mark.parametrize("offset", [4096, 2 << 20, 3 << 20])
@pytest.mark.parametrize("size", [4096, 8192, (2 << 20) + 8192])
@pytest.mark.parametrize(("access", "verb", "says"), [
    (1, 1, ""), (1, 2, "write to read-only memory"), (1, 3, ""),
    (0, 1, "read of protected memory"), (0, 3, ""), (3, 2, "")])
def test_page_protect(boot: Boot, offset: int, size: int, access: int, verb: int,
                      says: str) -> None:
    """Access changes for exactly the pages named, within small and large pages, there and back."""
    machine = boot(f"protect {access} {offset} {size} {verb}", memory=12 << 20)
    if says:
        error = ends(machine)
        assert error.reason == "fault" and says in str(error), str(error)
    else:
        assert machine.wait(10) == 0


# ---- what the guest is given -------------------------------------------------------------------

def test_facts(boot: Boot) -> None:
    """Options by exact name, the platform's name, a feature word that is not empty."""
    machine = boot("facts", options={"a.b": "c=d e"})
    assert machine.wait(10) == 0
    assert value(machine, "platform").startswith("kvm cpus 1 features ")
    assert int(value(machine, "platform").split()[-1], 16) & (1 << 4)
    assert value(machine, "option") == "c=d e none"
    assert value(machine, "network") == "0"


def test_every_boot_is_different(boot: Boot) -> None:
    """Randomness, canary, stack and heap positions come from the boot's entropy."""
    seen: dict[str, set[str]] = {}
    for _ in range(6):
        machine = boot("facts", memory=16 << 20)
        assert machine.wait(10) == 0
        for name in ("random", "guard", "stack", "heap"):
            seen.setdefault(name, set()).add(value(machine, name))
    assert len(seen["random"]) == len(seen["guard"]) == 6
    assert len(seen["stack"]) >= 4 and len(seen["heap"]) >= 4
    assert all(guard.endswith("00") for guard in seen["guard"])


def test_clock_is_the_hosts(boot: Boot) -> None:
    """now_ns is CLOCK_MONOTONIC of the host, wall_ns its wall clock; neither runs backwards."""
    before = time.monotonic_ns(), time.time_ns()
    machine = boot("clock")
    assert machine.wait(10) == 0
    after = time.monotonic_ns(), time.time_ns()
    assert value(machine, "back") == "0"
    assert before[0] - 50_000 <= int(value(machine, "now")) <= after[0] + 50_000
    assert before[1] - 5_000_000 <= int(value(machine, "wall")) <= after[1] + 5_000_000


def test_deadlines_are_met(boot: Boot) -> None:
    """A sleep of 300 us ends neither early nor a timer slack late."""
    late = []
    for _ in range(3):
        machine = boot("sleep 300 50")
        assert machine.wait(20) == 0
        late.append(int(value(machine, "late").split()[0]))
    assert statistics.median(late) < 1_000_000


def test_idle_costs_nothing(boot: Boot) -> None:
    """An idle guest sleeps in the kernel: no exits, no processor time."""
    machine = boot("idle")
    machine.console.expect("idle")
    time.sleep(0.05)
    before = machine.stats()
    time.sleep(0.3)
    after = machine.stats()
    assert after["exits_idle"] == before["exits_idle"]
    assert after["cpu_ns"] - before["cpu_ns"] < 1_000_000  # type: ignore[operator]


# ---- console -----------------------------------------------------------------------------------

def test_large_output_arrives_whole(boot: Boot) -> None:
    """A megabyte in odd pieces; nothing is lost or doubled while the reader keeps up."""
    chunks: list[bytes] = []
    machine = boot("output 1000003", sink=chunks.append)
    assert machine.wait(20) == 0
    block = bytes(ord("\n") if i % 64 == 63 else ord("a") + i % 26 for i in range(5000))
    assert b"".join(chunks) == (block * 201)[:1000003]


def test_slow_reader_does_not_hang_the_guest(boot: Boot) -> None:
    """A sink that stalls for good costs output, not the machine: the guest learns of the loss."""
    gate = threading.Event()
    machine = boot("output 2000000", sink=lambda data: gate.wait(20))
    time.sleep(1.0)
    assert machine.stats()["console_bytes_dropped"] > 0  # type: ignore[operator]
    gate.set()
    machine.stop()


def test_input_is_echoed(boot: Boot) -> None:
    """Far more input than the device has buffers for, taken as the guest reads."""
    machine = boot("echo")
    text = "".join(f"{i:05} " for i in range(3334))
    sent, end = 0, time.monotonic() + 20
    while sent < len(text) and time.monotonic() < end:
        sent += machine.console.write(text[sent:])
    machine.console.expect(text[-100:])
    machine.console.write("!")
    assert machine.wait(10) == 0
    assert machine.console.text == text + "[20004]"


def test_input_before_the_guest_reads_waits(boot: Boot) -> None:
    """What is typed while a guest boots is not lost."""
    machine = boot("echo")
    assert machine.console.write("early!") == 6
    assert machine.wait(10) == 0
    assert machine.console.text == "[0]"


def test_input_after_the_end_is_not_taken(boot: Boot) -> None:
    """0 bytes taken is how a caller learns that nobody reads."""
    machine = boot("exit 0")
    machine.wait(10)
    assert machine.console.write("x") == 0
    machine.close()
    assert machine.console.write("x") == 0


# ---- misuse of the monitor ---------------------------------------------------------------------

@pytest.mark.parametrize(("verb", "says"), [
    ("bell 63", "call 63 does not exist"), ("bell 1000", "call 1000 does not exist"),
    ("bell-load", "only stores"), ("bell-byte", "a store of 1 bytes"),
    ("bell-odd", "a store of 4 bytes at 0xff012"), ("bell-wide", "a store of 8 bytes"),
    ("bad-page-call", "page call 9"),
    ("ring 0 77", "index 77 is more than 4 ahead"), ("ring 0 65535", "more than 4 ahead"),
    ("ring 1 4", "descriptor 4 does not exist"), ("ring 1 65535", "descriptor 65535"),
    ("ring 2 0", "no memory of the image"), ("ring 2 18446744073709551615", "no memory"),
    ("ring 2 1044480", "no memory"), ("ring 3 4294967295", "no memory"),
    ("ring 4 1", "has flags 0x1"), ("ring 4 2", "has flags 0x2"), ("ring 4 4", "has flags 0x4"),
    ("ring 5 0", "no memory of the image"),
])
def test_broken_device_contract(boot: Boot, verb: str, says: str) -> None:
    """A guest that spoils its queues or the doorbell ends; the monitor does not."""
    error = ends(boot(verb))
    assert error.reason == "device" and error.code == BROKE_DEVICE
    assert says in str(error), str(error)


def test_input_never_overwrites_the_image(boot: Boot) -> None:
    """A guest that offers its own code as an input buffer is found out by whoever types."""
    machine = boot("ring 9 0 rx")
    machine.console.expect("ready")
    machine.console.write("x" * 1000)
    error = ends(machine)
    assert error.reason == "device" and "no device buffer" in str(error)


# ---- from outside ------------------------------------------------------------------------------

@pytest.mark.parametrize("verb", ["spin", "idle"])
def test_stop(boot: Boot, verb: str) -> None:
    """A guest that never calls is stopped as quickly as one that sleeps."""
    machine = boot(verb)
    machine.console.expect(verb)
    start = time.monotonic()
    machine.stop()
    assert time.monotonic() - start < 1
    assert machine.wait(1) == STOPPED
    machine.stop()
    assert not machine.running


def test_sink_may_stop_its_machine(boot: Boot) -> None:
    """Whoever watches the output may end the machine because of it, but not free it."""
    said: list[str] = []
    ready = threading.Event()

    def watch(data: bytes) -> None:
        ready.wait(10)
        with pytest.raises(PlatformError, match="cannot close it"):
            machine.close()
        machine.stop()
        said.append("stopped")

    machine = boot("spin", sink=watch)
    ready.set()
    assert machine.wait(10) == STOPPED and said == ["stopped"]


def test_machine_that_was_never_closed_is_pointed_at(kvm: None, probe: BootImage) -> None:
    """What is not closed keeps its memory; the warning says whose it is."""
    machine = Kvm().boot(probe, memory=1 << 20, name="forgotten")
    machine.wait(10)
    with pytest.warns(ResourceWarning, match="forgotten was never closed"):
        machine.__del__()  # type: ignore[attr-defined]
    machine.close()


def test_wait_times_out(boot: Boot) -> None:
    """A deadline of the caller is not the end of the guest."""
    machine = boot("idle")
    with pytest.raises(TimedOut):
        machine.wait(0.05)
    assert machine.running


def test_close_while_running_and_twice(boot: Boot) -> None:
    """close() is idempotent and needs no stop() before it; the numbers stay."""
    machine = boot("spin")
    machine.console.expect("spin")
    machine.close()
    machine.close()
    assert machine.stats()["exits_kick"] == 1


def test_python_runs_while_a_guest_spins(boot: Boot) -> None:
    """The interpreter lock is free while a guest runs."""
    machine = boot("spin")
    machine.console.expect("spin")
    count, end = 0, time.monotonic() + 0.2
    while time.monotonic() < end:
        count += 1
    assert count > 10_000
    machine.stop()


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def mappings() -> int:
    """Return how many mappings this process has."""
    return Path("/proc/self/maps").read_text().count("\n")


def test_machines_leave_nothing_behind(boot: Boot, probe: BootImage) -> None:
    """Descriptors, threads and mappings are back to what they were after many machines."""
    def some(count: int) -> None:
        for index in range(count):
            verb = ("", "panic", "spin", "bell 9", "null")[index % 5]
            with Kvm().boot(probe, memory=1 << 20, options={"": verb}) as machine:
                if verb == "spin":
                    machine.console.expect("spin")
    some(5)
    gc.collect()
    before = descriptors(), threading.active_count(), mappings()
    some(40)
    gc.collect()
    after = descriptors(), threading.active_count(), mappings()
    assert after[:2] == before[:2]
    assert after[2] <= before[2] + 4


def pss() -> int:
    """Return the memory of this process, bytes, shared pages in proportion."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) << 10  # type: ignore[index]


def test_ten_idle_machines_are_small(boot: Boot) -> None:
    """Ten idle guests of 16 MiB in one process take at most 256 KiB each."""
    first = boot("idle", memory=16 << 20)
    first.console.expect("idle")
    before = pss()
    machines = [boot("idle", memory=16 << 20) for _ in range(10)]
    for machine in machines:
        machine.console.expect("idle")
    assert (pss() - before) / 10 <= 256 << 10
    assert all(machine.running for machine in machines)


SCRIPT = """
    import sys
    from unikit.image import elf
    from unikit.platform.kvm import Kvm
    with Kvm().boot(elf.load(sys.argv[1]), memory=4 << 20, options={"": sys.argv[2]}) as machine:
        machine.console.expect(sys.argv[2])
        print("up", flush=True)
        machine.wait()
"""


def child(probe: BootImage, verb: str) -> subprocess.Popen[str]:
    """Start a Python process that runs a guest and waits for its end."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT), probe.path, verb],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def test_interrupt_reaches_python_at_once(kvm: None, probe: BootImage) -> None:
    """Ctrl-C while a guest spins is an ordinary KeyboardInterrupt, and everything is cleaned up."""
    process = child(probe, "spin")
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert time.monotonic() - start < 3
    assert "KeyboardInterrupt" in errors and process.returncode != 0


def test_kill_leaves_nothing(kvm: None, probe: BootImage) -> None:
    """SIGKILL of the monitor ends its guest: everything hangs on the process."""
    process = child(probe, "spin")
    process.kill()
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL
    assert not Path(f"/proc/{process.pid}").exists()


def test_boot_after_fork(kvm: None, probe: BootImage) -> None:
    """A child of a process that has booted guests opens /dev/kvm anew and can boot its own."""
    code = textwrap.dedent("""
        import os, sys
        from unikit.image import elf
        from unikit.platform.kvm import Kvm
        image = elf.load(sys.argv[1])
        def once():
            with Kvm().boot(image, memory=1 << 20, options={"": "exit 7"}) as machine:
                return machine.wait(10)
        assert once() == 7
        child = os.fork()
        if child == 0:
            os._exit(once())
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    done = subprocess.run([sys.executable, "-c", code, probe.path], timeout=20, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 7


def told(prepare: Callable[[], object]) -> str:
    """Return what probe() says in a child process that ``prepare`` has limited."""
    Kvm.probe()  # what it needs is loaded
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            prepare()
            os.write(write, (Kvm.probe() or "it works").encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.root
def test_probe_without_permission_says_what_helps(kvm: None) -> None:
    """An ordinary user outside the device's group learns the one command that lets him in."""
    if Path("/dev/kvm").stat().st_mode & 0o006 == 0o006:
        pytest.skip("/dev/kvm is open to everybody")
    said = told(lambda: (os.setgroups([]), os.setgid(65534), os.setuid(65534)))
    assert "no permission on /dev/kvm" in said and "usermod -aG kvm" in said


@pytest.mark.root
def test_probe_without_device_says_what_helps(kvm: None, tmp_path: Path) -> None:
    """A machine without virtualization learns what would bring /dev/kvm about."""
    said = told(lambda: os.chroot(tmp_path))
    assert "there is no /dev/kvm" in said and "modprobe" in said
