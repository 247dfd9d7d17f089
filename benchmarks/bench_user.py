"""Claim: without privileges a browser or a load generator is served well: through ``netif.user``
the http image answers at least 20,000 requests a second, keep-alive over eight connections.

The whole way counts: wrk, the host's TCP, the hosted outer stack, the monitor, the image. wrk
shares the processors with all of it. The same image as a Linux process stands beside the one on
kvm.
"""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from harness import Sample, record

from unikit.image import Image, elf
from unikit.image.boot import boot
from unikit.net import User

ROUNDS, SECONDS = 5, 3


def load(image: Any, platform: str) -> float:
    """Return microseconds per request."""
    with User("0:80").open() as netif, boot(image, platform, memory="16M", netif=netif) as machine:
        machine.console.expect("listening")
        url = f"http://127.0.0.1:{netif.forwards[0][1]}/"
        done = subprocess.run(["wrk", "-t1", "-c8", f"-d{SECONDS}", url], check=True,
                              capture_output=True, text=True)
    match = re.search(r"(\d+) requests in", done.stdout)
    assert match and "Non-2xx" not in done.stdout, done.stdout
    return SECONDS * 1e6 / int(match[1])


@pytest.mark.kvm
def test_user(benchmark: Any) -> None:
    """Microseconds of wall clock per request, eight connections in flight."""
    image = elf.load(Image("http", platforms=("kvm", "linux")).build())

    def measure() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"kvm": [], "linux": []}
        for _ in range(ROUNDS):
            for platform, values in found.items():
                values.append(load(image, platform))
        return found

    found = benchmark.pedantic(measure, rounds=1)
    record("user_http", "HTTP keep-alive through netif.user, wrk -t1 -c8, image on kvm", "us",
           Sample("kvm", tuple(found["kvm"])), must=50,
           more=[Sample("linux", tuple(found["linux"]))],
           note="wall clock per request; wrk runs on the same processors")
