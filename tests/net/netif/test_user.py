"""netif.user: real clients of the host reach an image through the hosted outer stack."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from unikit import registry
from unikit.errors import AlreadyExists, CompositionError, InvalidArgument
from unikit.net.netif.host import Bridge, socket_pair
from unikit.net.netif.user import Forward, User, UserInterface, parse_forwards

pytestmark = pytest.mark.fast

ECHO, DISCARD, CLOSE, RESET, STALL, GENERATE, HTTP, REFUSED = 7, 9, 13, 14, 15, 19, 80, 99
_USER = [f"user/host_{name}.c" for name in ("user", "wire", "arp", "tcp", "udp", "env")]


@pytest.fixture(scope="session")
def peer(build_image):
    """The test image as a process on a packet socket."""
    return build_image("peer", ["host_fd.c"])


@pytest.fixture
def run(peer, stack_options):
    """Return a context manager: an image behind netif.user with the given options."""
    @contextlib.contextmanager
    def running(forward: str, *, image: bool = True, stack: dict | None = None,
                **options: object) -> Iterator[UserInterface]:
        with contextlib.ExitStack() as undo:
            user = undo.enter_context(User(forward, **options).open())
            near, far = socket_pair()
            undo.enter_context(far)
            undo.enter_context(near)
            if image:
                words = stack_options(connections=1024, **(stack or {}))
                address = user.image_address.partition("/")[0]
                child = subprocess.Popen([peer, str(far.fileno()), address, *words],
                                         pass_fds=[far.fileno()], stdout=subprocess.PIPE)
                undo.callback(child.stdout.close)
                undo.callback(child.wait, 10)
                undo.callback(far.close)
                undo.callback(near.close)
                assert child.stdout.readline() == b"ready\n"
            bridge = Bridge(user, near)
            try:
                yield user
            finally:
                bridge.close()
                user.check()
    return running


@contextlib.contextmanager
def client(user: UserInterface, image_port: int) -> Iterator[socket.socket]:
    """Connect to the forwarded port that leads to ``image_port``."""
    port = next(port for _, port, inner in user.forwards if inner == image_port)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        yield sock


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(1 << 20):
        data += piece
    return bytes(data)


def pattern(count: int) -> bytes:
    """What GENERATE sends."""
    import numpy
    at = numpy.arange(count, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
    return (at >> numpy.uint64(56)).astype(numpy.uint8).tobytes()


def settled(user: UserInterface, wanted: int = 0, timeout: float = 10) -> int:
    """Wait until so many relays are left, and return how many there are."""
    end = time.monotonic() + timeout
    while user.stats()["connections"] != wanted and time.monotonic() < end:
        time.sleep(0.01)
    return user.stats()["connections"]


def test_curl_gets_the_page(run):
    """An independent HTTP client, new connections and kept ones."""
    with run("0:80") as user:
        url = f"http://127.0.0.1:{user.forwards[0][1]}/"
        done = subprocess.run(["curl", "-sS", "--max-time", "20", *[url] * 50],
                              capture_output=True)
        assert done.stdout == b"x" * 612 * 50, done.stderr
        for _ in range(20):
            assert subprocess.run(["curl", "-sS", "--max-time", "20", url],
                                  capture_output=True).stdout == b"x" * 612
        assert settled(user) == 0
        assert user.stats()["accepted"] == 21


def test_two_hundred_connections_at_once(run):
    """All are open together, and each gets its own bytes."""
    with run("0:7") as user, contextlib.ExitStack() as undo:
        socks = [undo.enter_context(client(user, ECHO)) for _ in range(200)]
        for number, sock in enumerate(socks):
            sock.sendall(struct.pack("!I", number) * 500)
        assert settled(user, 200) == 200
        for number, sock in enumerate(socks):
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == struct.pack("!I", number) * 500
        assert settled(user) == 0


def test_thousands_of_connections_one_after_the_other(run):
    """Ports and tables of the outer stack are used again in time."""
    with run("0:13") as user:
        for _ in range(3000):
            with client(user, CLOSE) as sock:
                assert read_all(sock) == b"bye"
        assert settled(user) == 0
        assert user.stats()["memory"] < 4 << 20


def test_connections_over_the_limit_wait_and_are_served(run):
    """A limit of four serves forty clients, four at a time."""
    with run("0:7", connections=4) as user, contextlib.ExitStack() as undo:
        socks = [undo.enter_context(client(user, ECHO)) for _ in range(40)]
        for sock in socks:
            sock.sendall(b"hello")
        assert settled(user, 4) == 4
        for sock in socks:
            assert user.stats()["connections"] <= 4
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"hello"
        assert settled(user) == 0
        assert user.stats()["accepted"] == 40


def test_big_transfer_into_the_image(run):
    """32 MB arrive in full; the image counts them after the end of the stream."""
    with run("0:9") as user, client(user, DISCARD) as sock:
        blob = os.urandom(1 << 20)
        for _ in range(32):
            sock.sendall(blob)
        sock.shutdown(socket.SHUT_WR)
        assert struct.unpack("=Q", read_all(sock)) == (32 << 20,)


def test_big_transfer_out_of_the_image(run):
    """32 MB come byte for byte."""
    with run("0:19") as user, client(user, GENERATE) as sock:
        sock.sendall(struct.pack("=Q", 32 << 20))
        assert read_all(sock) == pattern(32 << 20)


def test_big_transfer_both_ways_at_once(run):
    """8 MB through the echo, byte for byte, while both directions are full."""
    blob = os.urandom(1 << 20) * 8
    with run("0:7") as user, client(user, ECHO) as sock:
        def send() -> None:
            sock.sendall(blob)
            sock.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=send)
        thread.start()
        assert read_all(sock) == blob
        thread.join()


def test_slow_reader_stops_the_image_and_gets_everything(run):
    """Backpressure: little is buffered on the way, and nothing is lost."""
    with run("0:19", memory="8M") as user, client(user, GENERATE) as sock:
        sock.sendall(struct.pack("=Q", 64 << 20))
        time.sleep(0.5)
        frames = user.stats()["bytes_out"]
        time.sleep(0.3)
        assert user.stats()["bytes_out"] - frames < 100_000, "the image did not stop"
        assert user.stats()["memory"] < 2 << 20
        assert len(read_all(sock)) == 64 << 20


def test_slow_image_stops_the_writer(run):
    """An image that reads nothing closes the window all the way to the client."""
    with run("0:15") as user, client(user, STALL) as sock:
        sock.setblocking(False)
        sent = idle = 0
        while idle < 10:
            try:
                sent += sock.send(bytes(1 << 16))
                idle = 0
            except BlockingIOError:
                time.sleep(0.02)
                idle += 1
        assert sent < 32 << 20
        assert user.stats()["memory"] < 2 << 20


def test_end_of_stream_passes_alone(run):
    """After the client ended its stream the image still answers; and the other way round."""
    with run("0:9, 0:13") as user:
        with client(user, DISCARD) as sock:
            sock.sendall(b"12345")
            time.sleep(0.05)
            assert not select.select([sock], [], [], 0)[0], "an end came before we ended"
            sock.shutdown(socket.SHUT_WR)
            assert struct.unpack("=Q", read_all(sock)) == (5,)
        with client(user, CLOSE) as sock:
            assert read_all(sock) == b"bye"
        assert settled(user) == 0


def test_reset_by_the_image_reaches_the_client(run):
    with run("0:14") as user, client(user, RESET) as sock:
        sock.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert settled(user) == 0


def test_reset_by_the_client_reaches_the_image(run):
    """The image's connection ends too, though it never reads."""
    with run("0:15") as user:
        with client(user, STALL) as sock:
            sock.sendall(b"x")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert settled(user) == 0


