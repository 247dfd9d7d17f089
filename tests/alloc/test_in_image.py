"""The third harness: the same C, freestanding, inside an image, calling without any table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unikit.alloc import Allocator, Buddy, Bump, Firstfit, Halffit, Shard, Slab, Tlsf
from unikit.image import Image

HERE = Path(__file__).resolve().parent
SUITE = HERE.parents[1] / "unikit/testing"


@pytest.mark.parametrize("platform", ["linux", pytest.param("kvm", marks=pytest.mark.kvm)])
@pytest.mark.parametrize("record", [Buddy(), Bump(), Firstfit(), Halffit(), Shard(), Slab(),
                                    Tlsf()],
                         ids=lambda record: record.id)
def test_conforms_in_an_image(record: Allocator, platform: str) -> None:
    """What holds in a process must hold where the allocator is really used."""
    values = ",".join(map(str, record.encoded() or [0]))
    image = Image("suite", sources=[HERE / "suite_app.c", *sorted(SUITE.glob("suite_alloc*.c"))],
                  alloc=record, platforms=[platform], flags=[f"-DOPTIONS={values}"])
    with image.boot(platform, memory="4M") as machine:
        code = machine.wait(30)
        text = machine.console.text
    assert code == 0, text
    counted = re.search(r"(\d+) checks, result 0", text)
    assert counted, text
    assert int(counted[1]) > 50_000
