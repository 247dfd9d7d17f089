"""The records of the networking domain."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from unikit.component import Component, option
from unikit.errors import InvalidArgument

if TYPE_CHECKING:
    from unikit.net.netif.layer import LayerInterface
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer(Interface):
    """Base of a layer's record: an interface that stands on another one, ``Fault(Tap("uk0"))``.

    In an image a layer stands on the platform's device and has no ``inner``.

    :cvar counters: names of what it counts, in C's order.
    """

    features = frozenset({"layer"})
    counters: ClassVar[tuple[str, ...]] = ()

    inner: Interface | None = option(
        None, "what it stands on; not said: an open interface given to over(), or in an image the "
        "platform's device", kind="component", choices=("netif",), kw_only=False)

    def open(self, env: Any = None) -> LayerInterface:
        """Open what it stands on and the layer over it; closed together.

        :param env: its clock, a host environment by default.
        :raises InvalidArgument: it stands on nothing, or on something with several ends.
        """
        if self.inner is None:
            raise InvalidArgument(f"{self!r} stands on nothing: write {type(self).__name__}"
                                  "(Tap(...)), or give over() an open interface")
        below = self.inner.open(env) if isinstance(self.inner, Layer) else self.inner.open()
        if isinstance(below, tuple):
            for end in below:
                end.close()
            raise InvalidArgument(f"{self.inner!r} has {len(below)} ends; open it and give over() "
                                  "one of them")
        try:
            return self._over(below, env, owned=True)
        except BaseException:
            below.close()
            raise

    def over(self, inner: Any, *, env: Any = None) -> LayerInterface:
        """Open the layer over an open interface, which stays the caller's and must outlive it.

        :param inner: one end of ``Pipe().open()``, an open TAP, another layer.
        :param env: its clock, a host environment by default.
        """
        return self._over(inner, env, owned=False)

    def _over(self, inner: Any, env: Any, *, owned: bool) -> LayerInterface:
        from unikit.net.netif.layer import LayerInterface
        return LayerInterface(self, inner, env, owned=owned)
