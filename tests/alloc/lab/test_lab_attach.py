"""Attaching to running processes: they are recorded, and go on as if nothing had been."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unikit.alloc import lab
from unikit.alloc.lab import attach
from unikit.cli import main
from unikit.errors import InvalidArgument, NoPermission, NotFound, NotSupported, PlatformError

HERE = Path(__file__).resolve().parent
Start = Callable[..., subprocess.Popen[str]]


def compiled(folder: Path, name: str, *flags: str) -> Path:
    """Return a program of this folder, compiled."""
    target = folder / f"{name}{'-'.join(flags)}"
    subprocess.run(["gcc", "-O1", "-g", "-w", HERE / f"programs/{name}.c", "-o", target,
                    "-pthread", *flags], check=True)
    return target


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts processes that do not outlive the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: object, **more: object) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, **more)  # type: ignore[call-overload]
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> list[int]:
    """Return how many rounds each of the program's threads did; none of its checks failed."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    wrong, *done = map(int, process.stdout.readline().split())
    assert wrong == 0
    return done


def progress(process: subprocess.Popen[str]) -> int:
    """Wait until every thread got on; return how many rounds they did meanwhile, at least."""
    first = ask(process)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.02)
        now = ask(process)
        if all(after > before + 1 for before, after in zip(first, now, strict=True)):
            return sum(now) - sum(first)
    raise AssertionError(f"a thread stands still: {first}, {now}")


@pytest.mark.parametrize("flags", [(), ("-Wl,-z,now,-z,relro", "-pie"), ("-Wl,-z,lazy", "-no-pie"),
                                   ("-Wl,-z,lazy", "-no-pie", "-fno-pie")],
                         ids=lambda flags: " ".join(flags) or "default")
def test_threads_that_never_pause_are_recorded_and_go_on(start: Start, tmp_path: Path,
                                                         flags: tuple[str, ...]) -> None:
    """Four threads allocate and compute all the time; twice recorded, no byte of theirs changes."""
    process = start(compiled(tmp_path, "work", *flags), 4)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert Path(f"/proc/{process.pid}/maps").read_text().count("libunikit-attach") == 0
    for _ in range(2):
        with attach.Recording(process.pid, tmp_path / "work.trace") as recording:
            rounds = progress(process)
        trace = recording.trace
        assert trace is not None and trace.complete
        summary = trace.summary()
        assert summary.operations >= rounds
        assert len(trace.threads) == 4
        assert {thread.id for thread in trace.threads} <= set(map(int, os.listdir(  # noqa: PTH208
            f"/proc/{process.pid}/task")))
        assert (trace.lost, trace.damaged) == (0, 0)
        assert trace.foreign <= 4 * 256, "blocks from before are as many as the program keeps"
        assert {site.name.partition("+")[0] for site in trace.sites[1:]} == {"work"}
        assert len(recording.stops) == 2
        progress(process)
    assert len(list(tmp_path.glob("work.trace*"))) == 1
    words = Path(f"/proc/{process.pid}/maps").read_text()
    assert len({line.split()[5] for line in words.splitlines() if "libunikit-attach" in line}) == 1


def test_threads_and_children_may_come_and_go(start: Start, tmp_path: Path) -> None:
    """A thread that ends while it is looked for is no reason to give up, nor is one just born."""
    process = start(compiled(tmp_path, "churn"))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for _ in range(12):
        with attach.Recording(process.pid, tmp_path / "churn.trace", names=False) as recording:
            progress(process)
        assert recording.trace is not None
        assert (recording.trace.lost, recording.trace.damaged) == (0, 0)
        assert len(recording.trace.threads) > 1
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdin = None


@pytest.mark.parametrize("way", ["sleep", "poll", "lock", "read"])
def test_what_calls_left_on_the_stack_is_no_call(start: Start, tmp_path: Path, way: str) -> None:
    """A thread that waits stands at the same place whenever looked at; python3 asleep is one."""
    process = start(compiled(tmp_path, "leftover"), way)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    with attach.Recording(process.pid, tmp_path / "leftover.trace", names=False) as recording:
        assert recording.wait(0.1)
    assert recording.trace is not None
    assert bool(recording.trace.summary().allocations) == (way == "sleep")
    assert process.poll() is None


