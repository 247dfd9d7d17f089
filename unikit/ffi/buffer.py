"""The base class of Python objects that show memory which C owns.

``Exporter`` offers the buffer protocol (``memoryview(x)``, ``numpy.frombuffer(x)``) and
counts the views others hold, so that the memory is not taken away under them.
"""

from __future__ import annotations

from typing import Any, overload

from unikit.errors import check
from unikit.ffi import load


class Exporter:
    """Memory that C owns; replaced by the C type of the same shape when this module is imported."""

    _views: int
    _address: int
    _size: int

    def __buffer__(self, flags: int, /) -> memoryview:
        raise NotImplementedError

    def _bind(self, address: int, size: int) -> None:
        """Export ``size`` bytes at ``address`` from now on (0: nothing).

        :raises BufferError: there are views of what is exported now.
        """
        raise NotImplementedError

    def _extend(self, size: int) -> None:
        """Export ``size`` bytes, not fewer than now, from where they are; views may exist."""
        raise NotImplementedError


check(load.extension("unikit.ffi._buffer")[1].kit_buffer_install(__name__.encode()),
      f"installing the buffer type in {__name__}")


class Buffer(Exporter):
    """Memory that C owns with the items of a ``bytearray``: bytes to read, slices are views."""

    __slots__ = ()

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> memoryview: ...

    def __getitem__(self, key: int | slice) -> int | memoryview:
        return memoryview(self)[key]

    def __setitem__(self, key: int | slice, value: Any) -> None:
        memoryview(self)[key] = value
