"""``console.platform``: choosing it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unikit.image import Image
from unikit.platform.console import Platform

pytestmark = pytest.mark.fast


def test_it_is_the_platform_s_own(writer: Callable[..., Any]) -> None:
    """Output and input go through."""
    with writer(Platform()) as machine:
        machine.console.expect("said hello\n")
        machine.console.write("abc")
        assert machine.wait(5) == 7
        assert machine.console.lines() == ["first line", "said hello", "heard 3 bytes"]


def test_it_costs_nothing() -> None:
    """Named or not, the image is the same to the byte but for its note."""
    plain = Image("hello", platforms=("linux",)).plan
    named = Image("hello", platforms=("linux",), console="platform").plan
    assert plain == named
