"""The records of the networking domain."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from unikit.component import Component

if TYPE_CHECKING:
    from unikit.net.stack import NetStack


class Stack(Component):
    """Base of TCP/IP stack records; ``features`` are those of ``net.h`` in lower case.

    A record is a choice; :meth:`open` makes it live in this process.
    """

    def open(self, netif: Any, heap: Any = None, env: Any = None) -> NetStack:
        """Open the stack over a network interface.

        :param netif: an open interface, one end of ``Pipe().open()`` for example, which stays the
            caller's; or a record with one end such as ``Tap("uk0")``, which is opened, and closed
            with the stack.
        :param heap: where its memory comes from (:class:`unikit.alloc.Heap`); 64 MiB of its own
            by default, touched as needed.
        :param env: clock and entropy (:class:`unikit.platform.host.HostEnvironment`); one of its
            own by default.
        :raises InvalidArgument: an option, or what ``netif`` is.
        :raises OutOfMemory: the heap is too small.
        """
        from unikit.net.stack import NetStack
        return NetStack(self, netif, heap, env)


class Interface(Component):
    """Base of network interface records; :meth:`open` makes one live in this process."""

    @abc.abstractmethod
    def open(self) -> Any:
        """Open the interface: an object with ``mac``, ``fileno()``, ``send(frame)``,
        ``receive()`` and ``close()`` that is a context manager."""
