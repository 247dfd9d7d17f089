"""Claim: HTTP keep-alive, a file of 612 bytes, wrk -t1 -c8, image on kvm over a TAP: the serving
process spends at most twice the CPU time per request of nginx with one worker.

nginx serves the same file over veth from a network namespace; both are loaded in turn in one run.
CPU time is that of all threads of the serving process, by the scheduler's statistics.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Sample, paired_ratio, record

ROUNDS, SECONDS = 7, 4
GUEST, SERVER = "10.79.3.2", "10.79.4.2"


def cpu_ns(pids: list[int]) -> int:
    """Return the CPU time of processes, all threads, in nanoseconds."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total


def load(url: str, pids: list[int]) -> tuple[float, float]:
    """Return (CPU microseconds per request of the servers, requests per second)."""
    before = cpu_ns(pids)
    done = subprocess.run(["wrk", "-t1", "-c8", f"-d{SECONDS}", url], check=True,
                          capture_output=True, text=True)
    spent = cpu_ns(pids) - before
    match = re.search(r"(\d+) requests in", done.stdout)
    assert match and "Non-2xx" not in done.stdout, done.stdout
    requests = int(match[1])
    return spent / requests / 1000, requests / SECONDS


@contextlib.contextmanager
def nginx(site: Path, folder: Path) -> Iterator[list[int]]:
    """Run nginx with one worker behind a veth pair; yield its processes."""
    from pyroute2 import IPRoute, NSPopen, netns
    netns.create("ukbenchns")
    try:
        with IPRoute() as ip:
            ip.link("add", ifname="ukbv0", kind="veth",
                    peer={"ifname": "ukbv1", "net_ns_fd": "ukbenchns"})
            index = ip.link_lookup(ifname="ukbv0")[0]
            ip.addr("add", index=index, address="10.79.4.1", prefixlen=24)
            ip.link("set", index=index, state="up")
        from pyroute2 import NetNS
        with NetNS("ukbenchns") as inside:
            index = inside.link_lookup(ifname="ukbv1")[0]
            inside.addr("add", index=index, address=SERVER, prefixlen=24)
            inside.link("set", index=index, state="up")
            inside.link("set", index=inside.link_lookup(ifname="lo")[0], state="up")
        (folder / "nginx.conf").write_text(f"""
user root;
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 100000000;
    server {{ listen {SERVER}:80; root {site}; }}
}}
""")
        process = NSPopen("ukbenchns", ["nginx", "-p", str(folder), "-c",
                                        str(folder / "nginx.conf")],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            master = int((folder / "nginx.pid").read_text())
            children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
            yield [master, *map(int, children)]
        finally:
            process.terminate()
            process.wait()
            process.release()
    finally:
        netns.remove("ukbenchns")


@contextlib.contextmanager
def guest(site: Path) -> Iterator[list[int]]:
    """Run the http image in a process of its own; yield that process."""
    process = subprocess.Popen([sys.executable, "-c", f"""
import sys
from unikit.image import Image
from unikit.net.netif.tap import Tap
with Image("http", files={str(site)!r}).boot(
        "kvm", netif=Tap("ukbench2", address="10.79.3.1/24"),
        options={{"net.mini.address": "{GUEST}/24"}}) as machine:
    machine.console.expect("listening")
    print("up", flush=True)
    sys.stdin.read()
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "up\n"
        yield [process.pid]
    finally:
        process.communicate(timeout=10)


@pytest.mark.kvm
@pytest.mark.root
@pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("nginx")), reason="needs wrk, nginx")
def test_http(benchmark: Any, tmp_path: Path) -> None:
    """Both servers stay up; wrk loads one after the other."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_bytes(b"u" * 612)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    with nginx(site, tmp_path) as one, guest(site) as two:

        def rounds() -> None:
            for number in range(ROUNDS + 1):
                pair = load(f"http://{GUEST}/index.html", two), \
                    load(f"http://{SERVER}/index.html", one)
                if number:
                    ours.append(pair[0])
                    theirs.append(pair[1])

        benchmark.pedantic(rounds, rounds=1)
    cpu = Sample("unikit", tuple(each[0] for each in ours))
    reference = Sample("nginx", tuple(each[0] for each in theirs))
    record("http_cpu", "HTTP keep-alive, 612 B, wrk -t1 -c8: CPU time per request", "us", cpu,
           must=2, reference=reference, compare="ratio", ratio=paired_ratio(cpu, reference),
           more=[Sample("unikit, requests per second", tuple(each[1] for each in ours)),
                 Sample("nginx, requests per second", tuple(each[1] for each in theirs))])
