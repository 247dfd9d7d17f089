"""The record of ``console.platform``."""

from __future__ import annotations

from unikit.component import component
from unikit.platform.console.api import ConsoleComponent


@component
class Platform(ConsoleComponent):
    """The platform's own console: the default, at no cost."""

    id = "console.platform"
    sources = ("platform.c",)
