"""Claim: from the guest's first instruction to init_application it takes at most 60 us, by TSC."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from harness import Sample, record

from unikit.image import Image, elf
from unikit.image.boot import boot

ROUNDS = 40


@pytest.mark.kvm
def test_entry(benchmark: Any) -> None:
    """Console, allocator and scheduler are open when the application begins."""
    source = Path(__file__).parent / "entry/main.c"
    image = elf.load(Image("entry", [source], platforms=("kvm",)).build())
    hz = _tsc_hz()

    def once() -> float:
        with boot(image, "kvm", memory="16M") as machine:
            machine.wait(10)
            match = re.search(r"ticks (\d+)", machine.console.text)
            assert match
            return int(match[1]) * 1e6 / hz

    values = benchmark.pedantic(lambda: [once() for _ in range(ROUNDS)], rounds=1)
    record("entry", "guest entry to init_application, by TSC", "us",
           Sample("unikit", tuple(values)), must=60,
           constants={"Unikraft": "55-85 us (2026-11-20)"})


def _tsc_hz() -> float:
    """Return the frequency of the time stamp counter, from two looks at both clocks."""
    import subprocess
    from tempfile import TemporaryDirectory
    with TemporaryDirectory() as folder:
        source = Path(folder) / "tsc.c"
        source.write_text("""
#include <stdio.h>
#include <time.h>
int main(void)
{
    struct timespec a, b, rest = {0, 200000000};
    clock_gettime(CLOCK_MONOTONIC_RAW, &a);
    unsigned long long x = __builtin_ia32_rdtsc();
    nanosleep(&rest, 0);
    clock_gettime(CLOCK_MONOTONIC_RAW, &b);
    unsigned long long y = __builtin_ia32_rdtsc();
    printf("%.0f\\n", (double)(y - x) / ((double)(b.tv_sec - a.tv_sec) +
                                        (double)(b.tv_nsec - a.tv_nsec) / 1e9));
}
""")
        subprocess.run(["gcc", "-O1", source, "-o", Path(folder) / "tsc"], check=True)
        done = subprocess.run([Path(folder) / "tsc"], check=True, capture_output=True, text=True)
        return float(done.stdout)
