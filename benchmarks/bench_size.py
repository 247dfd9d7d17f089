"""Claim: a stripped hello image is at most 8 KiB, http at most 48 KiB (kvm and linux entries)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import Sample, record

from unikit.image import Image

PEERS = {
    "hello": {"Solo5 0.12.1, spt": "21496 B (2026-11-20)",
              "Unikraft, tuned": "147768 B (2026-11-20)",
              "Unikraft, default": "241156 B (2026-11-20)"},
    "http": {"Unikraft + lwIP": "459464 B (2026-11-20)"},
}


def size(name: str) -> float:
    """Build an image with the defaults and return its size in bytes."""
    path: Path = Image(name, platforms=("kvm", "linux")).build()
    return float(path.stat().st_size)


@pytest.mark.parametrize(("name", "must"), [("hello", 8 << 10), ("http", 48 << 10)])
def test_image_size(benchmark: Any, name: str, must: int) -> None:
    """Build from the cache; the size is the claim, the time of a cached build a by-product."""
    value = benchmark.pedantic(size, args=(name,), rounds=5, warmup_rounds=1)
    record(f"size_{name}", f"{name} image, stripped, kvm and linux entries", "B",
           Sample("unikit", (value,)), must=must, constants=PEERS[name])
