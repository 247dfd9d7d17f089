"""The stacks against the kernel's TCP/IP over a TAP: the peer nobody here wrote."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
from compiled import build

from unikit.net import Inet, Mini, Stack, Tap
from unikit.net.netif import links, tap

_ABSENT = tap.probe() or tap.probe_namespace()
pytestmark = [pytest.mark.root, pytest.mark.exercises("tap"),
              pytest.mark.skipif(_ABSENT is not None, reason=str(_ABSENT))]
STACK, KERNEL = "10.77.0.2", "10.77.0.1"
_T = TypeVar("_T")


class Server:
    """tap_server.c on a TAP in a namespace of its own; ``counters`` are there after ``close``."""

    def __init__(self, stack: type[Stack], variant: str, loss: int = 0,
                 connect: tuple[int, int] | None = None) -> None:
        program = build(["tests/net/tap_server.c", *stack.source_files(),
                         "unikit/net/netif/host_fd.c"],
                        variant=variant, flags=["-pthread"], defines={"COMPONENT": stack.symbol()})
        self.space = f"net-{os.getpid()}"
        self.tap = Tap("net0", address=f"{KERNEL}/24", namespace=self.space).open()
        self.counters: dict[str, int] = {}
        number = [str(int.from_bytes(socket.inet_aton(ip))) for ip in (STACK, KERNEL)]
        self.sockets: list[socket.socket] = []
        if connect is not None:  # somebody listens before the stack connects
            self.sockets.append(self.inside(lambda: socket.create_server((KERNEL, connect[0]))))
        fd = self.tap.fileno()
        self.process = subprocess.Popen(
            [program, str(fd), number[0], str(loss), "7",
             *([number[1], *map(str, connect)] if connect else [])],
            pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def inside(self, work: Callable[[], _T]) -> _T:
        return links.inside(self.space, work)

    def connect(self, port: int) -> socket.socket:
        """Return a kernel socket connected to the stack."""
        made = self.inside(lambda: socket.create_connection((STACK, port), timeout=120))
        self.sockets.append(made)
        return made

    def run(self, *command: str) -> str:
        """Run a command in the namespace."""
        done = subprocess.run(["ip", "netns", "exec", self.space, *command], capture_output=True,
                              text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        """End it; sanitizers, the stack's own check and the memory balance must be content."""
        try:
            for each in self.sockets:
                each.close()
            out, errors = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
            self.process.wait()
            self.tap.close()
        assert self.process.returncode == 0, errors[-3000:]
        self.counters = {name: int(value) for name, value in
                         (line.split() for line in out.splitlines())}
        assert self.counters["check"] == 0 and self.counters["left"] == 0

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.close()


@pytest.fixture(params=[(Mini, "optimised"), (Mini, "sanitized"), (Inet, "sanitized")],
                ids=["mini-optimised", "mini-sanitized", "inet-sanitized"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(*request.param) as it:
        yield it


def send_all(sock: socket.socket, data: bytes) -> threading.Thread:
    """Send in the background, then end the stream."""
    def work() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 18):
        parts.append(part)
    return b"".join(parts)


def echo(server: Server, size: int) -> None:
    """Send random bytes through the echo service; they must come back exactly."""
    data = random.Random(size).randbytes(size)
    sock = server.connect(7)
    thread = send_all(sock, data)
    assert read_all(sock) == data
    thread.join()


def test_ping(server: Server) -> None:
    """Every echo of a flood, small and full-sized, is answered."""
    for size in ("0", "56", "1472"):
        assert " 0% packet loss" in server.run("ping", "-qc200", "-i0.001", "-s", size, STACK)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: Server) -> None:
    """A real client gets the page, several over one connection."""
    page = server.run("curl", "-sS", "-m", "10", *[f"http://{STACK}/"] * 3)
    assert page == "0" * 612 * 3


def test_udp(server: Server) -> None:
    """Datagrams of all sizes up to the MTU come back."""
    sock = server.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sock:
        sock.settimeout(10)
        sock.connect((STACK, 7))
        for size in (0, 1, 100, 1472):
            sock.send(bytes(size))
            assert sock.recv(2000) == bytes(size)


def test_echo_is_byte_exact(server: Server) -> None:
    """Megabytes both ways at once."""
    for size in (1, 1460, 100_000, 10_000_000):
        echo(server, size)
    server.close()
    assert server.counters["malformed"] == 0
    assert server.counters["retransmits"] <= 5  # a probe of the tail where the kernel lets us wait


