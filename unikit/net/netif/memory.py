"""Interfaces in memory: the ends of a component such as ``netif.pipe``, live in this process."""

from __future__ import annotations

import threading
import warnings
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from unikit.component import Component
from unikit.errors import Closed, InvalidArgument, NotSupported, OutOfMemory
from unikit.ffi import load

if TYPE_CHECKING:
    from unikit.net.stack import NetStack

_ALIGN = 64


class MemoryInterface:
    """One end of an interface in memory. One thread at a time uses an end; two ends of one object
    may be used by two threads. Leaving its ``with`` block closes it.

    :ivar mac: address of this end, 6 bytes.
    :ivar mtu: largest payload of a frame, bytes.
    """

    def __init__(self, medium: _Medium, pointer: Any) -> None:
        self._ffi, self._lib = load.abi()
        self._medium = medium
        self._ptr = pointer
        self._buffer = self._ffi.new("uint8_t[]", pointer.mtu + 14)
        self.mac = bytes(self._ffi.buffer(pointer.mac, 6))
        self.mtu: int = pointer.mtu

    def _open(self) -> Any:
        if not self._ptr:
            raise Closed(f"{self!r}: already closed")
        return self._ptr

    def fileno(self) -> int:
        """Raise: there is no descriptor to wait on, frames move in memory.

        :raises NotSupported: always.
        """
        raise NotSupported(f"{self!r} has no descriptor; a stack on it polls")

    def send(self, frame: Any) -> None:
        """Send one Ethernet frame.

        :param frame: buffer of 14...mtu+14 bytes, without checksum at its end; copied.
        :raises WouldBlock: the ring is full.
        :raises MessageTooLong: a length outside those bounds.
        """
        data = self._ffi.from_buffer(frame)
        load.check(self._lib.kit_netif_send(self._open(), data, len(data)),
                   f"sending {len(data)} bytes to {self!r}")

    def receive(self) -> bytes | None:
        """Return the next frame that came in, or ``None`` if there is none."""
        rc = load.check(
            self._lib.kit_netif_receive(self._open(), self._buffer, len(self._buffer)),
            f"receiving from {self!r}")
        return bytes(self._ffi.buffer(self._buffer, rc)) if rc else None

    def stats(self) -> dict[str, int]:
        """Return what this end counted since it was opened, by name; empty if it counts nothing."""
        return self._medium.counters(self._open())

    def close(self) -> None:
        """Give the end up; the memory goes with the last one. Idempotent."""
        if self._ptr:
            self._medium.leave_end()
        self._ptr = None

    def __enter__(self) -> MemoryInterface:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_ptr", None):
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        return f"<{self._medium.id} end>"


class _Medium:
    """The memory behind the ends of one object, and the stacks that stand on them."""

    def __init__(self, record: Component, env: Any = None) -> None:
        ffi, _ = load.abi()
        self.id, self._ffi = record.id, ffi
        self._names: tuple[str, ...] = getattr(record, "counters", ())
        component, options = load.component(record), load.options(record)
        self._component = component
        size = component.build_size(options, ffi.NULL) if component.build else \
            component.memory_size(options)
        if size == 0:
            raise InvalidArgument(f"{record!r}: a value is out of range")
        try:
            self._memory = ffi.new("uint8_t[]", size + _ALIGN)
        except MemoryError:
            raise OutOfMemory(f"{record!r}: {size} bytes are not to be had") from None
        start = int(ffi.cast("uintptr_t", self._memory))
        aligned = self._memory + (-start % _ALIGN)
        self.pointers = ffi.new("network_interface_t *[]", component.ends)
        self._own: Any = None
        if component.build:
            self._env = env if env is not None else _environment()
            self._own = self._env if env is None else None
            base = ffi.new("struct kit_netif_base *", {"env": self._env.ptr})
            rc = component.build(options, aligned, size, base, self.pointers)
        else:
            rc = component.open(options, aligned, size, self.pointers)
        load.check(rc, f"opening {record!r}")
        self._ends = sum(1 for pointer in self.pointers if pointer)
        self._stacks: weakref.WeakKeyDictionary[NetStack, int] = weakref.WeakKeyDictionary()

    def leave_end(self) -> None:
        """Note that an end was closed; with the last one goes what the medium had of its own."""
        self._ends -= 1
        if self._ends == 0 and self._own is not None:
            self._own.close()

    def counters(self, pointer: Any) -> dict[str, int]:
        """Return what an end counted."""
        if not self._component.counters:
            return {}
        values = self._ffi.new("uint64_t[]", 64)
        count = self._component.counters(pointer, values, 64)
        return dict(zip(self._names, map(int, values[0:count]), strict=True))

    def join(self, stack: NetStack) -> None:
        """Note a stack of this thread, so that others of this thread keep it going."""
        self._stacks[stack] = threading.get_ident()

    def leave(self, stack: NetStack) -> None:
        self._stacks.pop(stack, None)

    def stacks(self) -> list[NetStack]:
        """Return the stacks on this medium that belong to the calling thread."""
        mine = threading.get_ident()
        return [stack for stack, thread in self._stacks.items() if thread == mine]


def _environment() -> Any:
    from unikit.platform.host import HostEnvironment
    return HostEnvironment()


def open_ends(record: Component, env: Any = None) -> tuple[MemoryInterface, ...]:
    """Open an interface component in memory of this process and return its ends.

    :param env: the clock of a component that needs one; a host environment by default.
    :raises InvalidArgument: an option is out of range.
    :raises OutOfMemory: the memory is not to be had.
    """
    medium = _Medium(record, env)
    return tuple(MemoryInterface(medium, pointer) for pointer in medium.pointers if pointer)


__all__ = ["MemoryInterface", "open_ends"]
