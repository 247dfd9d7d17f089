"""Bad input on the command line: one line with cause and remedy, no traceback, a defined status."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from unikit import registry
from unikit.cli import control, main, run
from unikit.errors import (
    CompositionError,
    GuestExit,
    ImageError,
    InvalidArgument,
    NotFound,
    PlatformError,
)
from unikit.image import Image, toolchain
from unikit.image.boot import boot
from unikit.platform.api import BootImage
from unikit.platform.stack import printable

pytestmark = pytest.mark.fast
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".x", "-x", "a b", "a\nb", "x" * 64])
def test_a_machine_name_is_checked_before_anything_is_built(
        name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It becomes a file name of a socket beside those of other machines."""
    assert main(["run", "hello", f"--name={name}"]) == 1
    assert "is no name for a machine" in capsys.readouterr().err
    with pytest.raises(InvalidArgument):
        control.free_name(name, exact=False)


def test_asking_for_an_impossible_machine_finds_none() -> None:
    """A name that no socket can have is not passed to the kernel."""
    for name in ("x" * 300, "a\0b", "a/b", ""):
        with pytest.raises(NotFound, match="no machine called"):
            control.ask(name, "stats")
    assert main(["logs", "x" * 300]) == 1


def test_memory_beyond_64_bits_is_refused(tmp_path: Path) -> None:
    """It would not fit into what the monitor is told."""
    image = BootImage(tmp_path / "x.elf", (), {"linux": 0x100000}, {"name": "x"})
    with pytest.raises(CompositionError, match="more than any machine has"):
        boot(image, "linux", memory="99999999999999999999")


def test_an_unknown_component_lists_what_there_is() -> None:
    """A word without a domain is answered with all ids."""
    with pytest.raises(NotFound, match=r"known: .*alloc\.tlsf"):
        registry.find("nope")


@pytest.mark.parametrize(("error", "said"), [
    (PlatformError(22, "'lo' is no TAP"), "unikit: 'lo' is no TAP\n"),
    (OSError(28, "No space left on device", "/x"), "unikit: No space left on device: /x; free "
     "some, or name other folders (UNIKIT_CACHE, TMPDIR, those of options)\n"),
    (MemoryError(), "unikit: this host has no memory left for it\n")])
