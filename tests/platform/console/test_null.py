"""``console.null``: nothing comes out, nothing waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unikit.platform.console import Null

pytestmark = pytest.mark.fast


def test_nothing_comes_out_and_the_image_goes_on(writer: Callable[..., Any]) -> None:
    """It writes, has no input, and waits for input that the platform has: it is still there."""
    with writer(Null()) as machine:
        machine.console.write("abc")
        assert machine.running
        machine.stop()
        assert machine.console.text == ""
