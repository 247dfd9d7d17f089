"""``console.null``: nothing comes out, nothing waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unikit.platform.console import Null

pytestmark = pytest.mark.fast


def test_nothing_comes_out_and_nobody_waits_for_what_cannot_come(
        writer: Callable[..., Any]) -> None:
    """The platform has input, this console has none: the image is finished, it does not spin."""
    with writer(Null()) as machine:
        machine.console.write("abc")
        assert machine.wait(5) == 0
        assert machine.console.text == ""
