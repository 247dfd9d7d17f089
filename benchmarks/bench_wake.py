"""Claim: waking a processor that sleeps costs at most 1.2 times the bare way the host has for it.

On kvm that is a store to an address bound to an eventfd, whose reader runs the other processor; on
Linux a futex. ``native/wake.c`` does just that in turn with ours; in both, the waking processor
measures by its clock from the call to the first instruction behind the other one's wait, each time
after a pause of 1 ms. The least of all rounds counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import interleave, record
from native import Asked, compiled

from unikit.image import Image, elf
from unikit.image.boot import boot

ROUNDS = 25
WAKES = 100


@pytest.mark.kvm
@pytest.mark.parametrize(("platform", "way"), [("kvm", "kvm"), ("linux", "futex")])
def test_wake(platform: str, way: str, benchmark: Any) -> None:
    """Median of 100 wake-ups, microseconds."""
    source = Path(__file__).parent / "wake/main.c"
    image = elf.load(Image("wake", [source], cpus=2, events=False, platforms=[platform]).build())

    def ours() -> float:
        with boot(image, platform, memory="4M", args=str(WAKES)) as machine:
            machine.wait(20)
            return int(machine.console.lines()[-1].removeprefix("median ")) / 1000

    with compiled("wake") as program:
        yardstick = Asked(program, way, str(WAKES))
        found = benchmark.pedantic(interleave, args=(ROUNDS, 2), rounds=1,
                                   kwargs={"unikit": ours, "c": yardstick})
        yardstick.close()
    record(f"wake_{platform}", f"waking another processor that sleeps, {platform}", "us",
           found["unikit"], must=1.2, reference=found["c"], compare="ratio",
           ratio=min(found["unikit"].values) / min(found["c"].values),
           note="the ratio is that of the least of the medians: whoever else wants one of the two "
                "processors multiplies a round of either side")
