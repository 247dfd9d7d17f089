"""The record of ``console.null``."""

from __future__ import annotations

from unikit.component import component
from unikit.platform.console.api import ConsoleComponent


@component
class Null(ConsoleComponent):
    """Takes everything and keeps nothing."""

    id = "console.null"
    sources = ("null.c",)
