"""Host interfaces in this process: open network interfaces, and the bridge between two of them.

A *host interface* is the outer end of an image's network: a TAP device, a socket, forwarded ports.
A platform's device thread moves frames between it and the image; a stack in this process
(:mod:`unikit.net`) can stand on it just as well.
"""

from __future__ import annotations

import os
import socket
import threading
import warnings
from types import TracebackType
from typing import Any

from unikit.errors import Closed, InvalidArgument, PlatformError
from unikit.ffi import load

_EXTENSION = "unikit.net.netif._host"
_ECLOSED = -4
_NEVER = 2**64 - 1


def random_mac() -> bytes:
    """Return a new locally administered unicast MAC address, 6 bytes."""
    return b"\x02" + os.urandom(5)


def parse_mac(text: str) -> bytes:
    """Return the 6 bytes of ``"02:00:00:00:00:01"``; a new random address for ``""``.

    :raises InvalidArgument: malformed, or a group address (it cannot belong to one interface).
    """
    if not text:
        return random_mac()
    parts = text.replace("-", ":").split(":")
    try:
        mac = bytes(int(part, 16) for part in parts)
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1:
        raise InvalidArgument(f"{text!r} is not a MAC address of an interface; write six hex bytes "
                              "like 02:00:00:00:00:01, the first one even")
    return mac


class HostInterface:
    """An open interface whose frames a platform or a stack in this process exchanges.

    Use from one thread at a time. Leaving its ``with`` block closes it.

    :ivar mac: address of the image's end, 6 bytes.
    :ivar mtu: largest payload of a frame, bytes.
    :ivar users: machines whose threads move its frames; it cannot be closed before them.
    """

    def __init__(self, pointer: Any) -> None:
        self._ffi, _ = load.abi()
        self._host = pointer
        self._ptr = self._ffi.cast("network_interface_t *", pointer)
        self._buffer = self._ffi.new("uint8_t[]", pointer.network.mtu + 14)
        self.mac = bytes(self._ffi.buffer(pointer.network.mac, 6))
        self.mtu: int = pointer.network.mtu
        self.users: list[str] = []

    def _open(self) -> Any:
        if not self._host:
            raise Closed(f"{self!r}: already closed")
        return self._host

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`receive` may have something."""
        return int(self._open().fd)

    @property
    def deadline_ns(self) -> int | None:
        """When :meth:`receive` is due even if the descriptor stays silent, by the monotonic clock.

        ``None``: never.
        """
        host = self._open()
        deadline = int(host.deadline_ns(host)) if host.deadline_ns else _NEVER
        return None if deadline == _NEVER else deadline

    def send(self, frame: Any) -> None:
        """Send one Ethernet frame from the image's end to the world.

        :param frame: buffer of 14...mtu+14 bytes, without checksum at its end; copied.
        :raises WouldBlock: the other side takes no more now.
        :raises MessageTooLong: a length outside those bounds.
        :raises Closed: the other side is gone.
        """
        self._open()
        data = self._ffi.from_buffer(frame)
        load.check(self._ptr.send_packet(self._ptr, data, len(data)),
                   f"sending {len(data)} bytes to {self!r}")

    def receive(self) -> bytes | None:
        """Return one frame from the world to the image, or ``None`` if there is none.

        :raises Closed: the other side is gone.
        """
        self._open()
        rc = load.check(self._ptr.receive_packet(self._ptr, self._buffer, len(self._buffer)),
                        f"receiving from {self!r}")
        return bytes(self._ffi.buffer(self._buffer, rc)) if rc else None

    def stats(self) -> dict[str, int]:
        """Return counters since it was opened."""
        raise NotImplementedError

    def _release(self) -> None:
        """Free what C holds; the subclass's part of :meth:`close`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give everything back; idempotent.

        :raises PlatformError: a machine still uses it.
        """
        if self._host and self.users:
            raise PlatformError(f"{self!r} is in use by {', '.join(self.users)}; close that first")
        if self._host:
            try:
                self._release()
            finally:
                self._host = self._ptr = None

    def __enter__(self) -> HostInterface:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_host", None):
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class FdInterface(HostInterface):
    """A descriptor with one frame per read and write: a TAP, a packet socket.

    :param fd: stays the caller's and becomes nonblocking.
    :param mac: of the image's end; a random one if ``None``.
    :param mtu: 68...65521.
    :raises InvalidArgument: not a descriptor, or an MTU outside those bounds.
    """

    def __init__(self, fd: int, *, mac: bytes | None = None, mtu: int = 1500) -> None:
        self._own, self._lib = load.extension(_EXTENSION)
        out = self._own.new("struct kit_host_netif **")
        load.check(self._lib.kit_host_fd_open(fd, mac or random_mac(), mtu, out),
                   f"opening descriptor {fd} with mtu {mtu}")
        super().__init__(out[0])

    def stats(self) -> dict[str, int]:
        """Return counters since it was opened: frames, bytes, drops by cause."""
        out = self._own.new("struct kit_host_stats *")
        self._lib.kit_host_fd_stats(self._open(), out)
        return {name: int(getattr(out, name)) for name in dir(out)}

    def _release(self) -> None:
        self._lib.kit_host_fd_close(self._host)


class PacketSocket(FdInterface):
    """One end of a pair of packet sockets; made by :func:`socket_pair`."""

    def __init__(self, sock: socket.socket, **more: Any) -> None:
        super().__init__(sock.fileno(), **more)
        self._socket = sock

    def _release(self) -> None:
        super()._release()
        self._socket.close()


def socket_pair(*, mtu: int = 1500) -> tuple[PacketSocket, PacketSocket]:
    """Return two interfaces with a wire between them, one end of which another process may have."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return PacketSocket(a, mtu=mtu), PacketSocket(b, mtu=mtu)