def test_a_handler_may_have_come_into_malloc(start: Start, tmp_path: Path) -> None:
    """What is under a signal handler cannot be told: then the process is left alone."""
    process = start(compiled(tmp_path, "leftover"), "handler")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    with pytest.raises(PlatformError, match="whenever looked at"):
        attach.Recording(process.pid, tmp_path / "leftover.trace")
    assert process.poll() is None


def test_a_waiting_process_waits_on(start: Start, tmp_path: Path) -> None:
    """A sleep is as long, and a read as patient, as without us."""
    process = start(sys.executable, "-c", "import time, sys; a = time.monotonic(); print('on');"
                    "sys.stdout.flush(); time.sleep(1.2); print(time.monotonic() - a);"
                    "sys.stdout.flush(); print('got', sys.stdin.readline())")
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "on\n"
    with attach.Recording(process.pid, tmp_path / "a.trace"):
        time.sleep(0.1)
    assert 1.19 < float(process.stdout.readline()) < 3
    with attach.Recording(process.pid, tmp_path / "b.trace"):
        process.stdin.write("line\n")
        process.stdin.flush()
        assert process.stdout.readline() == "got line\n"
        assert process.wait(10) == 0
    trace = lab.Trace.load(tmp_path / "b.trace")
    assert trace.complete and trace.facts["ended"] == "ended"


def test_a_server_keeps_serving(start: Start, tmp_path: Path) -> None:
    """Debian's redis brings jemalloc: that is named, and the recorder stands before it."""
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        pytest.skip("redis is not installed")
    socket = tmp_path / "redis.sock"
    server = start("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir",
                   tmp_path)

    def client(*words: str) -> str:
        return subprocess.run(["redis-cli", "-s", socket, *words], capture_output=True, text=True,
                              check=False).stdout.strip()

    for _ in range(100):
        if client("ping") == "PONG":
            break
        time.sleep(0.05)
    assert client("set", "before", "1") == "OK"
    with attach.Recording(server.pid, tmp_path / "redis.trace") as recording:
        for number in range(20):
            assert client("set", f"key{number}", "x" * 2000) == "OK"
    assert client("get", "before") == "1"
    assert client("get", "key19") == "x" * 2000
    assert client("info").startswith("# Server")
    assert "jemalloc" in recording.allocator or "libc" in recording.allocator
    assert recording.trace is not None
    assert recording.trace.summary().allocations > 100
    server.send_signal(signal.SIGTERM)
    assert server.wait(10) == 0