def test_bulk_into_the_stack(server: Server) -> None:
    """The kernel sends as fast as it likes; our windows and ACKs keep it going."""
    sock = server.connect(9)
    send_all(sock, bytes(50_000_000)).join()
    assert read_all(sock) == b""


def test_bulk_out_of_the_stack(server: Server) -> None:
    """The stack sends to a kernel that reads now slowly, now fast."""
    sock = server.connect(19)
    got = 0
    for turn in range(40):
        while got < 1_000_000 * (turn + 1):
            got += len(sock.recv(1 << 18))
        if turn % 10 == 0:
            time.sleep(0.05)  # its window closes meanwhile
    sock.close()


@pytest.mark.parametrize("stack", [Mini, Inet])
def test_active_open(stack: type[Stack]) -> None:
    """The stack connects to the kernel, sends, shuts down and sees the end of the stream."""
    with Server(stack, "sanitized", connect=(7001, 10_000_000)) as server:
        sock, address = server.sockets[0].accept()
        server.sockets.append(sock)
        assert address[0] == STACK
        assert len(read_all(sock)) == 10_000_000
        sock.shutdown(socket.SHUT_WR)
        for _ in range(100):
            state = server.run("ss", "-tanH", "state", "time-wait", "state", "last-ack")
            if not state.strip():
                break
            time.sleep(0.01)
        server.close()
        assert server.counters["client_done"] == 1
        assert server.counters["open"] == 0


@pytest.mark.parametrize("stack", [Mini, Inet])
@pytest.mark.parametrize("loss", [100, 300])
def test_loss(stack: type[Stack], loss: int) -> None:
    """1 % and 3 % of the frames vanish each way: slower, but byte-exact, in seconds."""
    with Server(stack, "sanitized", loss=loss) as server:
        echo(server, 2_000_000 if loss == 100 else 300_000)
        sock = server.connect(9)
        send_all(sock, bytes(3_000_000 if loss == 100 else 500_000)).join()
        assert read_all(sock) == b""
        server.close()
        assert server.counters["dropped"] > 20
        assert server.counters["retransmits"] > 0


def test_many_short_connections(server: Server) -> None:
    """Connections one after another, each closed by the stack, never stall."""
    longest = 0.0
    request = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"

    def one() -> bytes:
        with socket.create_connection((STACK, 80), timeout=10) as sock:
            sock.sendall(request)
            return read_all(sock)

    def many() -> None:
        nonlocal longest
        for _ in range(10_000):
            start = time.monotonic()
            assert one().endswith(b"0" * 612)
            longest = max(longest, time.monotonic() - start)
    server.inside(many)
    assert longest < 0.9  # a SYN that was dropped would come again after 1 s
    server.close()
    assert server.counters["accepted"] == 10_000


def test_one_port_again_and_again(server: Server) -> None:
    """A client that uses the same port each time is served although we are in TIME-WAIT."""
    def many() -> None:
        for _ in range(300):
            sock = socket.socket()
            with sock:
                sock.settimeout(10)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((KERNEL, 40_000))
                while (code := sock.connect_ex((STACK, 80))) == errno.EADDRNOTAVAIL:
                    time.sleep(0.001)  # the kernel still waits for the last ACK of the one before
                assert code == 0
                sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
                assert read_all(sock).endswith(b"0" * 612)
    start = time.monotonic()
    server.inside(many)
    assert time.monotonic() - start < 20


def test_many_at_once(server: Server) -> None:
    """Three hundred connections, all held open, all served."""
    socks = [server.connect(80) for _ in range(300)]
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    for sock in socks:
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_resets_of_the_kernel(server: Server) -> None:
    """Connections torn down with data in flight leave nothing behind."""
    for port in (7, 9, 19, 80) * 10:
        sock = server.connect(port)
        sock.send(b"x" * 5000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    echo(server, 1000)
    server.close()
    assert server.counters["open"] == 0


def test_half_close(server: Server) -> None:
    """The kernel ends its direction at once; ours goes on until all is said."""
    sock = server.connect(80)
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
    sock.shutdown(socket.SHUT_WR)
    assert len(re.findall(rb"200 OK", read_all(sock))) == 20


def test_refused(server: Server) -> None:
    """A closed port refuses at once."""
    with pytest.raises(ConnectionRefusedError):
        server.connect(81)
