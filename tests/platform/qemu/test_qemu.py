"""Images under QEMU: how they end, what they cannot do, and the network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from unikit.errors import GuestExit, ImageError, InvalidArgument
from unikit.image import Image
from unikit.net.netif.user import User
from unikit.platform.api import FAULTED, PANICKED, STOPPED
from unikit.platform.qemu import Qemu, accelerator
from unikit.platform.qemu.machine import command_line

needs_qemu = pytest.mark.skipif(Qemu.probe() is not None, reason="QEMU is not installed")
SOURCE = Path(__file__).with_name("faults.c")
TIMEOUT = 60


@pytest.fixture(scope="module")
def faults() -> Image:
    """An application that goes wrong as asked."""
    return Image("faults", [SOURCE], sched="coop", net=None, platforms=("pvh",))


def end(image: Image, command: str, **more: object) -> GuestExit:
    with image.boot("qemu", args=command, **more) as machine, \
            pytest.raises(GuestExit) as caught:
        machine.wait(TIMEOUT)
    return caught.value


@needs_qemu
@pytest.mark.parametrize("command,said", [
    ("null", "write to the null page at 0x8"),
    ("text", "write to read-only memory"),
    ("constant", "write to read-only memory"),
    ("heap", "execution of non-executable memory"),
    ("tables", "read of protected memory"),
    ("stack", "stack overflow"),
    ("task", "stack overflow in task 'digger'"),
    ("cli", "privileged instruction"),
    ("port", "privileged instruction"),
])
def test_what_an_image_must_not_do_ends_it(faults: Image, command: str, said: str) -> None:
    """It runs at CPL 3 on tables it cannot see, and whoever started it reads why it ended."""
    error = end(faults, command)
    assert said in str(error)
    assert (error.reason, error.code) == ("fault", FAULTED)
    assert error.registers["rip"] != 0
    assert any("init_application" in line or "overrun" in line or "descend" in line
               for line in error.backtrace) or command == "heap"


@needs_qemu
def test_a_panic_is_reported(faults: Image) -> None:
    """With its message and the functions that led there."""
    error = end(faults, "panic")
    assert "panicked: as asked for" in str(error)
    assert error.code == PANICKED
    assert any("kit_panic" in line for line in error.backtrace)


@needs_qemu
@pytest.mark.parametrize("command,code", [("", 0), ("code", 200), ("large", 123456)])
@pytest.mark.parametrize("who", ["kvm", "tcg"])
def test_codes_arrive_whole(faults: Image, command: str, code: int, who: str) -> None:
    """All 32 bits, under both accelerators."""
    if who == "kvm" and accelerator.best()[0] != "kvm":
        pytest.skip(accelerator.best()[1])
    with faults.boot(Qemu(accelerator=who), args=command) as machine:
        assert machine.wait(TIMEOUT) == code
        assert machine.stats()["accelerator"] == who


@needs_qemu
def test_the_web_server_serves() -> None:
    """A page over virtio-net, fetched by a client that nobody here wrote; then it is stopped."""
    with User(forward="127.0.0.1:0:80").open() as net, \
            Image("http", platforms=("pvh",)).boot("qemu", netif=net) as machine:
        machine.console.expect("listening on 80", TIMEOUT)
        port = net.ports[0].port
        for _ in range(20):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT) as answer:
                assert b"<html" in answer.read()
        machine.stop()
        assert machine.wait(TIMEOUT) == STOPPED


@needs_qemu
def test_it_boots_without_unikit() -> None:
    """Plain QEMU with its own user network: the documented command."""
    path = Image("http", platforms=("pvh",)).build()
    words = ["qemu-system-x86_64", "-M", "microvm,acpi=off", "-cpu", "max", "-m", "64",
             "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
             "-kernel", str(path), "-netdev", "user,id=net",
             "-device", "virtio-net-device,netdev=net",
             "-append", "net.mini.address=10.0.2.15/24"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"http: listening on 80\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@needs_qemu
@pytest.mark.parametrize("device", [True, False])
def test_random_bytes_are_never_made_up(device: bool) -> None:
    """A processor without RDRAND: from virtio-rng, and not at all without it."""
    path = Image("random", [SOURCE.with_name("random.c")], net=None, platforms=("pvh",)).build()
    words = ["qemu-system-x86_64", "-M", accelerator.BOARD, "-accel", "tcg",
             "-cpu", "qemu64", "-m", "16", "-nodefaults", "-display", "none", "-no-reboot",
             "-serial", "stdio", "-kernel", str(path),
             "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    if device:
        words += ["-object", "rng-builtin,id=r", "-device", "virtio-rng-device,rng=r"]
    seen = {subprocess.run(words, capture_output=True, text=True, check=False,
                           stdin=subprocess.DEVNULL, timeout=TIMEOUT).stdout for _ in range(2)}
    if device:
        assert len(seen) == 2 and all(re.fullmatch(r"random 0 [0-9a-f]{16}\n", each)
                                      for each in seen)
    else:
        assert seen == {"random -15\n"}


@needs_qemu
def test_an_image_that_sleeps_uses_no_processor() -> None:
    """It halts; QEMU's own timers are all that runs."""
    with User().open() as net, \
            Image("http", platforms=("pvh",)).boot("qemu", netif=net) as machine:
        machine.console.expect("listening on 80", TIMEOUT)
        before = int(machine.stats()["cpu_ns"])
        time.sleep(1)
        assert int(machine.stats()["cpu_ns"]) - before < 200_000_000


