"""The record of ``console.tee``."""

from __future__ import annotations

from unikit.component import component
from unikit.platform.console.api import ConsoleComponent


@component
class Tee(ConsoleComponent):
    """Writes to every console chosen beside it; reads from the first that has input.

    A slow console loses text, as it would alone, and does not hold the others up.
    """

    id = "console.tee"
    sources = ("tee.c",)
