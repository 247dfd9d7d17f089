"""Control sockets: one process runs a machine, another asks about it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from unikit.cli import control
from unikit.errors import AlreadyExists, NotFound, PlatformError
from unikit.platform.api import STOPPED, BootImage, Console, Machine

pytestmark = [pytest.mark.fast, pytest.mark.filterwarnings(
    "error::pytest.PytestUnhandledThreadExceptionWarning")]


class Fake(Machine):
    """A machine that runs until it is stopped."""

    def __init__(self) -> None:
        self.name = "fake"
        self.image = BootImage(Path("fake.elf"), (), {}, {})
        self.console = Console()
        self._end = threading.Event()

    @property
    def running(self) -> bool:
        return not self._end.is_set()

    def wait(self, timeout: float | None = None) -> int:
        self._end.wait(timeout)
        return STOPPED

    def stop(self) -> None:
        self._end.set()

    def stats(self) -> dict[str, int | float | str]:
        return {"frames_in": 7, "platform": "fake"}

    def close(self) -> None:
        self.stop()
        self.release()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a runtime folder of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "unikit"


@pytest.fixture
def server(runtime: Path) -> control.Server:
    made = control.Server("web", Fake(), {"platform": "fake"})
    yield made
    made.close()


def test_a_machine_is_found_by_name(server: control.Server) -> None:
    """ps lists it, info tells what it was started with."""
    assert control.running() == ["web"]
    info = control.ask("web", "info")
    assert (info["name"], info["platform"], info["running"]) == ("web", "fake", True)


def test_stats_and_logs_are_those_of_the_machine(server: control.Server) -> None:
    """Counters and console come over the socket unchanged."""
    server._machine.console.feed(b"up\n")
    assert control.ask("web", "stats") == {"frames_in": 7, "platform": "fake"}
    assert control.ask("web", "logs") == {"text": "up\n"}


def test_follow_streams_until_the_machine_ends(server: control.Server) -> None:
    """What was said before comes first, the stream ends with the machine."""
    server._machine.console.feed(b"one\n")
    stream = control.follow("web")
    assert next(stream) == b"one\n"
    server._machine.console.feed(b"two\n")
    assert next(stream) == b"two\n"
    server._machine.stop()
    assert list(stream) == []


def test_stop_reaches_the_machine(server: control.Server) -> None:
    """The request ends it."""
    assert control.ask("web", "stop") == {"stopped": True}
    assert not server._machine.running


def test_an_unknown_name_lists_what_runs(server: control.Server) -> None:
    """The message alone shows the typing error."""
    with pytest.raises(NotFound, match="'wev' is running; running: web"):
        control.ask("wev", "info")
    with pytest.raises(NotFound):
        control.ask("../web", "info")


def test_two_machines_never_share_a_name(server: control.Server) -> None:
    """An exact name is refused, a made-up one is numbered."""
    assert control.free_name("web", exact=False) == "web-2"
    with pytest.raises(AlreadyExists, match="unikit stop web"):
        control.free_name("web", exact=True)
    with pytest.raises(AlreadyExists):
        control.Server("web", Fake(), {})


def test_what_a_killed_process_left_is_cleared_away(runtime: Path) -> None:
    """A socket nobody listens on disappears with the next look."""
    path = control.folder() / "dead.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert control.running() == []
    assert not path.exists()
    control.Server("dead", Fake(), {}).close()


def test_a_runtime_folder_open_to_others_is_refused(runtime: Path) -> None:
    """Who can write there could talk to the machines."""
    control.folder().chmod(0o777)
    with pytest.raises(PlatformError, match="not yours alone"):
        control.folder()


@pytest.mark.parametrize("line", [b"\n", b"{\n", b"[]\n", b"\xff\n", b"x" * 5000, b'{"do": 7}\n'])
def test_nonsense_on_the_socket_does_no_harm(server: control.Server, line: bytes) -> None:
    """The next request is answered as ever."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(control.folder() / "web.sock"))
    link.sendall(line)
    link.close()
    assert control.ask("web", "stats")["frames_in"] == 7


def test_closing_removes_the_socket(runtime: Path) -> None:
    """Nothing stays behind."""
    made = control.Server("web", Fake(), {})
    made.close()
    made.close()
    assert list(control.folder().iterdir()) == []


def test_a_follower_that_does_not_read_holds_nothing_up(runtime: Path) -> None:
    """The console goes on, and the machine can be stopped."""
    machine = Fake()
    server = control.Server("web", machine, {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(str(runtime / "web.sock"))
        link.sendall(b'{"do": "follow"}\n')
        machine.console.feed(b"first\n")
        assert link.recv(100) == b"first\n"
        feeder = threading.Thread(target=machine.console.feed, args=(b"x" * (8 << 20),))
        feeder.start()
        feeder.join(10)
        assert not feeder.is_alive()
    machine.stop()
    server.close()


def test_who_serves_is_told_before_the_machine_is_stopped(runtime: Path) -> None:
    """Its output may be what the machine's end waits for."""
    machine = Fake()
    seen = []
    server = control.Server("web", machine, {}, stopping=lambda: seen.append(machine.running))
    assert control.ask("web", "stop") == {"stopped": True}
    assert seen == [True]
    server.close()


def test_a_machine_too_busy_to_answer_is_not_cleared_away(runtime: Path) -> None:
    """Only a socket that nobody listens on is what a dead process left."""
    path = control.folder() / "busy.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as one, \
            socket.socket(socket.AF_UNIX) as two:
        busy.bind(str(path))
        busy.listen(0)
        for each in (one, two):
            each.setblocking(False)
            each.connect_ex(str(path))
        assert control.running() == ["busy"]
    assert control.running() == []
    assert not path.exists()


def test_endless_nesting_is_no_request(runtime: Path, server: control.Server) -> None:
    """It ends the conversation, not the thread with a traceback."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(runtime / "web.sock"))
        link.sendall(b"[" * 4000 + b"\n")
        assert link.recv(100) == b""
