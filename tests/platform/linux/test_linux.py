"""The same image as a Linux process: environment, confinement, ends, machine."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unikit.errors import GuestExit, ImageError, TimedOut
from unikit.image import elf
from unikit.platform.api import STOPPED, BootImage, Machine
from unikit.platform.api import probe as ask
from unikit.platform.linux import Linux

pytestmark = pytest.mark.fast
Boot = Callable[..., Machine]


def facts(boot: Boot, **more: object) -> dict[str, list[str]]:
    """Boot ``facts`` and return its lines by first word."""
    machine = boot("facts", **more)
    assert machine.wait(10) == 0
    return {line.split()[0]: line.split()[1:] for line in machine.console.lines()}


def test_it_works_here() -> None:
    """Every Linux on x86-64 can run images as processes."""
    assert ask(Linux) is None


@pytest.mark.parametrize("code", [0, 1, 77, 134, 139, 255])
def test_exit_code_is_the_images_own(boot: Boot, code: int) -> None:
    """Also codes that look like signals: only the report tells a panic from exit(134)."""
    assert boot(f"exit {code}").wait(10) == code


def test_an_image_in_the_working_folder_is_not_looked_for_on_the_path(
        probe: BootImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a folder is a path all the same."""
    monkeypatch.chdir(probe.path.parent)
    image = elf.load(Path(probe.path.name))
    with Linux().boot(image, memory=1 << 20, options={"": "exit 3"}) as machine:
        assert machine.wait(10) == 3


def test_exit_code_keeps_eight_bits(boot: Boot) -> None:
    """What a Linux process can hand over."""
    assert boot("exit 770").wait(10) == 2
    assert boot("exit 256").wait(10) == 1, "a failure must not look like success"


def test_argument_string_and_options_arrive(boot: Boot) -> None:
    """The argument string as one text, the last value of an option, "" for none."""
    machine = boot("two  words", options={})
    machine.wait(10)
    assert machine.console.text == "argument two  words\n"
    seen = facts(boot, options={"net.mini.address": "10.0.0.2/24", "a.b": "x=y"})
    assert seen["option"] == ["10.0.0.2/24", "x=y"]


@pytest.mark.parametrize("memory", [64 << 10, 1 << 20, 16 << 20, (16 << 20) + 4095])
def test_memory_counts_image_and_stack(boot: Boot, probe: BootImage, memory: int) -> None:
    """What the image gets in all stays within the size that was given, and is zeroed."""
    seen = facts(boot, memory=memory)
    last = probe.segments[-1]
    image = -(-(last.address + last.size - 0x100000) // 4096) * 4096
    heap = int(seen["heap"][1])
    assert heap % 4096 == 0
    assert memory - image - (256 << 10) - 8192 <= heap + 0 <= memory - image - (16 << 10)
    assert seen["dirty"] == ["0", "aligned", "1"]


def test_places_and_secrets_differ_from_run_to_run(boot: Boot) -> None:
    """Heap, stack, canary and entropy are chosen anew; the canary starts with a zero byte."""
    runs = [facts(boot) for _ in range(3)]
    for name, position in (("heap", 0), ("stack", 0), ("guard", 0), ("random", 1)):
        assert len({run[name][position] for run in runs}) == 3, name
    assert all(int(run["guard"][0], 16) & 0xff == 0 for run in runs)
    assert all(run["random"][0] == "0" for run in runs)


def test_places_differ_without_the_kernels_help(probe: BootImage) -> None:
    """Where randomisation is switched off (setarch -R), the image still chooses its own."""
    command = ["setarch", "-R", str(probe.path), "--", "facts"]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for _ in range(2)]
    heaps = {re.search(r"heap (\S+)", run)[1] for run in runs}  # type: ignore[index]
    assert len(heaps) == 2


def test_clock_runs_and_waits_keep_their_deadline(boot: Boot) -> None:
    """Monotonic, close to the host's clock, and cheap because of the vDSO."""
    before, wall = time.monotonic_ns(), time.time_ns()
    machine = boot("clocks")
    assert machine.wait(10) == 0
    after, text = time.monotonic_ns(), machine.console.text
    now, start, there = map(int, re.search(r"now (\d+) start (\d+) wall (\d+)", text).groups())
    assert before <= start <= now <= after
    assert wall <= there <= time.time_ns()
    assert "forward 1" in text
    woken, late = map(int, re.search(r"woken (\d+) late (\d+)", text).groups())
    assert woken == 0 and late < 10**9
    assert "past 0" in text


