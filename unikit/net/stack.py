"""A live TCP/IP stack in this process: sockets over any network interface.

A stack has no thread of its own: it works while one of its calls runs. Calls that wait take a
``timeout`` in seconds (``None``: for ever, ``0``: not at all) and keep the stack going meanwhile;
several stacks on one pipe in one thread keep each other going.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from unikit.component import Component
from unikit.errors import Closed, InvalidArgument, TimedOut, WouldBlock
from unikit.ffi import load

if TYPE_CHECKING:
    from unikit.net.api import Stack

_EAGAIN = -3
_NETWORK = 2  # KIT_WAKE_NETWORK
_NEVER = 2**64 - 1
_UNWATCHED_NS = 200_000  # how long to sleep beside an interface that cannot wake us
STATES = ("closed", "listen", "syn-sent", "syn-received", "established", "fin-wait-1",
          "fin-wait-2", "close-wait", "closing", "last-ack", "time-wait")
"""The states of a connection (RFC 9293, section 3.3.2), in the order of ``KIT_TCP_*``."""

Address = tuple[str, int]
"""An IP address and a port."""

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class NetStats:
    """What a stack counted since it was opened; the last three are of now.

    :ivar dropped_malformed: frames with a broken header, length or checksum.
    :ivar dropped_unwanted: for nobody here: address, protocol, port.
    :ivar dropped_full: a table, queue or buffer was full.
    :ivar accepted: TCP connections opened by peers.
    :ivar connected: TCP connections opened from here.
    :ivar memory: bytes taken from the allocator.
    :ivar tcp_open: connections in any state but listen and closed.
    """

    frames_in: int
    frames_out: int
    bytes_in: int
    bytes_out: int
    dropped_malformed: int
    dropped_unwanted: int
    dropped_full: int
    accepted: int
    connected: int
    resets_in: int
    resets_out: int
    retransmits: int
    memory: int
    tcp_open: int
    udp_open: int


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """The present state of a connection.

    :ivar state: one of :data:`STATES`.
    :ivar send_space: bytes that ``send`` would take now.
    :ivar receive_ready: bytes that ``recv`` would give now.
    :ivar unacknowledged: bytes sent or queued that the peer did not acknowledge yet.
    :ivar cwnd: congestion window, bytes; this and what follows is 0 where a stack does not tell.
    :ivar in_flight: bytes sent and not acknowledged.
    """

    local: Address
    remote: Address
    state: str
    send_space: int
    receive_ready: int
    mss: int
    srtt_us: int
    retransmits: int
    unacknowledged: int
    cwnd: int = 0
    ssthresh: int = 0
    rto_us: int = 0
    in_flight: int = 0


class NetStack:
    """A TCP/IP stack over one network interface. Leaving its ``with`` block closes it.

    Use from the thread that opened it. It keeps the interface alive, which stays the caller's
    unless it was given as a record.

    A TCP echo server:

    >>> from unikit.net import Mini, Pipe
    >>> a, b = Pipe().open()
    >>> with a, b, Mini(address="10.0.0.1/24").open(a) as here, \\
    ...         Mini(address="10.0.0.2/24").open(b) as there:
    ...     with there.listen(7) as listener, here.connect(("10.0.0.2", 7)) as client:
    ...         with listener.accept() as peer:
    ...             client.sendall(b"hello")
    ...             peer.sendall(peer.recv())
    ...             client.recv()
    b'hello'
    """

    def __init__(self, record: Stack, netif: Any, heap: Any = None, env: Any = None) -> None:
        self._net: Any = None
        self._ffi, self._lib = load.abi()
        self._record = record
        self._sockets: set[Any] = set()
        self._owned: list[Any] = []
        self._watched = False
        try:
            self._env = env if env is not None else self._own(_environment())
            self._netif = self._interface(netif)
            self._medium: Any = getattr(self._netif, "_medium", None)  # shared with other stacks
            self._heap = heap if heap is not None else self._own(_heap())
            self._open()
        except BaseException:
            self._release()
            raise

    def _own(self, thing: _T) -> _T:
        self._owned.append(thing)
        return thing

    def _interface(self, netif: Any) -> Any:
        if isinstance(netif, Component):
            layer = "layer" in netif.features  # with a clock of its own, which must be ours
            netif = netif.open(self._env) if layer else netif.open()  # type: ignore[attr-defined]
            if isinstance(netif, tuple):
                raise InvalidArgument("open the interface and give the stack one of its ends")
            return self._own(netif)
        if not hasattr(netif, "_ptr"):
            raise InvalidArgument(f"{netif!r} is no network interface; open one, Pipe().open()")
        return netif

    def _open(self) -> None:
        out = self._ffi.new("struct kit_net **")
        self._options = load.options(self._record)
        load.check(load.component(self._record).open(
            self._options, self._env.ptr, self._netif._ptr, self._heap._ptr, out),
            f"opening {self._record!r}")
        self._net = out[0]
        if self._medium is not None:
            self._medium.join(self)
        elif hasattr(self._env, "watch"):
            self._env.watch(self._netif.fileno())
            self._watched = True
        suggested = getattr(self._netif, "image_address", "")
        if self.address is None and suggested:
            self.configure(suggested)

    def _live(self) -> Any:
        if self._net is None:
            raise Closed("the stack is closed")
        return self._net

    @property
    def _ptr(self) -> Any:
        return self._live()

    # -- turning ------------------------------------------------------------------------------

    def poll(self) -> bool:
        """Receive a batch of frames, run what is due, send; whether there was anything to do."""
        busy = bool(self._lib.kit_net_poll(self._live()))
        load.check_panic("polling the stack")
        return busy

    @property
    def deadline_ns(self) -> int | None:
        """When :meth:`poll` has a timer to run, by the environment's clock; ``None``: never."""
        deadline = int(self._lib.kit_net_deadline_ns(self._live()))
        return None if deadline == _NEVER else deadline

    def turn(self, deadline_ns: int | None = None) -> bool:
        """Poll, and if there was nothing to do, sleep until a frame, a timer or ``deadline_ns``.

        :returns: whether there was anything to do.
        """
        around = self._around()
        if any([stack.poll() for stack in around]):
            return True
        ends = [stack._lib.kit_net_deadline_ns(stack._live()) for stack in around]
        own = [getattr(stack._netif, "deadline_ns", None) for stack in around]  # of interfaces
        ends += [end for end in (*own, deadline_ns) if end is not None]
        until = min([*ends, _NEVER])
        now = self._env.now_ns()
        if not self._watched and len(around) == 1 and hasattr(self._env, "watch"):
            until = min(until, now + _UNWATCHED_NS)
        if until == _NEVER and not self._watched:
            raise TimedOut("nothing more can happen: no stack on this interface has anything to do")
        if until > now:
            self._env.wait(until, _NETWORK)
        return False

    def _around(self) -> list[NetStack]:
        if self._medium is not None:
            return [self, *(each for each in self._medium.stacks() if each is not self)]
        return [self]

    def _until(self, attempt: Callable[[], _T | None], timeout: float | None, doing: str) -> _T:
        """Turn until an attempt gives something."""
        deadline = None if timeout is None else self._env.now_ns() + round(timeout * 1e9)
        while (result := attempt()) is None:
            if deadline is not None and self._env.now_ns() >= deadline:
                if timeout == 0:
                    if not self.poll() and (result := attempt()) is None:
                        raise WouldBlock(f"{doing}: not without waiting")
                    continue
                raise TimedOut(f"{doing}: nothing within {timeout} s")
            self.turn(deadline)
        return result

    def _flush(self) -> None:
        for stack in self._around():
            stack.poll()

    # -- address ------------------------------------------------------------------------------

    @property
    def address(self) -> str | None:
        """The stack's own IPv4 address; ``None``: not configured."""
        out = self._ffi.new("struct kit_address *")
        if self._lib.kit_net_address(self._live(), 4, out) < 0:
            return None
        return _text(self._ffi, out[0])[0]

    def configure(self, prefix: str, gateway: str = "") -> None:
        """Set the address, ``"10.0.0.2/24"``, and the router to other networks.

        :raises InvalidArgument: no host address, or a gateway outside its network.
        """
        try:
            own = ipaddress.ip_interface(prefix)
            router = ipaddress.ip_address(gateway) if gateway else None
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        load.check(self._lib.kit_net_configure(
            self._live(), _packed(self._ffi, own.ip, 0), own.network.prefixlen,
            _packed(self._ffi, router, 0)), f"configuring {prefix} with gateway {gateway or None}")
        self._flush()

    # -- sockets ------------------------------------------------------------------------------

    def listen(self, port: int, backlog: int = 16) -> Listener:
        """Accept TCP connections on a port.

        :param backlog: connections that wait for :meth:`Listener.accept` at most.
        :raises AlreadyExists: the port is taken.
        """
        out = self._ffi.new("struct kit_tcp **")
        load.check(self._lib.kit_net_tcp_listen(self._live(), _port(port), backlog,
                                                self._ffi.NULL, self._ffi.NULL, out),
                   f"listening on port {port}")
        return Listener(self, out[0])

    def connect(self, address: Address, timeout: float | None = None) -> Connection:
        """Open a TCP connection.

        :raises ConnectionRefused: nobody listens there.
        :raises Unreachable: no route, or no neighbour answered.
        :raises TimedOut: no answer, or not within ``timeout`` seconds.
        """
        connection = self.connect_nowait(address)
        try:
            self._until(connection._connected, timeout, f"connecting to {address}")
        except BaseException:
            connection.abort()
            raise
        return connection

    def connect_nowait(self, address: Address) -> Connection:
        """Start to open a TCP connection; its ``info().state`` tells how far it is."""
        out = self._ffi.new("struct kit_tcp **")
        load.check(self._lib.kit_net_tcp_connect(
            self._live(), _packed(self._ffi, _ip(address[0]), _port(address[1])),
            self._ffi.NULL, self._ffi.NULL, out), f"connecting to {address}")
        return Connection(self, out[0])

    def udp(self, port: int = 0) -> UdpSocket:
        """Open a UDP port; 0: one that is free.

        :raises AlreadyExists: the port is taken.
        """
        out = self._ffi.new("struct kit_udp **")
        if not 0 <= port <= 65535:
            raise InvalidArgument(f"port {port} is not in 0...65535")
        load.check(self._lib.kit_net_udp_open(self._live(), port, self._ffi.NULL,
                                              self._ffi.NULL, out), f"opening UDP port {port}")
        return UdpSocket(self, out[0])

    # -- the whole ----------------------------------------------------------------------------

    def stats(self) -> NetStats:
        """Return the stack's counters."""
        out = self._ffi.new("struct kit_net_stats *")
        self._lib.kit_net_stats(self._live(), out)
        return NetStats(**{field.name: int(getattr(out, field.name))
                           for field in dataclasses.fields(NetStats)})

    def counters(self) -> dict[str, int]:
        """Return the stack's own counters by name, why packets were dropped among them."""
        name, value = self._ffi.new("const char **"), self._ffi.new("uint64_t *")
        counted: dict[str, int] = {}
        while self._lib.kit_net_counter(self._live(), len(counted), name, value) == 0:
            counted[self._ffi.string(name[0]).decode()] = int(value[0])
        return counted

    def check(self) -> None:
        """Verify every invariant.

        :raises Corrupt: one is broken.
        """
        load.check(self._lib.kit_net_check(self._live()), "checking the stack")

    def close(self) -> None:
        """Free everything without a word to the peers; sockets become unusable. Idempotent."""
        for socket in list(self._sockets):
            socket._forget()
        self._release()

    def _release(self) -> None:
        if self._net is not None:
            if self._medium is not None:
                self._medium.leave(self)
            elif self._watched:
                self._env.unwatch(self._netif.fileno())
            self._lib.kit_net_close(self._net)
            self._net = None
        while self._owned:
            self._owned.pop().close()

    def __enter__(self) -> NetStack:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_net", None) is not None:
            warnings.warn("a NetStack was never closed", ResourceWarning, stacklevel=2)