@needs_qemu
def test_nothing_outlives_its_launcher(faults: Image) -> None:
    """The machine ends with the thread that holds it, however that ends."""
    program = ("import sys, time\nfrom unikit.image import Image\n"
               "machine = Image('sleeper', [sys.argv[1]], net=None, platforms=('pvh',))"
               ".boot('qemu')\nprint(machine.pid, flush=True)\ntime.sleep(60)\n")
    source = SOURCE.with_name("sleeper.c")
    child = subprocess.Popen(["python3", "-c", program, str(source)], stdout=subprocess.PIPE,
                             cwd=Path(__file__).parents[3])
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    child.kill()
    child.wait()
    child.stdout.close()
    if shutil.which("setpriv") is None:
        os.kill(pid, 9)
        pytest.skip("no setpriv")
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # ended, and whoever inherited it has not looked yet
            return
        time.sleep(0.05)
    raise AssertionError(f"QEMU {pid} still runs")


@pytest.mark.fast
def test_an_image_without_the_entry_is_refused() -> None:
    """Before QEMU is started."""
    with pytest.raises(ImageError, match="no entry for pvh.*--for pvh"):
        Image("hello", platforms=("linux",)).boot("qemu")


@needs_qemu
def test_too_little_memory_is_refused(faults: Image) -> None:
    """With how much it takes."""
    with pytest.raises(ImageError, match=r"at least \d+K"):
        faults.boot("qemu", memory="128K")


@pytest.mark.fast
def test_missing_qemu_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the command that mends it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install qemu-system-x86" in str(Qemu.probe())


@pytest.mark.fast
def test_options_with_spaces_are_refused() -> None:
    """The command line has no way to say them."""
    assert command_line({"a.b": "1", "": "two words"}) == "a.b=1 -- two words"
    with pytest.raises(InvalidArgument, match="spaces"):
        command_line({"a.b": "1 2"})


@needs_qemu
def test_a_kvm_that_does_not_work_is_passed_over(monkeypatch: pytest.MonkeyPatch,
                                                 tmp_path: Path) -> None:
    """The tiny image decides, not the device; and what was found out is remembered."""
    monkeypatch.setenv("UNIKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(accelerator, "_runs", lambda who: False)
    accelerator.best.cache_clear()
    try:
        assert accelerator.best()[0] == "tcg"
        monkeypatch.setattr(accelerator, "_runs", lambda who: True)
        accelerator.best.cache_clear()
        assert accelerator.best()[0] == "tcg" or not Path("/dev/kvm").exists()
    finally:
        accelerator.best.cache_clear()


@needs_qemu
def test_qemu_itself_runs_the_tiny_image() -> None:
    """So a host where nothing else works is told from an image that does not work."""
    assert accelerator._runs("tcg")