def test_pages_are_given_back_and_protected(boot: Boot) -> None:
    """Released pages read as zero; wrong ranges are refused; a protected page faults."""
    with pytest.raises(GuestExit, match="write to protected memory"):
        machine = boot("pages")
        machine.wait(10)
    assert machine.console.lines() == [
        "release 0 0", "odd -2 -2 -2", "beyond -2 -2", "protect 0 0", "all 0"]


def test_console_carries_input_and_its_end(boot: Boot) -> None:
    """What is typed comes back through the image, which sleeps in between."""
    machine = boot("echo")
    for word in ("one\n", "two\n"):
        assert machine.console.write(word) == 4
        machine.console.expect(word)
    assert machine.running
    with pytest.raises(TimedOut):
        machine.wait(0.01)


def test_end_of_input_is_seen_once(probe: BootImage) -> None:
    """A closed standard input wakes the image and must not make it spin."""
    done = subprocess.run([probe.path, "--", "echo"], input=b"text\n", capture_output=True,
                          check=False)
    assert (done.stdout, done.returncode) == (b"text\nclosed\n", 4)


def test_nothing_is_lost_while_someone_reads(boot: Boot) -> None:
    """Three megabytes at full speed through a pipe of 64 KiB arrive complete."""
    machine = boot("flood")
    machine.console._limit = 4 << 20
    assert machine.wait(30) == 0
    assert len(machine.console.text) == 3_000_000


def test_full_pipe_does_not_stop_the_image(probe: BootImage) -> None:
    """Nobody reads: writes are cut short after a bounded patience, and the image goes on."""
    process = subprocess.Popen([probe.path, "--", "flood"], stdout=subprocess.PIPE)
    assert process.wait(10) == 1
    assert process.stdout is not None
    assert len(process.stdout.read()) <= 1 << 16
    process.stdout.close()


def test_closed_output_does_not_end_the_image(probe: BootImage) -> None:
    """No SIGPIPE: a server outlives the terminal it was started from."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([probe.path, "--", "flood"], stdout=writer, check=False)
    os.close(writer)
    assert done.returncode == 1
    script = f"exec {probe.path} -- exit 3 <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], check=False).returncode == 3


def test_panic_carries_text_registers_and_backtrace(boot: Boot) -> None:
    """Everything a person needs, symbolised, from one exception."""
    with pytest.raises(GuestExit) as caught:
        boot("panic").wait(10)
    error = caught.value
    assert (error.reason, error.code) == ("panic", 134)
    assert str(error).endswith("panicked: deliberate: 100 % meant")
    assert error.registers["rip"] >= 0x100000 and error.registers["rsp"] != 0
    assert "kit_linux_panic" in error.backtrace[0]
    assert any("unikernel_main" in line or "kit_linux_main" in line for line in error.backtrace)


@pytest.mark.parametrize(("kind", "vector", "words"), [
    ("null", 14, "write to the null page at 0x8"),
    ("text", 14, "write to read-only memory"), ("text", 14, "in the image's code"),
    ("constant", 14, "in the image's constants"), ("heap", 14, "execution of non-executable"),
    ("data", 14, "execution of non-executable memory"), ("data", 14, "in the image's data"),
    ("stack", 14, "stack overflow: write to the guard"), ("before", 14, "write to protected"),
    ("behind", 14, "write to protected"), ("invalid", 6, "invalid instruction"),
    ("divide", 0, "division error"), ("privileged", 13, "privileged instruction"),
    ("breakpoint", 3, "breakpoint"),
])
def test_faults_are_reported(boot: Boot, kind: str, vector: int, words: str) -> None:
    """W^X, guard pages, page 0 and traps: each with its vector, address and place."""
    with pytest.raises(GuestExit) as caught:
        boot(f"fault {kind}").wait(10)
    error = caught.value
    assert (error.reason, error.code) == ("fault", 139)
    assert words in str(error) and f"(vector {vector})" in str(error)
    assert any("kit_linux_main" in line or "unikernel_main" in line or "overflow" in line
               for line in error.backtrace)


def test_overwritten_frame_panics(boot: Boot) -> None:
    """The stack protector is armed with the random canary before any C runs."""
    with pytest.raises(GuestExit, match="a stack frame was overwritten"):
        boot("fault smash").wait(10)


def test_lost_stack_pointer_still_reports(boot: Boot) -> None:
    """The handler has a stack of its own."""
    with pytest.raises(GuestExit, match="faulted"):
        boot("lost").wait(10)


@pytest.mark.exercises("seccomp")
@pytest.mark.parametrize(("words", "name"), [
    ("59 0 0 0", "execve"), ("257 0 0 0", "openat"), ("2 0 0 0", "open"), ("41 1 1 0", "socket"),
    ("57 0 0 0", "fork"), ("56 0 0 0", "clone"), ("9 0 4096 7", "mmap"), ("62 1 0 0", "kill"),
    ("101 0 0 0", "ptrace"), ("16 0 0 0", "ioctl"), ("72 0 0 0", "fcntl"),
    ("13 2 0 0", "sigaction"),
    ("157 38 0 0", "prctl"), ("317 0 0 0", "seccomp"), ("0 7 0 0", "read of a foreign file"),
    ("1 7 0 0", "write to a foreign file"), ("19 0 0 0", "readv without a network"),
    ("10 1048576 4096 5", "mprotect with PROT_EXEC"), ("28 0 4096 3", "madvise WILLNEED"),
    ("1073741863 0 0 0", "x32 getpid"), ("425 0 0 0", "io_uring_setup"),
])
def test_seccomp_kills_every_other_call(boot: Boot, words: str, name: str) -> None:
    """A process that is talked into foreign code can do nothing but what images do."""
    with pytest.raises(GuestExit, match="seccomp") as caught:
        boot(f"call {words}").wait(10)
    assert caught.value.code == 128 + signal.SIGSYS, name


@pytest.mark.exercises("seccomp")
@pytest.mark.parametrize(("words", "result"), [
    ("0 0 0 0", "0"), ("1 2 0 0", "0"), ("228 1 0 0", "-14"), ("318 0 0 0", "0"),
    ("28 0 0 4", "0"), ("10 0 0 3", "0"),
])
def test_seccomp_leaves_the_calls_of_the_environment(boot: Boot, words: str, result: str) -> None:
    """The filter must not be so tight that the environment breaks on another kernel."""
    machine = boot(f"call {words}")
    assert machine.wait(10) == 0
    assert f"result {result}\n" in machine.console.text


def test_seccomp_can_be_switched_off_to_debug(probe: BootImage) -> None:
    """Only on the process's own command line, by the person who starts it."""
    done = subprocess.run([probe.path, "seccomp=off", "--", "call 39 0 0 0"], capture_output=True,
                          text=True, check=True)
    assert re.search(r"result [1-9]", done.stdout)


