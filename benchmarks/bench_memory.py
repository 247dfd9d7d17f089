"""Claim: hello runs in 128 KiB of guest memory on kvm, http serves a page in 1 MiB.

That is all the memory the guest has: image, page tables, rings, stack and heap. The smallest size
is found by bisection in steps of a page.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Sample, record

from unikit import apps
from unikit.errors import UnikitError
from unikit.image import Image
from unikit.net import User

PAGE = 4096
PAGE_BYTES = (Path(apps.__file__).parent / "http/site/index.html").read_bytes()
PEERS = {
    "hello": {"Unikraft, tuned": "1536 KiB (2026-11-20)", "Solo5 0.12.1, hvt": "4096 KiB "
              "(2026-11-20)"},
    "http": {"Unikraft + lwIP": "4096 KiB (2026-11-20)"},
}


def says_hello(memory: int) -> bool:
    """Return whether hello prints its line and ends well with so many bytes."""
    try:
        with Image("hello").boot("kvm", memory=memory) as machine:
            return machine.wait(5) == 0 and "hello from unikit" in machine.console.text
    except UnikitError:
        return False




def serves(memory: int) -> bool:
    """Return whether http delivers its whole page within a second with so many bytes."""
    try:
        with Image("http").boot("kvm", memory=memory, netif=User(forward="0:80")) as machine:
            machine.console.expect("listening", timeout=5)
            port = machine.netif.forwards[0][1]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1) as answer:
                return bool(answer.read() == PAGE_BYTES)
    except (UnikitError, OSError):
        return False


def smallest(works: Callable[[int], bool], most: int) -> float:
    """Return the least memory that works, in bytes; ``most`` MUST work."""
    low, high = 0, most // PAGE
    assert works(most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle * PAGE) else (middle, high)
    return float(high * PAGE)


@pytest.mark.kvm
@pytest.mark.parametrize(("name", "works", "must"), [
    ("hello", says_hello, 128 << 10), ("http", serves, 1 << 20)])
def test_smallest_memory(benchmark: Any, name: str, works: Callable[[int], bool],
                         must: int) -> None:
    """Bisect; the memory is the claim, the time of the search a by-product."""
    value = benchmark.pedantic(smallest, args=(works, 4 << 20), rounds=1)
    record(f"memory_{name}", f"smallest guest memory, {name} on kvm", "B",
           Sample("unikit", (value,)), must=must, constants=PEERS[name])
