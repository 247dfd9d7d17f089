"""Claim: no known bad program needs more memory or instructions than bounds() says.

``tests/conformance/adversary.c`` plays: Robson's program for any allocator, the same asking for
little more than half of each block, ladders of sizes, random replacement. 1.0 is the promise.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from harness import Sample, record

from unikit import registry
from unikit.alloc import Allocator, Buddy
from unikit.errors import NotSupported

ROOT = Path(__file__).resolve().parents[1]
LIMITS = [(1 << 18, 4088), (1 << 20, 4088), (1 << 20, 65_528)]
OVERHEAD = {"alloc.tlsf": 8, "alloc.halffit": 8}


def subjects() -> Iterator[Allocator]:
    """Yield the allocators that promise a bound on memory."""
    for entry in registry.components():
        if entry.id.startswith("alloc.") and "layer" not in entry.features:
            subject = Buddy(exact=False) if entry is Buddy else entry()
            try:
                subject.worst_memory("1M", 4088)
            except NotSupported:
                continue
            yield subject


def play(program: Path, subject: Allocator, *arguments: object) -> list[tuple[str, int, int]]:
    """Run the adversary; name, found and promised of each of its lines."""
    done = subprocess.run([program, *map(str, arguments), *map(str, subject.encoded())],
                          capture_output=True, text=True, check=True)
    return [(name, int(found), int(promised)) for name, found, promised in
            re.findall(r"^(.+): (\d+) of (\d+)$", done.stdout, re.MULTILINE)]


@pytest.mark.parametrize("subject", list(subjects()), ids=lambda subject: subject.id)
def test_bounds(benchmark: Any, subject: Allocator) -> None:
    """Play every sequence within every limit."""
    with TemporaryDirectory(prefix="unikit-bench-bounds-") as folder:
        program = Path(folder) / "adversary"
        subprocess.run(["gcc", "-std=gnu11", "-O2", "-static", f"-I{ROOT}",
                        f"-DCOMPONENT={subject.symbol()}", "-o", program,
                        ROOT / "tests/conformance/adversary.c", ROOT / "unikit/rt/host.c",
                        *subject.source_files()], check=True)
        found = benchmark.pedantic(lambda: [
            (live, largest, each) for live, largest in LIMITS
            for each in play(program, subject, "memory", live, largest,
                             OVERHEAD.get(subject.id, 0))], rounds=1)
        steps = [each for operations, size in ((10_000, 1 << 20), (200, 1 << 30))
                 for each in play(program, subject, "count", operations, size)]
    ratios = Sample(subject.id, tuple(extent / promise for _, _, (_, extent, promise) in found))
    more = [Sample(f"extent / live: {name}, {live >> 10} KiB, up to {largest}", (extent / live,))
            for live, largest, (name, extent, _) in found]
    more += [Sample(f"promise / live: {live >> 10} KiB, up to {largest}",
                    (subject.worst_memory(live, largest) / live,)) for live, largest in LIMITS]
    more += [Sample(f"instructions of {name}, of {promise}", (float(most),))
             for name, most, promise in steps]
    worst = Sample(subject.id, (max(ratios.values),))
    met = record(f"alloc_bounds_{subject.stem()}",
                 f"{subject!r}: memory needed by the worst known program, of what is promised",
                 "of the promise", worst, must=1, more=more,
                 note="extent: to the end of the highest block ever; instructions by single steps")
    assert met
    assert all(most <= promise for _, most, promise in steps)
