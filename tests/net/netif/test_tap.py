"""netif.tap: devices, bridges and namespaces made and unmade, frames carried byte-exact."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikit.errors import AlreadyExists, InvalidArgument, NoPermission, PlatformError, UnikitError
from unikit.net.netif import links, tap
from unikit.net.netif.host import Bridge
from unikit.net.netif.tap import Tap

_ABSENT = tap.probe() or tap.probe_namespace()
root = [pytest.mark.root, pytest.mark.skipif(_ABSENT is not None, reason=str(_ABSENT))]
_SPACE = f"uktest-{os.getpid()}"


def needs_root(test):
    for mark in root:
        test = mark(test)
    return test


def names(namespace: str = "") -> set[str]:
    """Return the names of all links in a namespace."""
    with links.Links(namespace) as net:
        return {link.get_attr("IFLA_IFNAME") for link in net.all()}


def namespaces() -> set[str]:
    from pyroute2 import netns
    return set(netns.listnetns())


def ours() -> tuple[set[str], set[str]]:
    """Return this test's links outside its namespace, and its namespaces; others make theirs."""
    return ({name for name in names() if name.startswith("ukt")},
            {name for name in namespaces() if name.startswith(_SPACE)})


@pytest.fixture
def space() -> Iterator[str]:
    """A namespace of this test's own, which everything in it goes away with."""
    from pyroute2 import netns
    before = ours()
    links.make_namespace(_SPACE)
    with links.Links(_SPACE) as net:
        net.set("lo", ifalias="")  # from here on it is somebody else's
    try:
        yield _SPACE
    finally:
        if _SPACE in namespaces():
            netns.remove(_SPACE)
    assert ours() == before


def checksum(data: bytes) -> bytes:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def answer(frame: bytes, mac: bytes, address: bytes) -> bytes | None:
    """Answer ARP, ICMP echo and UDP as the smallest honest machine would."""
    header = frame[6:12] + mac + frame[12:14]
    if frame[12:14] == b"\x08\x06" and frame[38:42] == address and frame[21] == 1:
        return header + frame[14:20] + b"\0\2" + mac + address + frame[22:32]
    if frame[12:14] != b"\x08\x00" or frame[30:34] != address:
        return None
    size = struct.unpack("!H", frame[16:18])[0]
    ip, body = frame[14:34], frame[34:14 + size]
    ip = ip[:12] + ip[16:20] + ip[12:16]
    if ip[9] == 1 and body[0] == 8:
        body = b"\0\0\0\0" + body[4:]
        return header + ip + body[:2] + checksum(body) + body[4:]
    if ip[9] == 17:
        body = body[2:4] + body[:2] + body[4:6] + b"\0\0" + body[8:]
        return header + ip + body
    return None


