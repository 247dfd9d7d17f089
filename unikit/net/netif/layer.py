"""Layers over open interfaces, live in this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from unikit.errors import DeviceError, InvalidArgument, NotSupported
from unikit.ffi import load
from unikit.net.netif.host import HostInterface

if TYPE_CHECKING:
    from unikit.net.api import Layer

_EXTENSION = "unikit.net.netif._host"


class LayerInterface(HostInterface):
    """An open layer: a host interface with the descriptor of what it stands on.

    What is no member of its own is that of the interface below (``forwards``, ``image_address``).

    :ivar inner: the interface below.
    """

    def __init__(self, record: Layer, inner: Any, env: Any, *, owned: bool, file: int = -1) -> None:
        if not getattr(inner, "_ptr", None):
            raise InvalidArgument(f"{inner!r} is no open network interface")
        from unikit.platform.host import HostEnvironment
        self._own, self._lib = load.extension(_EXTENSION)
        self.inner, self._record, self._owned = inner, record, owned
        self._environment = env if env is not None else HostEnvironment()
        self._private = env is None
        self._medium = getattr(inner, "_medium", None)
        out = self._own.new("struct kit_host_netif **")
        try:
            load.check(self._lib.kit_host_layer_open(
                load.component(record), load.options(record), self._environment.ptr, inner._ptr,
                getattr(inner, "_host", None) or self._own.NULL, file, out),
                f"opening {record!r} over {inner!r}")
        except BaseException:
            if self._private:
                self._environment.close()
            raise
        super().__init__(out[0])

    def fileno(self) -> int:
        """Return the descriptor of the interface below.

        :raises NotSupported: that has none.
        """
        fd = super().fileno()
        if fd < 0:
            raise NotSupported(f"{self.inner!r} has no descriptor; a stack on it polls")
        return fd

    def stats(self) -> dict[str, int]:
        """Return the layer's counters since it was opened; ``inner`` has its own."""
        values = self._own.new("uint64_t[64]")
        count = self._lib.kit_host_layer_counters(self._open(), values, 64)
        return dict(zip(self._record.counters, map(int, values[0:count]), strict=True))

    def _release(self) -> None:
        error = self._lib.kit_host_layer_close(self._host)
        if self._private:
            self._environment.close()
        if self._owned:
            self.inner.close()
        if error:
            raise DeviceError(error, f"writing what {self._record!r} keeps: {os.strerror(error)}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"<{type(self._record).__name__} over {self.inner!r}>"


__all__ = ["LayerInterface"]