def test_refused_port_resets_the_client(run):
    """Nobody listens there in the image: the client hears so at once, not after a timeout."""
    with run("0:99") as user:
        start = time.monotonic()
        with pytest.raises(ConnectionResetError), client(user, REFUSED) as sock:
            sock.recv(1)
        assert time.monotonic() - start < 1
        assert user.stats()["refused"] == 1


def test_absent_image_resets_the_client_after_a_while(run):
    """With nobody on the wire a client does not wait for ever."""
    with run("0:80", image=False) as user:
        with pytest.raises(ConnectionResetError), client(user, HTTP) as sock:
            sock.recv(1)
        assert user.stats()["refused"] == 1


def test_udp_peers_are_told_apart(run):
    """Every peer gets its own answers, at every size that fits."""
    with run("udp:0:7") as user, contextlib.ExitStack() as undo:
        target = ("127.0.0.1", user.forwards[0][1])
        socks = [undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                 for _ in range(10)]
        for sock in socks:
            sock.settimeout(10)
        for size in (1, 18, 500, 1472):
            for number, sock in enumerate(socks):
                sock.sendto(bytes([number]) * size, target)
            for number, sock in enumerate(socks):
                assert sock.recvfrom(2000) == (bytes([number]) * size, target)
        assert user.stats()["sessions"] == 10


def test_silent_udp_peers_are_forgotten(run):
    """The table is bounded: by number, and by time."""
    with run("udp:0:7", sessions=4, session_timeout="200ms") as user:
        target = ("127.0.0.1", user.forwards[0][1])
        for _ in range(12):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.sendto(b"x", target)
                assert sock.recv(10) == b"x"
                assert user.stats()["sessions"] <= 4
        end = time.monotonic() + 5
        while user.stats()["sessions"] and time.monotonic() < end:
            time.sleep(0.02)
        assert user.stats()["sessions"] == 0


def test_stack_in_this_process_stands_on_it():
    """The same interface without any image: an echo server in Python, reached by a socket."""
    with User("0:7").open() as user, registry.find("net.mini")().open(user) as stack:
        assert stack.address == "10.0.2.15"
        blob = os.urandom(200_000)
        got: list[bytes] = []

        def visit() -> None:
            with client(user, ECHO) as sock:
                thread = threading.Thread(target=sock.sendall, args=(blob,))
                thread.start()
                while len(b"".join(got)) < len(blob):
                    got.append(sock.recv(1 << 16))
                thread.join()

        visitor = threading.Thread(target=visit)
        visitor.start()
        with stack.listen(7) as listener, listener.accept(timeout=10) as connection:
            while data := connection.recv(timeout=10):
                connection.sendall(data)
        visitor.join()
        assert b"".join(got) == blob