class Bridge:
    """Moves frames between two host interfaces in a thread of its own until closed.

    The interfaces stay the caller's, who MUST NOT use them meanwhile, and are closed after it.

    :param spin_us: longest time to poll before sleeping; 0 saves the most processor time.
    """

    def __init__(self, a: HostInterface, b: HostInterface, *, spin_us: int = 0) -> None:
        ffi, self._lib = load.extension(_EXTENSION)
        self._ends = (a, b)
        self._wake = os.eventfd(0)
        self._bridge = ffi.new("struct kit_bridge *", {
            "stop_fd": self._wake, "spin_ns": spin_us * 1000})
        self._result = 0
        pointers = (a._open(), b._open())
        self._thread = threading.Thread(target=self._run, args=pointers, daemon=True,
                                        name="unikit-bridge")
        self._thread.start()

    def _run(self, a: Any, b: Any) -> None:
        self._result = self._lib.kit_netif_bridge(a, b, self._bridge)

    @property
    def running(self) -> bool:
        """Whether frames still flow; it ends by itself when an interface does."""
        return self._thread.is_alive()

    def stats(self) -> dict[str, int]:
        """Return frames, bytes, drops and waits by direction, and how often it slept."""
        found = {"sleeps": int(self._bridge.sleeps)}
        for way in ("ab", "ba"):
            for name in ("frames", "bytes", "dropped", "held"):
                found[f"{way}_{name}"] = int(getattr(getattr(self._bridge, way), name))
        return found

    def close(self) -> None:
        """Stop it; idempotent.

        :raises DeviceError: an interface failed meanwhile.
        :raises OutOfMemory: there was no memory for its buffers.
        """
        if self._wake < 0:
            return
        self._bridge.stop = 1
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        self._wake = -1
        if self._result not in (0, _ECLOSED):
            load.check(self._result, "bridging two interfaces")

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


__all__ = ["Bridge", "FdInterface", "HostInterface", "PacketSocket", "parse_mac",
           "random_mac", "socket_pair"]
