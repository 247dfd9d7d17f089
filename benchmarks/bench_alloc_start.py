"""Claim: each allocator opens over 1 GiB in less than 2 us, and writes to at most one page of it.

The time is taken in an image, by TSC, at CPL 3, which is native on any host: the first opening, its
code cold, in memory whose first and last page the host has found already. Beside it stands the time
in untouched memory, most of which is the host's. The pages are counted in this process: those of a
fresh mapping of 1 GiB that are resident after the opening.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from bench_entry import _tsc_hz
from harness import Sample, record

from unikit import registry
from unikit.alloc import Allocator, Bump, region
from unikit.image import Image

HERE = Path(__file__).resolve().parent
ROUNDS = 9
PEERS = {"Unikraft binary buddy": "2.4 ms (2026-11-20)", "Unikraft TLSF": "24 us (2026-11-20)"}
SUBJECTS = [entry for entry in registry.components()
            if entry.id.startswith("alloc.") and "layer" not in entry.features]


def boot(subject: Allocator, hz: float) -> tuple[float, float]:
    """Boot once; the times of the first opening and of those in untouched memory, in us."""
    options = ", ".join(map(str, subject.encoded())) or "0"
    image = Image("start", sources=[HERE / "start/main.c", *subject.source_files()], alloc=Bump(),
                  platforms=["kvm"],
                  flags=[f"-DSUBJECT={subject.symbol()}", f"-DOPTIONS={options}"])
    with image.boot("kvm", memory="1100M") as machine:
        assert machine.wait(30) == 0, machine.console.text
        ticks = [int(each) for each in re.findall(r"open \d+: (\d+)", machine.console.text)]
    return ticks[0] * 1e6 / hz, median(ticks[1:]) * 1e6 / hz


def dirtied(subject: Allocator) -> int:
    """Return the KiB of 1 GiB that are resident after the opening."""
    with region("1G", hugepages="never") as memory, subject.open(memory) as heap:
        start = int(heap._ffi.cast("uintptr_t", heap._ffi.from_buffer(memory)))
        text = Path("/proc/self/smaps").read_text()
    for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
        first, last = (int(each, 16) for each in part.split()[0].split("-"))
        if first <= start < last:
            found = re.search(r"^Rss:\s+(\d+)", part, re.MULTILINE)
            assert found
            return int(found[1])
    raise AssertionError("the mapping is not there")


@pytest.mark.kvm
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.id)
def test_start(benchmark: Any, subject: type[Allocator]) -> None:
    """Open in an image and in this process."""
    hz = _tsc_hz()
    times = benchmark.pedantic(lambda: [boot(subject(), hz) for _ in range(ROUNDS)], rounds=1)
    pages = Sample("dirtied, KiB", (float(dirtied(subject())),))
    met = record(f"alloc_start_{subject.stem()}", f"opening {subject.id} over 1 GiB in an image",
                 "us", Sample(subject.id, tuple(first for first, _ in times)), must=2,
                 constants=PEERS,
                 more=[Sample("in untouched memory", tuple(warm for _, warm in times)), pages],
                 note="dirtied: KiB of a fresh mapping of 1 GiB resident after opening it, at most "
                      "4 allowed")
    assert met
    assert pages.median <= 4