def test_idle_interface_sleeps(run):
    """Open connections without traffic cost no processor time."""
    with run("0:7") as user, client(user, ECHO) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        time.sleep(0.3)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05


def test_port_in_use_gives_the_next_free_one():
    """And says so; other addresses of the loopback are independent."""
    for protocol, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.1", 0))
            if protocol == "tcp":
                other.listen()
            port = other.getsockname()[1]
            with User(f"{protocol}:{port}:80, {protocol}:127.0.0.9:{port}:80").open() as user:
                (_, moved, _), (_, free, _) = user.forwards
                assert port < moved <= port + 100
                assert free == port
                assert user.ports[0] == Forward(protocol, "127.0.0.1", moved, 80)


def test_no_free_port_is_an_error(monkeypatch):
    monkeypatch.setattr("unikit.net.netif.user._TRIES", 1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(AlreadyExists, match=f"tcp ports {port} to {port} "):
            User(f"{port}:80").open()


_PRIVILEGED = """
import os
from unikit.errors import NoPermission
from unikit.net.netif.user import User
User().open().close()
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    User("9:9").open()
except NoPermission as error:
    print(error)
"""


def test_privileged_port_is_refused_with_a_remedy():
    """As an ordinary user; the message has a port that works."""
    done = subprocess.run([sys.executable, "-c", _PRIVILEGED], capture_output=True, text=True)
    assert "port 9 of 127.0.0.1 is privileged; choose one from 1024 on (8009:9)" in done.stdout, \
        done.stderr


def test_ports_are_free_again_after_close():
    with User("0:80").open() as user:
        port = user.forwards[0][1]
    with User(f"{port}:80").open() as user:
        assert user.forwards == [("tcp", port, 80)]
    user.close()  # idempotent


def test_addresses_follow_the_network():
    with User(network="192.168.7.0/24").open() as user:
        assert user.image_address == "192.168.7.15/24"
        assert user.outer_address == "192.168.7.2/24"


@pytest.mark.parametrize("text, wanted", [
    ("8080:80", [Forward("tcp", "127.0.0.1", 8080, 80)]),
    ("80", [Forward("tcp", "127.0.0.1", 80, 80)]),
    ("udp:5353:53,tcp:0.0.0.0:0:7", [Forward("udp", "127.0.0.1", 5353, 53),
                                     Forward("tcp", "0.0.0.0", 0, 7)]),
    ("", []),
])
def test_forwards_are_parsed(text, wanted):
    assert parse_forwards(text) == wanted


@pytest.mark.parametrize("text", ["x", "80:0", "1:2:3", "70000:80", "tcp:", "sctp:1:2",
                                  "1.2.3:4:5"])
def test_malformed_forwards_are_refused(text):
    with pytest.raises(InvalidArgument, match="forwards no port"):
        parse_forwards(text)
    with pytest.raises(CompositionError, match="forwards no port"):
        User(text)


def test_network_without_room_is_refused():
    with pytest.raises(CompositionError, match="take a /27 or wider"):
        User(network="10.0.0.0/28")


@pytest.fixture(scope="session")
def user_random(build_image):
    return build_image("user_random", _USER, sanitize=True)


@pytest.mark.parametrize("seed, buffers", [(1, 65536), (2, 4096), (3, 16384)])
def test_random_clients_under_sanitizers(user_random, stack_options, seed, buffers):
    """Forty clients with random habits: every byte checked, nothing left, no memory error."""
    words = stack_options(connections=256, send_buffer=buffers, receive_buffer=buffers,
                          time_wait="1s")
    done = subprocess.run([user_random, str(seed), "8000", *words], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def user_hostile(build_image):
    return build_image("user_hostile", _USER, sanitize=True)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hostile_image_under_sanitizers(user_hostile, stack_options, seed):
    """Noise, forged and mutated frames: no memory error, bounded memory, honest service after."""
    words = stack_options(connections=256, send_buffer=8192, receive_buffer=8192, time_wait="1s")
    done = subprocess.run([user_hostile, str(seed), "20000", *words], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_random_clients_for_long(user_random, stack_options, seed):
    """The same for minutes."""
    words = stack_options(connections=256, send_buffer=8192, receive_buffer=8192, time_wait="1s")
    done = subprocess.run([user_random, str(seed), "200000", *words], capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
def test_hostile_image_for_long(user_hostile, stack_options, seed):
    """A quarter of a million rounds of harm for each seed."""
    words = stack_options(connections=256, send_buffer=8192, receive_buffer=8192, time_wait="1s")
    done = subprocess.run([user_hostile, str(seed), "250000", *words], capture_output=True,
                          text=True, timeout=900)
    assert done.returncode == 0, done.stderr