@contextlib.contextmanager
def machine(interface, address: str) -> Iterator[None]:
    """Run :func:`answer` on an open interface."""
    stop_read, stop_write = os.pipe()

    def serve() -> None:
        while True:
            ready, _, _ = select.select([interface, stop_read], [], [])
            if stop_read in ready:
                return
            while frame := interface.receive():
                reply = answer(frame, interface.mac, socket.inet_aton(address))
                if reply:
                    interface.send(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        os.write(stop_write, b"x")
        thread.join()
        os.close(stop_read)
        os.close(stop_write)


def sockets_in(namespace: str, kind: int) -> socket.socket:
    made = links.inside(namespace, lambda: socket.socket(socket.AF_INET, kind))
    made.settimeout(10)
    return made


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(1 << 20):
        data += piece
    return bytes(data)


def ping(namespace: str, address: str, *more: str) -> str:
    command = ["ping", "-n", "-c", "3", "-i", "0.02", "-W", "5", *more, address]
    done = links.inside(namespace, lambda: subprocess.run(
        command, capture_output=True, text=True, timeout=60))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_root
def test_kernel_pings_and_talks_udp_to_the_image_end(space):
    """Frames pass both ways at every size, and the addresses are the ones asked for."""
    record = Tap("ukt0", address="10.77.1.1/24", namespace=space, mac="02:00:00:00:07:02")
    with record.open() as live, machine(live, "10.77.1.2"):
        assert live.image_address == "10.77.1.2/24"
        assert live.mac == bytes.fromhex("020000000702")
        assert "3 received" in ping(space, "10.77.1.2", "-s", "1472", "-M", "do")
        assert "3 received" in ping(space, "10.77.1.2", "-s", "0")
        with sockets_in(space, socket.SOCK_DGRAM) as sock:
            for size in (0, 1, 18, 511, 1472):
                data = os.urandom(size)
                sock.sendto(data, ("10.77.1.2", 7))
                assert sock.recvfrom(2000) == (data, ("10.77.1.2", 7))
        stats = live.stats()
        assert stats["frames_out"] >= 11 and stats["errors"] == 0
    assert names(space) == {"lo"}


@pytest.fixture(scope="session")
def peer(build_image):
    """The test image as a process on a descriptor."""
    return build_image("peer", ["host_fd.c"])


@needs_root
def test_kernel_talks_tcp_to_a_stack_on_the_device(space, peer, stack_options):
    """curl, and 16 MB each way, between the host's kernel and a unikit stack on the TAP."""
    with Tap("ukt0", address="10.77.2.1/24", namespace=space).open() as live:
        address = live.image_address.partition("/")[0]
        child = subprocess.Popen([peer, str(live.fileno()), address, *stack_options()],
                                 pass_fds=[live.fileno()], stdout=subprocess.PIPE)
        try:
            assert child.stdout.readline() == b"ready\n"
            ping(space, address, "-s", "1472")
            page = links.inside(space, lambda: subprocess.run(
                ["curl", "-sS", "--max-time", "20", *[f"http://{address}/"] * 20],
                capture_output=True))
            assert page.stdout == b"x" * 612 * 20, page.stderr
            with sockets_in(space, socket.SOCK_STREAM) as sock:
                sock.connect((address, 9))
                sock.sendall(bytes(16 << 20))
                sock.shutdown(socket.SHUT_WR)
                assert struct.unpack("=Q", read_all(sock)) == (16 << 20,)
            with sockets_in(space, socket.SOCK_STREAM) as sock:
                sock.connect((address, 19))
                sock.sendall(struct.pack("=Q", 16 << 20))
                assert len(read_all(sock)) == 16 << 20
        finally:
            child.kill()
            child.communicate()


@needs_root
def test_bridge_carries_kernel_tcp_between_two_taps(space):
    """A 24 MB stream each way through kit_netif_bridge arrives byte for byte."""
    other = space + "-b"
    with Tap("ukt0", address="10.77.1.1/24", namespace=space).open() as a, \
            Tap("ukt1", address="10.77.1.2/24", namespace=other).open() as b, \
            Bridge(a, b) as bridge:
        ping(space, "10.77.1.2")
        blob = os.urandom(1 << 20) * 24
        with sockets_in(other, socket.SOCK_STREAM) as listener:
            listener.bind(("10.77.1.2", 80))
            listener.listen()
            client = sockets_in(space, socket.SOCK_STREAM)
            client.connect(("10.77.1.2", 80))
            server, _ = listener.accept()
            with client, server:
                for sender, receiver in ((client, server), (server, client)):
                    assert transfer(sender, receiver, blob) == blob
        stats = bridge.stats()
        assert stats["ab_dropped"] == stats["ba_dropped"] == 0
        assert stats["ab_bytes"] > len(blob) and stats["ba_bytes"] > len(blob)
    assert other not in namespaces()


def transfer(sender: socket.socket, receiver: socket.socket, blob: bytes) -> bytes:
    thread = threading.Thread(target=sender.sendall, args=(blob,))
    thread.start()
    got = bytearray()
    while len(got) < len(blob):
        piece = receiver.recv(1 << 20)
        assert piece
        got += piece
    thread.join()
    return bytes(got)


@needs_root
def test_what_a_tap_needed_goes_with_it(space):
    """Bridge and namespace made for it go; the namespace's other links are not touched."""
    before = ours()
    record = Tap("ukt0", namespace=space + "-n", bridge="ukt-br", address="10.77.3.1/24")
    with record.open() as live:
        assert names(space + "-n") >= {"ukt0", "ukt-br"}
        assert "ukt0" in repr(live)
    assert ours() == before
    live.close()  # idempotent


@needs_root
def test_two_taps_share_a_bridge_until_the_last_one_leaves(space):
    """The first to close leaves the bridge to the second."""
    first = Tap("ukt0", namespace=space, bridge="ukt-br").open()
    second = Tap("ukt1", namespace=space, bridge="ukt-br").open()
    first.close()
    assert names(space) == {"lo", "ukt1", "ukt-br"}
    second.close()
    assert names(space) == {"lo"}


@needs_root
def test_devices_of_others_stay_as_they_were(space):
    """A bridge and a persistent TAP that existed survive, with only their own addresses."""
    with links.Links(space) as net:
        net._route.link("add", ifname="theirs", kind="bridge")
    Tap("ukt9", namespace=space, persist=True, owner=0).open().close()
    assert "ukt9" in names(space)
    with Tap("ukt9", namespace=space, bridge="theirs", address="10.77.4.1/24").open():
        pass
    with links.Links(space) as net:
        assert names(space) == {"lo", "ukt9", "theirs"}
        assert net.find("ukt9").get_attr("IFLA_MASTER") in (None, 0)
        assert not list(net._route.get_addr(index=net.index("theirs"), family=socket.AF_INET))


@needs_root
def test_failure_halfway_leaves_nothing(space):
    """A step that fails after the device was made unmakes it, the namespace and the bridge."""
    before = ours(), names(space)
    with pytest.raises(PlatformError, match="not a bridge"):
        Tap("ukt0", namespace=space, bridge="lo", address="10.77.5.1/24", persist=True).open()
    with pytest.raises(InvalidArgument):
        Tap("ukt0", namespace=space, bridge="b" * 16).open()
    assert (ours(), names(space)) == before


@needs_root
def test_name_in_use_is_said_so(space):
    """By another opener, and by a link that is no TAP."""
    with Tap("ukt0", namespace=space).open():
        with pytest.raises(AlreadyExists, match="in use by another process"):
            Tap("ukt0", namespace=space).open()
        with pytest.raises(AlreadyExists, match="not a TAP"):
            Tap("lo", namespace=space).open()


@needs_root
def test_names_are_made_up_if_none_is_given(space):
    with Tap(namespace=space).open() as a, Tap(namespace=space).open() as b:
        assert {a.name, b.name} == {"uk0", "uk1"}


@pytest.mark.parametrize("fields, match", [
    ({"name": "x" * 16}, "16 bytes; the kernel allows 15"),
    ({"name": "a b"}, "no spaces"),
    ({"mac": "01:00:5e:00:00:01"}, "is not a MAC address"),
    ({"mac": "02:00"}, "is not a MAC address"),
])
def test_bad_arguments_are_refused_before_anything_is_made(fields, match):
    with pytest.raises(InvalidArgument, match=match):
        Tap(**fields).open()


_KILLED = """
import os, sys
from unikit.net.netif.tap import Tap
live = Tap("ukt0", namespace=sys.argv[1], bridge="ukt-br", address="10.77.6.1/24").open()
print("ready", flush=True)
sys.stdin.read()
"""


@needs_root
def test_next_run_cleans_up_after_a_killed_one(space):
    """SIGKILL leaves a bridge and a namespace; the next Tap removes both, by their owner's tag."""
    name = space + "-k"
    child = subprocess.Popen([sys.executable, "-c", _KILLED, name], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    Tap(namespace=space).open().close()
    assert name in namespaces(), "a living owner's namespace was taken away"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert "ukt-br" in names(name)
    with Tap("ukt0", namespace=name).open():
        pass
    assert name not in namespaces()


_UNPRIVILEGED = """
import os, sys
from unikit.errors import UnikitError
from unikit.net.netif.host import socket_pair
from unikit.net.netif.links import Links
from unikit.net.netif.tap import Tap
Links().close()
for end in socket_pair():  # what lies in root's folders is loaded while it may be read
    end.close()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    live = Tap(sys.argv[1], address=sys.argv[2]).open()
    live.close()
    print("opened")
except UnikitError as error:
    print(type(error).__name__, error)
"""


def _unprivileged(namespace: str, name: str, address: str = "") -> str:
    return links.inside(namespace, lambda: subprocess.run(
        [sys.executable, "-c", _UNPRIVILEGED, name, address], capture_output=True, text=True,
        timeout=60)).stdout


@needs_root
def test_ordinary_user_opens_a_tap_that_belongs_to_him(space):
    """A pre-made TAP needs no privileges; making or changing one says what would help."""
    device = Path("/dev/net/tun")
    mode = device.stat().st_mode
    device.chmod(mode | 0o666)  # as udev does it everywhere
    try:
        record = Tap("ukt0", namespace=space, persist=True, owner=65534, address="10.77.7.1/24")
        record.open().close()
        Tap("ukt1", namespace=space, persist=True, owner=1).open().close()
        assert _unprivileged(space, "ukt0") == "opened\n"
        assert _unprivileged(space, "ukt0", "10.77.7.1/24") == "opened\n"
        assert "NoPermission" in (said := _unprivileged(space, "ukt0", "10.77.8.1/24"))
        assert "CAP_NET_ADMIN" in said
        assert "belongs to another user" in _unprivileged(space, "ukt1")
        assert "User()" in _unprivileged(space, "ukt2")
    finally:
        device.chmod(mode)
    said = _unprivileged(space, "ukt0")
    assert said == "opened\n" if mode & 0o006 else "/dev/net/tun may not be opened" in said


def test_missing_device_file_has_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(tap, "_DEVICE", str(tmp_path / "tun"))
    with pytest.raises(PlatformError, match="modprobe tun") as caught:
        Tap().open()
    assert caught.value.errno == errno.ENOENT
    assert "modprobe tun" in tap.probe()


@pytest.mark.parametrize("own, other", [
    ("10.0.0.1/24", "10.0.0.2/24"), ("10.0.0.254/24", "10.0.0.1/24"),
    ("10.0.0.0/31", "10.0.0.1/31"), ("10.0.0.1/31", "10.0.0.0/31"), ("10.0.0.5/30", "10.0.0.6/30"),
])
def test_neighbour_is_another_host_of_the_network(own, other):
    assert tap.neighbour(own) == other


def test_neighbour_needs_room():
    with pytest.raises(InvalidArgument, match="room for one"):
        tap.neighbour("10.0.0.1/32")


def test_probe_says_why_in_words():
    """Whatever the machine, the answer is None or a reason that names a remedy."""
    for reason in (tap.probe(), tap.probe_namespace()):
        assert reason is None or ";" in reason
    assert issubclass(NoPermission, UnikitError)