class _Socket:
    """What all sockets share: a stack, a handle, one close."""

    def __init__(self, stack: NetStack, handle: Any) -> None:
        self._stack, self._handle = stack, handle
        self._ffi, self._lib = stack._ffi, stack._lib
        stack._sockets.add(self)

    def _live(self) -> Any:
        if self._handle is None:
            raise Closed("the socket is closed")
        return self._handle

    def _forget(self) -> Any:
        handle, self._handle = self._handle, None
        self._stack._sockets.discard(self)
        return handle

    def _check(self, code: int, doing: str) -> int | None:
        """Return a result, or ``None`` where waiting may help."""
        return None if code == _EAGAIN else load.check(code, doing)

    def _give_up(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Give the socket up; what was sent is still delivered. Idempotent."""
        if self._handle is not None:
            self._give_up()
            self._stack._flush()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class _TcpSocket(_Socket):
    def _give_up(self) -> None:
        self._lib.kit_net_tcp_close(self._forget())

    def info(self) -> ConnectionInfo:
        """Return the state, addresses and measurements of the connection."""
        out = self._ffi.new("struct kit_tcp_info *")
        self._lib.kit_net_tcp_info(self._live(), out)
        return ConnectionInfo(
            _text(self._ffi, out.local), _text(self._ffi, out.remote), STATES[out.state],
            out.send_space, out.receive_ready, out.mss, out.srtt_us, out.retransmits,
            out.unacknowledged, out.cwnd, out.ssthresh, out.rto_us, out.in_flight)


class Listener(_TcpSocket):
    """A TCP port that peers can connect to; an iterator over connections."""

    def accept(self, timeout: float | None = None) -> Connection:
        """Return the next connection.

        :raises TimedOut: none came within ``timeout`` seconds.
        :raises WouldBlock: there is none, and ``timeout`` is 0.
        """
        def attempt() -> Any:
            return self._lib.kit_net_tcp_accept(self._live()) or None
        return Connection(self._stack, self._stack._until(attempt, timeout, "accepting"))

    def __iter__(self) -> Iterator[Connection]:
        while True:
            yield self.accept()


class Connection(_TcpSocket):
    """A TCP connection."""

    def _connected(self) -> bool | None:
        out = self._ffi.new("struct kit_tcp_info *")
        self._lib.kit_net_tcp_info(self._live(), out)
        load.check(out.error, "connecting")
        return True if out.state not in (2, 3) else None  # SYN_SENT, SYN_RECEIVED

    def send(self, data: Any, timeout: float | None = None) -> int:
        """Queue as much of a buffer as fits, at least one byte; the number of bytes.

        :raises ConnectionReset: the peer broke the connection off.
        :raises Closed: after :meth:`shutdown`.
        """
        view = self._ffi.from_buffer(data)

        def attempt() -> int | None:
            return self._check(self._lib.kit_net_tcp_send(self._live(), view, len(view)),
                               f"sending {len(view)} bytes")
        sent = self._stack._until(attempt, timeout, f"sending {len(view)} bytes")
        self._stack._flush()
        return sent

    def sendall(self, data: Any, timeout: float | None = None) -> None:
        """Queue all of a buffer; ``timeout`` counts anew for each piece."""
        view = memoryview(data).cast("B")
        while len(view) != 0:
            view = view[self.send(view, timeout):]

    def recv_into(self, buffer: Any, timeout: float | None = None) -> int:
        """Fill a writable buffer with what is there, at least one byte; 0: end of stream.

        :raises ConnectionReset: the peer broke the connection off, and all data was read.
        """
        view = self._ffi.from_buffer(buffer, require_writable=True)

        def attempt() -> int | None:
            return self._check(self._lib.kit_net_tcp_receive(self._live(), view, len(view)),
                               "receiving")
        count = self._stack._until(attempt, timeout, "receiving")
        self._stack._flush()
        return count

    def recv(self, size: int = 65536, timeout: float | None = None) -> bytes:
        """Return what is there, at least one and up to ``size`` bytes; ``b""``: end of stream."""
        buffer = bytearray(size)
        return bytes(buffer[:self.recv_into(buffer, timeout)])

    def shutdown(self) -> None:
        """Send no more: the peer sees the end of the stream after what is queued."""
        load.check(self._lib.kit_net_tcp_shutdown(self._live()), "shutting down")
        self._stack._flush()

    def abort(self) -> None:
        """Break the connection off with a reset; what is queued is lost. Idempotent."""
        if self._handle is not None:
            self._lib.kit_net_tcp_abort(self._forget())
            self._stack._flush()


class UdpSocket(_Socket):
    """A UDP port."""

    def _give_up(self) -> None:
        self._lib.kit_net_udp_close(self._forget())

    @property
    def port(self) -> int:
        """The port's number."""
        return int(self._lib.kit_net_udp_port(self._live()))

    def sendto(self, data: Any, address: Address) -> None:
        """Send one datagram.

        :raises MessageTooLong: it does not fit a frame; it is not fragmented.
        :raises Unreachable: no route.
        :raises WouldBlock: the interface is busy.
        """
        view = self._ffi.from_buffer(data)
        to = _packed(self._ffi, _ip(address[0]), _port(address[1]))
        load.check(self._lib.kit_net_udp_send(self._live(), to, view, len(view)),
                   f"sending {len(view)} bytes to {address}")
        self._stack._flush()

    def recvfrom(self, size: int = 65535, timeout: float | None = None) -> tuple[bytes, Address]:
        """Return the next datagram, cut to ``size``, and where it came from."""
        buffer = self._ffi.new("uint8_t[]", max(size, 1))
        sender = self._ffi.new("struct kit_address *")

        def attempt() -> int | None:
            return self._check(self._lib.kit_net_udp_receive(self._live(), sender, buffer, size),
                               "receiving")
        length = self._stack._until(attempt, timeout, "receiving")
        return bytes(self._ffi.buffer(buffer, min(length, size))), _text(self._ffi, sender[0])


def _environment() -> Any:
    from unikit.platform.host import HostEnvironment
    return HostEnvironment()


def _heap() -> Any:
    from unikit.alloc import Tlsf
    return Tlsf().open("64M")


def _port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise InvalidArgument(f"port {port} is not in 1...65535")
    return port


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"{text!r} is not an IP address; names are not looked up") from error


def _packed(ffi: Any, ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int) -> Any:
    out = ffi.new("struct kit_address *")
    if ip is not None:
        out.family, out.port = ip.version, port
        ffi.memmove(out.bytes, ip.packed, len(ip.packed))
    return out


def _text(ffi: Any, address: Any) -> Address:
    raw = bytes(ffi.buffer(address.bytes, 16))
    return str(ipaddress.ip_address(raw if address.family == 6 else raw[:4])), int(address.port)


__all__ = ["Address", "Connection", "ConnectionInfo", "Listener", "NetStack", "NetStats", "STATES",
           "UdpSocket"]
