"""Schedulers in whole images."""

from __future__ import annotations

from pathlib import Path

import pytest

from unikit.errors import GuestExit
from unikit.image import Image
from unikit.sched import Coop

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("platform", ["linux", pytest.param("kvm", marks=pytest.mark.kvm)])
def test_a_stack_overflow_in_an_image_names_the_task(platform: str) -> None:
    """The guard page is real, the fault is caught at the first byte, and the report says whose."""
    image = Image("overflow", sources=[HERE / "image/overflow.c"], sched=Coop(stack="8K"))
    with (pytest.raises(GuestExit, match="stack overflow in task 'deep-thought': write") as caught,
          image.boot(platform=platform, memory="4M") as machine):
        machine.wait(10)
    assert caught.value.reason == "fault"
    assert "sink" in caught.value.backtrace[0]