def test_idle_uses_no_processor_time(boot: Boot) -> None:
    """An image without work sleeps in the kernel."""
    machine = boot("idle")
    machine.console.expect("idle")
    before = machine.stats()["cpu_ns"]
    time.sleep(0.3)
    assert machine.stats()["cpu_ns"] == before


def test_spinning_image_is_stopped(boot: Boot) -> None:
    """Nothing an image does keeps it from being stopped; stopping twice is fine."""
    machine = boot("spin")
    machine.console.expect("spinning")
    machine.stop()
    machine.stop()
    assert not machine.running
    assert machine.wait(1) == STOPPED


def test_stop_after_the_end_changes_nothing(boot: Boot) -> None:
    """The image's own exit code stays."""
    machine = boot("exit 9")
    assert machine.wait(10) == 9
    machine.stop()
    assert machine.wait(1) == 9


def test_killed_from_outside_is_said(boot: Boot) -> None:
    """The out-of-memory killer must not look like the image's own exit."""
    machine = boot("idle")
    machine.console.expect("idle")
    os.kill(machine.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(GuestExit, match="ended from outside: Killed") as caught:
        machine.wait(10)
    assert caught.value.code == 137


def test_stats_have_units(boot: Boot) -> None:
    """Counters of a running and of an ended machine."""
    machine = boot("idle")
    machine.console.expect("idle")
    running = machine.stats()
    assert 4096 < running["resident_bytes"] < 1 << 20
    assert running["run_ns"] > 0
    machine.stop()
    assert machine.stats()["run_ns"] >= running["run_ns"]


def test_nothing_stays_open(boot: Boot) -> None:
    """A thousand boots must not run out of descriptors or threads."""
    boot("exit").wait(10)
    files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(5):
        with boot("exit") as machine:
            machine.wait(10)
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert threading.active_count() <= threads


def test_foreign_files_are_not_inherited(boot: Boot, tmp_path: Path) -> None:
    """An image sees its console and its network, not what its launcher happens to have open."""
    with (tmp_path / "secret").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        machine = boot("idle")
        machine.console.expect("idle")
        pid = machine.pid  # type: ignore[attr-defined]
        assert sorted(each.name for each in Path(f"/proc/{pid}/fd").iterdir()) == ["0", "1", "2"]
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""


LAUNCHER = """
import sys, time
from unikit.image import elf
from unikit.platform.linux import Linux
machine = Linux().boot(elf.load(sys.argv[1]), memory=1 << 20, options={"": sys.argv[2]})
machine.console.expect(sys.argv[2][:4])
try:
    print(machine.pid, flush=True)
    machine.wait()
except KeyboardInterrupt:
    machine.close()
    sys.exit(130)
"""


def launch(probe: BootImage, argument: str) -> tuple[subprocess.Popen[str], int]:
    """Start another Python that boots the probe; return it and the image's process id."""
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(probe.path), argument],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def gone(pid: int) -> bool:
    """Whether a process ends within a second."""
    for _ in range(100):
        path = Path(f"/proc/{pid}/stat")
        try:
            if path.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("argument", ["idle", "spin"])
