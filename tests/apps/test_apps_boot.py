"""Bundled applications as whole images, with the clients people have: curl and plain sockets.

Without privileges over ``netif.user``; over TAP as root.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unikit import apps
from unikit.image import Image
from unikit.net import Tap, User

PLATFORMS = ["linux", pytest.param("kvm", marks=pytest.mark.kvm)]
PAGE = (Path(apps.__file__).parent / "http/site/index.html").read_bytes()
ICON = (Path(apps.__file__).parent / "http/site/icon.svg").read_bytes()

Place = tuple[str, int, Any]


@contextlib.contextmanager
def serve(name: str, platform: str, port: int, **more: Any) -> Iterator[Place]:
    """Boot an application behind a forwarded port: (address, port, machine)."""
    protocols = {"tcp": 0, "udp": 0} if name == "echo" else {"tcp": 0}
    forward = ", ".join(f"{protocol}:0:{port}" for protocol in protocols)
    with User(forward).open() as wire:
        image = Image(name, platforms=(platform,), **more)
        with image.boot(platform, memory="16M", netif=wire) as machine:
            machine.console.expect(f"listening on {port}")
            yield "127.0.0.1", {each.protocol: each.port for each in wire.ports}, machine


@pytest.fixture(params=PLATFORMS)
def web(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Run the web server: (address, port, machine)."""
    with serve("http", request.param, 80) as (address, ports, machine):
        yield address, ports["tcp"], machine


def curl(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run curl, which must not take longer than five seconds."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install curl")
    return subprocess.run(["curl", "-sS", "-m", "5", *words], capture_output=True, check=False)


def talk(web: Place, request: bytes, end: bool = True) -> bytes:
    """Send bytes and return everything that comes until the server ends the connection."""
    with socket.create_connection(web[:2], timeout=5) as peer:
        peer.sendall(request)
        if end:
            peer.shutdown(socket.SHUT_WR)
        found = b""
        while piece := peer.recv(65536):
            found += piece
        return found


def test_curl_gets_the_page_and_what_it_needs(web: Place) -> None:
    """The main job: the whole bundled site, on one kept connection."""
    base = f"http://{web[0]}:{web[1]}"
    done = curl("-w", "%{http_code} %{num_connects}\n", f"{base}/", f"{base}/icon.svg",
                f"{base}/nothing")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(PAGE)
    assert b"200 1\n" + ICON + b"200 0\n" in done.stdout
    assert done.stdout.endswith(b"404 0\n")


def test_curl_resumes_validates_and_asks_for_the_head(web: Place) -> None:
    """Range, entity tag, HEAD."""
    base = f"http://{web[0]}:{web[1]}/"
    assert curl("-r", "100-199", base).stdout == PAGE[100:200]
    assert curl("-C", "2000", base).stdout == PAGE[2000:]
    head = curl("-I", base).stdout.decode()
    assert f"Content-Length: {len(PAGE)}\r\n" in head
    tag = head.split("ETag: ")[1].split("\r\n")[0]
    again = curl("-w", "%{http_code}", "-H", f"If-None-Match: {tag}", base).stdout
    assert again == b"304"


def test_pipelined_requests_in_one_segment(web: Place) -> None:
    """Fifty at once, answered in order, the connection then ended by us."""
    request = b"GET /icon.svg HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = talk(web, request * 50)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 50
    assert answers.count(ICON) == 50


@pytest.mark.parametrize(("request_bytes", "status"), [
    (b"NONSENSE\r\n\r\n", 400), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400), (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505)])
def test_bad_requests_over_a_raw_socket(web: Place, request_bytes: bytes, status: int) -> None:
    """Said once, the connection ended, and the next client served."""
    answer = talk(web, request_bytes, end=False)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1") == 1
    assert talk(web, b"GET / HTTP/1.0\r\n\r\n").endswith(PAGE)