def test_what_the_host_refuses_is_one_line(
        error: Exception, said: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a traceback nor an error number reaches a person."""
    def fail(*words: object) -> Iterator[None]:
        raise error

    monkeypatch.setattr(run, "_run", fail)
    assert main(["run", "hello"]) == 1
    assert capsys.readouterr().err == said


def test_registers_and_backtrace_of_a_fault_are_shown(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """They are what a person needs to find the mistake."""
    def fail(*words: object) -> Iterator[None]:
        raise GuestExit("x faulted", reason="fault", code=139, registers={"rax": 1},
                        backtrace=["0x1 f+0x1", "0x2 g+0x2"])

    monkeypatch.setattr(run, "_run", fail)
    assert main(["run", "hello"]) == 139
    assert capsys.readouterr().err == (
        "unikit: x faulted\n  rax=0x1\n  in 0x1 f+0x1\n  by 0x2 g+0x2\n")


def test_words_of_a_guest_cannot_steer_the_terminal() -> None:
    """A panic's message is somebody else's text."""
    assert printable("a\x1b[31mb\n") == "a?[31mb?"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment_of_a_run_is_its_status(
        number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it is built and booted, and a second one does not cut cleaning up."""
    cleaned = []

    def act(*words: object) -> int:
        with contextlib.ExitStack() as undo:
            undo.callback(cleaned.append, 1)
            undo.callback(os.kill, os.getpid(), number)
            os.kill(os.getpid(), number)
        return 0

    before = signal.getsignal(number)
    monkeypatch.setattr(run, "_run", act)
    assert main(["run", "hello"]) == 128 + number
    assert cleaned == [1]
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nohup works."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(run, "_run", lambda *words: os.kill(os.getpid(), signal.SIGHUP) or 7)
        assert main(["run", "hello"]) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_are_no_mistake(closed: tuple[int, ...]) -> None:
    """No file or device opened later gets the number of one, and with it what is printed."""
    def close() -> None:
        for number in closed:
            os.close(number)

    done = subprocess.run([sys.executable, "-m", "unikit", "list", "--json"], check=False,
                          stdin=None, stdout=None if 1 in closed else subprocess.PIPE,
                          stderr=None if 2 in closed else subprocess.PIPE, preexec_fn=close,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == 0
    assert not done.stderr


@pytest.mark.parametrize("text", [
    "raise SystemExit(3)", "IMAGE = 5", "def (",
    "from unikit.apps import App\nIMAGE = App(name=5, sources='main.c', needs=7)",
    "from unikit.apps import App\nIMAGE = App(name='x', sources=(5,), options=('a',), flags=(3,))"])
def test_a_broken_application_record_is_said_so(
        text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a person's own file, and often half written."""
    (tmp_path / "image.py").write_text(text)
    (tmp_path / "main.c").write_text("int init_application(void);\n")
    assert main(["build", str(tmp_path), "--plan"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("unikit: ") for line in lines)


def test_a_file_name_that_is_no_text_is_refused(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths in an image are UTF-8."""
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")
    assert main(["build", "hello", "--plan", "--files", str(tmp_path)]) == 1
    assert "no UTF-8" in capsys.readouterr().err


def test_output_waits_for_a_reader_until_the_run_ends() -> None:
    """A full pipe holds nothing up once the machine is to stop."""
    reader, writer = os.pipe()
    saved = os.dup(1)
    os.dup2(writer, 1)
    try:
        ended = threading.Event()
        sink = run._Output(ended)
        thread = threading.Thread(target=sink, args=(b"x" * (1 << 20),), daemon=True)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        ended.set()
        thread.join(5)
        assert not thread.is_alive()
    finally:
        os.dup2(saved, 1)
        for each in (saved, reader, writer):
            os.close(each)


def test_a_reader_that_leaves_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """``unikit run chatty | head -1`` ends as other programs do, with 141."""
    reader, writer = os.pipe()
    os.close(reader)
    saved = os.dup(1)

    def act(*words: object) -> int:
        sink = run._Output(threading.Event())
        thread = threading.Thread(target=sink, args=(b"x",))
        thread.start()
        thread.join(5)
        return 0 if threading.Event().wait(5) else 1

    monkeypatch.setattr(run, "_run", act)
    os.dup2(writer, 1)
    try:
        assert main(["run", "hello"]) == 141
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(writer)


def test_a_port_in_use_is_said_so() -> None:
    """A person looks at the port they asked for."""
    said: list[str] = []
    machine = SimpleNamespace(netif=SimpleNamespace(forwards=(("tcp", 8081, 80), ("udp", 7, 7))))
    wanted = run._wanted(SimpleNamespace(forward="8080:80,udp:7:7"))
    run._announce(machine, wanted, said.append)  # type: ignore[arg-type]
    assert said == ["port 8080 is in use, 8081 is taken instead", "http://127.0.0.1:8081",
                    "udp 127.0.0.1:7 -> 7"]


def test_building_never_replaces_what_is_no_file(tmp_path: Path) -> None:
    """Renaming over a device would remove it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is no file"):
        Image("hello").build(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(("stderr", "said"), [
    ("/tmp/x.s: Assembler messages:\nFatal error: x: No space left on device",
     "set UNIKIT_CACHE"),
    ("gcc: fatal error: cannot execute 'as': execvp: No such file", "apt-get install binutils"),
    ("main.c:1: error: x", "")])
def test_a_tool_that_fails_for_the_host_says_what_helps(stderr: str, said: str) -> None:
    """Its own first line names a temporary file."""
    assert said in toolchain._cause(stderr)
    assert bool(said) == bool(toolchain._cause(stderr))


def test_what_a_tool_leaves_in_its_temporary_folder_is_removed() -> None:
    """Compilers that Ctrl-C ends forget their files."""
    said = toolchain.run(["sh", "-c", "touch $TMPDIR/cc1.s; echo $TMPDIR"]).strip()
    assert "unikit-tools-" in said and not Path(said).exists()
