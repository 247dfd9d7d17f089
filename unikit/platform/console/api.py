"""The base of console records."""

from __future__ import annotations

from unikit.component import Component


class ConsoleComponent(Component):
    """Base of console records. What is open is ``console_interface_t`` of :file:`env.h`."""