def test_nothing_outlives_a_killed_launcher(probe: BootImage, argument: str) -> None:
    """SIGKILL of the launcher takes the image along, also one that spins."""
    process, pid = launch(probe, argument)
    process.kill()
    process.communicate()
    assert gone(pid)


def test_interrupt_ends_launcher_and_image(probe: BootImage) -> None:
    """Ctrl-C reaches the launcher alone, which ends the image in good order."""
    process, pid = launch(probe, "spin")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert gone(pid)


def test_the_thread_that_boots_may_end(boot: Boot) -> None:
    """The kernel ties a child to the thread that made it; that must not be the caller's."""
    machines: list[Machine] = []
    thread = threading.Thread(target=lambda: machines.append(boot("idle")))
    thread.start()
    thread.join()
    machines[0].console.expect("idle")
    time.sleep(0.05)
    assert machines[0].running


def test_too_little_memory_is_an_image_error(boot: Boot) -> None:
    """Said before anything starts, with what would be enough."""
    with pytest.raises(ImageError, match="does not fit into 32768 bytes.*at least"):
        boot("exit", memory=32768)


def test_least_memory_is_enough(boot: Boot) -> None:
    """The number in that message is true."""
    with pytest.raises(ImageError) as caught:
        boot("exit", memory=4096)
    least = int(re.search(r"at least (\d+)K", str(caught.value))[1]) << 10  # type: ignore[index]
    assert boot("exit 3", memory=least).wait(10) == 3


def test_file_that_may_not_be_executed_runs(probe: BootImage, tmp_path: Path) -> None:
    """Images are data to people: a download has no x bit, and /tmp may be mounted noexec."""
    copy = tmp_path / "copy.elf"
    copy.write_bytes(probe.path.read_bytes())
    copy.chmod(stat.S_IRUSR)
    with Linux().boot(elf.load(copy), memory=1 << 20, options={"": "exit 6"}) as machine:
        assert machine.wait(10) == 6


def test_damaged_file_is_an_image_error(probe: BootImage, tmp_path: Path) -> None:
    """A file that changed since it was read is refused by the kernel; say so in our words."""
    copy = tmp_path / "copy.elf"
    copy.write_bytes(probe.path.read_bytes())
    copy.chmod(0o755)
    image = elf.load(copy)
    copy.write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(ImageError, match="not an image that this host can run"):
        Linux().boot(image, memory=1 << 20)


@pytest.mark.parametrize(("words", "message"), [
    (["oops"], "name=value (arguments go after --): oops"),
    (["memory=12X"], "out of range: memory"),
    (["memory="], "out of range: memory"), (["memory=40K"], "out of range: memory"),
    (["net.fd=77"], "not an open file: net.fd"), (["net.fd=0"], "out of range: net.fd"),
    (["memory=99999999999999999999G"], "out of range: memory"),
    (["net.fd=1K"], "not an open file"), (["=x"], "go after --): =x"),
])
def test_bad_command_line_is_refused_in_words(probe: BootImage, words: list[str],
                                              message: str) -> None:
    """A person at a shell gets one line that says what is wrong, and exit code 2."""
    done = subprocess.run([probe.path, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("unikit: ") and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_arguments_after_the_dashes_are_joined(probe: BootImage) -> None:
    """`./image.elf a=b -- one "two three"` just works; the last option of a name wins."""
    words = ["memory=1M", "memory=2M", "--", "one", "two three", "--", "x"]
    done = subprocess.run([probe.path, *words],
                          capture_output=True, text=True, check=True)
    assert done.stdout == "argument one two three -- x\n"
    assert subprocess.run([probe.path, "--"], capture_output=True, text=True,
                          check=True).stdout == "argument -\n"


def test_stopping_what_ends_at_that_moment(boot: Boot) -> None:
    """Whoever is first, stop() and wait() return: the process is reaped in one place only."""
    for number in range(40):
        machine = boot("exit 9")
        if number % 2:
            time.sleep(number * 0.0001)
        machine.stop()
        assert machine.wait(10) in (9, STOPPED)