def test_the_status_page_tells_the_composition(web: Place) -> None:
    """Components, memory and network as they are."""
    before = json.loads(curl(f"http://{web[0]}:{web[1]}/status.json").stdout)
    after = json.loads(curl(f"http://{web[0]}:{web[1]}/status.json").stdout)
    assert {"alloc.tlsf", "net.mini", "sched.loop"} <= set(after["components"])
    assert after["platform"] in ("linux", "kvm")
    assert after["http"]["requests"] == before["http"]["requests"] + 1
    assert after["network"]["accepted"] > before["network"]["accepted"]
    assert 0 < after["memory"]["used_bytes"] <= after["memory"]["peak_bytes"]
    assert b"<h2>network</h2>" in curl(f"http://{web[0]}:{web[1]}/status").stdout


def test_many_clients_at_once_leave_no_memory_behind(web: Place) -> None:
    """Forty connections, each with several requests, cut off anyhow; then all is given back."""
    def client(number: int) -> None:
        for _ in range(3):
            with socket.create_connection(web[:2], timeout=5) as peer:
                peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * (number % 5 + 1))
                peer.recv(100 * (number % 7 + 1))

    used = json.loads(curl(f"http://{web[0]}:{web[1]}/status.json").stdout)["memory"]["blocks"]
    threads = [threading.Thread(target=client, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 5
    while True:
        now = json.loads(curl(f"http://{web[0]}:{web[1]}/status.json").stdout)
        if now["http"]["open"] == 1 and now["memory"]["blocks"] <= used + 2:
            break
        assert time.monotonic() < deadline, now
        time.sleep(0.1)
    assert now["http"]["connections"] >= 120


def test_a_folder_of_one_s_own_and_a_port(tmp_path: Path) -> None:
    """Large files, folders, types; the port given at boot."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/index.html").write_text("<p>sub")
    large = bytes(range(256)) * 8000
    (tmp_path / "large file.bin").write_bytes(large)
    with User("0:8000").open() as wire:
        image = Image("http", platforms=("linux",), files=tmp_path)
        with image.boot("linux", netif=wire, options={"app.http.port": 8000}) as machine:
            machine.console.expect("listening on 8000")
            base = f"http://127.0.0.1:{wire.ports[0].port}"
            assert curl(f"{base}/large%20file.bin").stdout == large
            assert curl("-L", f"{base}/sub").stdout == b"<p>sub"
            assert curl("-w", "%{http_code}", "-o", "/dev/null", f"{base}/").stdout == b"404"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_echo_by_tcp_and_udp(platform: str) -> None:
    """More than any buffer holds, both ways at once, half-closed at the end."""
    data = bytes(range(251)) * 8000
    with serve("echo", platform, 7) as (address, ports, _):
        with socket.create_connection((address, ports["tcp"]), timeout=10) as peer:
            sender = threading.Thread(
                target=lambda: (peer.sendall(data), peer.shutdown(socket.SHUT_WR)))
            sender.start()
            found = b""
            while piece := peer.recv(65536):
                found += piece
            sender.join()
        assert found == data
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(5)
            for size in (0, 1, 1000, 1472):
                peer.sendto(b"x" * size, (address, ports["udp"]))
                assert peer.recv(2000) == b"x" * size


@pytest.mark.parametrize("platform", PLATFORMS)
def test_hello_says_where_it_is_and_what_it_was_told(platform: str) -> None:
    """Its platform, its components, its argument; exit code 0."""
    with Image("hello").boot(platform, memory="2M", args="how are you") as machine:
        assert machine.wait(5) == 0
        first, second, third = machine.console.lines()
    assert (first, third) == ("hello from unikit", "how are you")
    assert second == f"{platform}: alloc.tlsf, platform.kvm, platform.linux, platform.pvh"


@pytest.mark.root
@pytest.mark.exercises("tap")
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_page_over_a_tap(platform: str, netns: str) -> None:
    """The image is a machine on the host's network: ping and curl reach it."""
    with Tap(address="10.7.7.1/24", namespace=netns).open() as tap, \
            Image("http", platforms=(platform,)).boot(
                platform, netif=tap, options={"net.mini.address": "10.7.7.2/24"}) as machine:
        machine.console.expect("listening on 80")
        inside = ("ip", "netns", "exec", netns)
        ping = subprocess.run([*inside, "ping", "-c1", "-W5", "10.7.7.2"], capture_output=True,
                              check=False)
        assert ping.returncode == 0, ping.stdout
        done = subprocess.run([*inside, "curl", "-sSm5", "http://10.7.7.2/"], capture_output=True,
                              check=False)
        assert done.stdout == PAGE, done.stderr


BLOCKING = """
#include <unikit/app.h>
static struct kit_tcp *listener;

/* One task for each connection: reads lines, answers each in upper case. */
static void serve(void *argument)
{
    struct kit_tcp *tcp = argument;
    char buffer[100];
    for (;;) {
        int got = kit_tcp_read(tcp, buffer, sizeof buffer, kit_clock_now() + 300 * KIT_NS_PER_MS);
        if (got == KIT_ETIMEDOUT)
            kit_tcp_write(tcp, "slow", 4, KIT_NEVER);
        if (got <= 0)
            break;
        for (int i = 0; i < got; i++)
            if (buffer[i] >= 'a' && buffer[i] <= 'z')
                buffer[i] = (char)(buffer[i] - 'a' + 'A');
        if (kit_tcp_write(tcp, buffer, (size_t)got, KIT_NEVER) != 0)
            break;
    }
    kit_tcp_close(tcp);
}

static void accept_all(void *argument)
{
    (void)argument;
    struct kit_tcp *tcp;
    uint64_t soon = kit_clock_now() + 10 * KIT_NS_PER_MS;
    kit_log("nobody: %d", kit_tcp_wait_accept(listener, soon, &tcp));
    kit_log("listening on 9");
    while (kit_tcp_wait_accept(listener, KIT_NEVER, &tcp) == 0) {
        struct kit_task_spec spec = {.entry = serve, .argument = tcp, .flags = KIT_TASK_DETACHED};
        if (kit_task_spawn(&spec, NULL) != 0)
            kit_tcp_abort(tcp);
    }
}

int init_application(void)
{
    struct kit_task_spec spec = {.entry = accept_all, .flags = KIT_TASK_DETACHED};
    struct kit_tcp *tcp;
    kit_log("outside: %d", kit_tcp_wait_accept(listener, 0, &tcp) == KIT_ENOTSUP);
    return kit_task_spawn(&spec, NULL);
}
""".replace("    kit_log(\"outside", "    if (kit_tcp_listen(9, NULL, NULL, &listener) != 0)\n"
            "        return 1;\n    kit_log(\"outside")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_blocking_calls_serve_many_clients(platform: str, tmp_path: Path) -> None:
    """A task for each client, plain loops, deadlines that fire."""
    source = tmp_path / "main.c"
    source.write_text(BLOCKING)
    with User("0:9").open() as wire:
        image = Image("upper", [source], net="mini", sched="coop", platforms=(platform,))
        with image.boot(platform, netif=wire) as machine:
            machine.console.expect("outside: 1")
            machine.console.expect("nobody: -5")
            machine.console.expect("listening on 9")
            place = ("127.0.0.1", wire.ports[0].port)
            peers = [socket.create_connection(place, timeout=5) for _ in range(10)]
            for round_ in range(5):
                for number, peer in enumerate(peers):
                    peer.sendall(b"client %d says %d" % (number, round_))
                for number, peer in enumerate(peers):
                    assert peer.recv(100) == b"CLIENT %d SAYS %d" % (number, round_)
            for peer in peers[1:]:
                peer.close()
            assert peers[0].recv(100) == b"slow"
            assert peers[0].recv(100) == b""
            peers[0].close()


@pytest.mark.parametrize("name", [app.name for app in apps.bundled()])
def test_bundled_records_are_sound(name: str) -> None:
    """Every record says what it is for and where its ports go; `find` and `bundled` agree."""
    app = apps.find(name)
    assert not app.problems()
    assert app.summary and len(app.summary) < 90
    assert app == next(each for each in apps.bundled() if each.name == name)
    assert ("net" in app.needs) == bool(app.forwards())


