"""The records of the networking domain."""

from __future__ import annotations

import abc
from typing import Any

from unikit.component import Component


class Stack(Component):
    """Base of TCP/IP stack records."""


class Interface(Component):
    """Base of network interface records; :meth:`open` makes one live in this process."""

    @abc.abstractmethod
    def open(self) -> Any:
        """Open the interface: an object with ``mac``, ``fileno()``, ``send(frame)``,
        ``receive()`` and ``close()`` that is a context manager."""
