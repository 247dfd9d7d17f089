"""Claim: ten idle VMs in one Python process cost at most 256 KiB each (PSS)."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import Any

import pytest
from harness import Sample, record

from unikit.image import Image, elf
from unikit.image.boot import boot

COUNT = 10
IDLE = """
#include <unikit/app.h>
static struct kit_timer timer;
static void again(struct kit_timer *t)
{
    kit_timer_start(t, 3600 * KIT_NS_PER_S);
}
int init_application(void)
{
    timer.run = again;
    kit_print("idle\\n", 5);
    return kit_timer_start(&timer, 3600 * KIT_NS_PER_S);
}
"""


def pss() -> int:
    """Return the proportional set size of this process in bytes."""
    text = Path("/proc/self/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert match
    return int(match[1]) << 10


@pytest.mark.kvm
def test_density(benchmark: Any, tmp_path: Path) -> None:
    """The difference that ten more of them make, after one was made to warm everything up."""
    source = tmp_path / "main.c"
    source.write_text(IDLE)
    image = elf.load(Image("idle", [source], platforms=("kvm", "linux")).build())

    def once() -> float:
        with contextlib.ExitStack() as alive:
            def start() -> None:
                machine = alive.enter_context(boot(image, "kvm", memory="16M"))
                machine.console.expect("idle")
            start()
            time.sleep(0.1)
            before = pss()
            for _ in range(COUNT):
                start()
            time.sleep(0.2)
            return (pss() - before) / COUNT / 1024

    values = benchmark.pedantic(lambda: [once() for _ in range(5)], rounds=1)
    record("density", f"PSS of an idle VM, {COUNT} in one Python process, 16 MiB each", "KiB",
           Sample("unikit", tuple(values)), must=256,
           constants={"Solo5 hvt": "245 KiB (2026-11-20)", "Solo5 spt": "171 KiB (2026-11-20)"})