def test_the_command_says_what_it_did(start: Start, tmp_path: Path,
                                      capfd: pytest.CaptureFixture[str]) -> None:
    """``unikit alloc record --pid`` for a while: a trace, and how long the process stood still."""
    process = start(compiled(tmp_path, "work"), 2)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    target = tmp_path / "work.trace"
    assert main(["alloc", "record", "--pid", str(process.pid), "--for", "30ms", "-o",
                 str(target)]) == 0
    said = capfd.readouterr().err
    assert "calls were redirected" in said and "libc.so.6" in said
    trace = lab.Trace.load(target)
    assert trace.complete and trace.facts["attached"]
    assert {trace.sites[event.site].name.partition("+")[0] for event, _ in zip(
        trace, range(1000), strict=False) if event.site} == {"work"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_the_command_the_process_gets_its_words_back(
        start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """Else it would go on writing a trace that nobody reads, for as long as it lives."""
    process = start(compiled(tmp_path, "leftover"), "sleep")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    target = tmp_path / "ended.trace"
    command = start(sys.executable, "-m", "unikit", "alloc", "record", "--no-names", "--pid",
                    process.pid, "-o", target, stderr=subprocess.PIPE)
    assert command.stderr is not None and "Ctrl-C ends it" in command.stderr.readline()
    time.sleep(0.1)
    command.send_signal(number)
    assert command.wait(60) == (0 if number == signal.SIGINT else 128 + number)
    assert lab.Trace.load(target).summary().allocations
    written = [line.split()[-1] for line in Path(f"/proc/{process.pid}/maps").read_text()
               .splitlines() if "unikit-attach" in line and "/out/" in line]
    assert process.poll() is None
    for path in written:
        assert not Path(path).exists()


@contextlib.contextmanager
def refused(kind: type[Exception], words: str, pid: int, folder: Path) -> Iterator[None]:
    """Expect an error, and no file or folder left behind."""
    with pytest.raises(kind, match=words):
        attach.Recording(pid, folder / "no.trace")
    assert not (folder / "no.trace").exists()
    yield


def test_what_cannot_be_recorded_is_said_with_the_remedy(start: Start, tmp_path: Path) -> None:
    """Each refusal names the cause; nothing is tried that could harm the process."""
    with refused(NotFound, "no process", 4_194_000, tmp_path), \
            refused(InvalidArgument, "itself", os.getpid(), tmp_path):
        pass
    static = start(compiled(tmp_path, "work", "-static"), 1)
    assert static.stdout is not None and static.stdout.readline() == "ready\n"
    with refused(NotSupported, "statically", static.pid, tmp_path):
        assert len(ask(static)) == 1
    halted = start(compiled(tmp_path, "work"), 1)
    assert halted.stdout is not None and halted.stdout.readline() == "ready\n"
    os.kill(halted.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, halted.pid, os.WSTOPPED)
    with refused(NotSupported, "kill -CONT", halted.pid, tmp_path):
        os.kill(halted.pid, signal.SIGCONT)
    sealed = start(sys.executable, "-c", "import ctypes, time; c = ctypes.CDLL(None);"
                   "c.prctl(38, 1, 0, 0, 0); p = (ctypes.c_uint64 * 1)(0x7fff000000000006);"
                   "f = (ctypes.c_uint64 * 2)(1, ctypes.addressof(p));"
                   "print(c.prctl(22, 2, ctypes.byref(f))); import sys; sys.stdout.flush();"
                   "time.sleep(100)")
    assert sealed.stdout is not None
    if sealed.stdout.readline() == "0\n":
        with refused(NotSupported, "seccomp", sealed.pid, tmp_path):
            assert sealed.poll() is None
    ended = start("true")
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    with refused(NotFound, "has ended", ended.pid, tmp_path):
        pass


def test_a_process_that_is_traced_already_is_left_alone(start: Start, tmp_path: Path) -> None:
    """The kernel allows one tracer; the message says which process it is."""
    from unikit.alloc.lab import remote
    process = start(compiled(tmp_path, "work"), 1)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    thread = remote.Thread(process.pid)
    try:
        with refused(NoPermission, f"traced by process {os.getpid()}", process.pid, tmp_path):
            pass
    finally:
        thread.release()
    assert len(ask(process)) == 1


@pytest.mark.root
def test_somebody_elses_process_is_refused_by_name(start: Start, tmp_path: Path) -> None:
    """Without privileges: whose it is, and as whom to try."""
    target = compiled(tmp_path, "work")
    process = start(target, 1)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            try:
                attach.Recording(process.pid, "/nonexistent/no.trace")
            except NoPermission as error:
                os._exit(0 if "belongs to root" in str(error) else 2)
            os._exit(3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.root
def test_root_records_the_process_of_another_user(start: Start, tmp_path: Path) -> None:
    """The recorder must be readable and its file writable for that user."""
    target = compiled(tmp_path, "work")
    shutil.copy(target, "/tmp/unikit-test-work")
    try:
        process = start("/tmp/unikit-test-work", 1, user=65534, group=65534, cwd="/")
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with attach.Recording(process.pid, tmp_path / "other.trace") as recording:
            time.sleep(0.1)
        assert recording.trace is not None and len(recording.trace) > 100
        assert len(ask(process)) == 1
    finally:
        Path("/tmp/unikit-test-work").unlink()


@pytest.mark.parametrize("words", ["abc", "-1", "nan", "inf", "10h"])
def test_times_are_checked(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The remedy is in the words of the user, not in those of the parser."""
    with pytest.raises(SystemExit):
        main(["alloc", "record", "--pid", "1", f"--for={words}"])
    assert f"{words!r} is no time; write 10s, 500ms or 2m" in capsys.readouterr().err
