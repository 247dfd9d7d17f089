"""Claim: creating a VM up to its first console byte costs at most 1.5 times the bare C sequence.

A warm Python process boots hello with 16 MiB; ``native/boot.c`` does the identical work in C (VM,
memory, tables, image copy, processor, thread) in turn with it; no other VM is alive.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from harness import interleave, paired_ratio, record
from native import Asked, compiled

from unikit.image import Image, elf
from unikit.image.boot import boot

ROUNDS = 60


@pytest.mark.kvm
def test_boot(benchmark: Any) -> None:
    """First call to first byte, microseconds."""
    image = elf.load(Image("hello", platforms=("kvm", "linux")).build())

    def ours() -> float:
        time.sleep(0.03)  # both start cold: the last VM of the other side is gone
        with boot(image, "kvm", memory="16M") as machine:
            machine.wait(10)
            return float(machine.stats()["first_output_us"])

    with compiled("boot") as program:
        yardstick = Asked(program, str(16 << 20))

        def reference() -> float:
            time.sleep(0.03)
            return yardstick()

        found = benchmark.pedantic(interleave, args=(ROUNDS, 5), rounds=1,
                                   kwargs={"unikit": ours, "c": reference})
        yardstick.close()
    record("boot", "VM creation to first console byte, 16 MiB, warm process", "us",
           found["unikit"], must=1.5, reference=found["c"], compare="ratio",
           ratio=paired_ratio(found["unikit"], found["c"]),
           constants={"Solo5 hvt, process start to first byte": "2900 us (2026-11-20)"})
