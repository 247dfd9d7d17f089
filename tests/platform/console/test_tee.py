"""``console.tee``: joined by itself when there are several consoles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unikit.image import Image
from unikit.platform.console import Buffer, Null, Platform

pytestmark = pytest.mark.fast


def test_the_composer_puts_it_behind_several_consoles() -> None:
    """A person names consoles; that they need a tee is not their business."""
    plan = Image("hello", console=[Platform(), Buffer()], platforms=("linux",)).plan
    assert [each.id for each in plan.consoles] == ["console.platform", "console.buffer",
                                                   "console.tee"]


def test_each_gets_everything_and_input_comes_from_the_one_that_has_it(
        writer: Callable[..., Any]) -> None:
    """In a whole image."""
    with writer([Null(), Platform(), Buffer()]) as machine:
        machine.console.expect("said hello\n")
        machine.console.write("abcd")
        assert machine.wait(5) == 7
        assert machine.console.lines() == ["first line", "said hello", "heard 4 bytes"]
