"""The socket calls of a script, mapped onto the stack interface (``net.h``).

Each call is a generator: it yields while it would block, and returns what the caller gets. What
Unix sockets do beyond the stack interface is done here, as a layer above any stack would: an
accept queue that poll() can look at, a reset by close() when data was left unread, an error that
is reported once.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import select
import socket
from collections.abc import Callable, Generator
from typing import Any

from unikit.net.stack import NetStack, _packed, _text
from unikit.testing.script.flow import Flow, pattern
from unikit.testing.script.model import Call, Fields, Pick, Word

EAGAIN, ECLOSED = -3, -4
_ERRORS = {-1: "ENOBUFS", -2: "EINVAL", -3: "EAGAIN", -4: "EPIPE", -5: "ETIMEDOUT",
           -7: "ECONNRESET", -8: "ECONNREFUSED", -9: "EOPNOTSUPP", -10: "EADDRINUSE",
           -13: "EMSGSIZE", -14: "EHOSTUNREACH"}
_ALIKE = ({"EAGAIN", "EWOULDBLOCK"}, {"EHOSTUNREACH", "ENETUNREACH"})
_SYN_SENT, _SYN_RECEIVED, _ESTABLISHED, _CLOSE_WAIT = 2, 3, 4, 7

_SET_FREELY = {"SO_REUSEADDR", "SO_REUSEPORT", "IP_MTU_DISCOVER", "SO_RCVTIMEO", "SO_SNDTIMEO",
               "IP_FREEBIND", "SO_TIMESTAMPING", "SO_DEBUG"}
"""Options that change nothing a script of one connection could see."""
_SIZES = {"SO_RCVBUF", "SO_SNDBUF"}
_SEND_FLAGS = {"MSG_DONTWAIT", "MSG_NOSIGNAL", "0"}

_CONSTANTS: dict[str, int] = {
    **{name: int(getattr(module, name)) for module in (socket, select, os, errno)
       for name in dir(module) if name.isupper() and isinstance(getattr(module, name), int)},
    "F_GETFL": 3, "F_SETFL": 4, "F_GETFD": 1, "F_SETFD": 2, "SOL_TCP": 6, "SOL_IP": 0,
    "SOL_IPV6": 41, "SOL_UDP": 17}

Steps = Generator[None, None, "Returned"]


class Unsupported(Exception):
    """What the stack, or this layer, does not have; says what."""


@dataclasses.dataclass(frozen=True, slots=True)
class Returned:
    """What a call gave: a value, the name of an error, or values behind pointers."""

    value: int
    error: str = ""
    out: Any = None


def number(value: Any) -> int:
    """Return what an argument means as a number.

    :raises Unsupported: a name that this system does not know.
    """
    if isinstance(value, Pick):
        total = 0
        for part in value.parts:
            total |= number(part)
        return total
    if isinstance(value, Word):
        if value.name not in _CONSTANTS:
            raise Unsupported(f"the constant {value.name}")
        return _CONSTANTS[value.name]
    if not isinstance(value, int):
        raise Unsupported(f"the argument {value}")
    return value


def names(value: Any) -> set[str]:
    """Return the names that a flag argument consists of."""
    return set().union(*map(names, value.parts)) if isinstance(value, Pick) else {str(value)}


def same_error(one: str, other: str) -> bool:
    """Whether two names stand for one error, as far as scripts go."""
    return one == other or any(one in pair and other in pair for pair in _ALIKE)


class Descriptor:
    """A socket of the script.

    :ivar role: ``new``, ``listener``, ``connecting``, ``connection`` or ``datagram``.
    """

    def __init__(self, kind: str, family: int) -> None:
        self.kind, self.family, self.role = kind, family, "new"
        self.handle: Any = None
        self.nonblocking = False
        self.port = 0
        self.flow: Flow | None = None
        self.accepted: list[Any] = []
        self.remote: Any = None  # struct kit_address *
        self.reported = self.abort = self.no_reading = False


class Sockets:
    """All sockets of a script, over one stack.

    :param new_flow: called with (remote port, local port, remote address) for a connection that
        the application opens.
    :param find_flow: called with (remote port, local port) for one that it accepts.
    """

    def __init__(self, stack: NetStack, remote: str, bind_port: int, connect_port: int,
                 new_flow: Callable[[int, int, str], Flow], find_flow: Callable[[int, int], Flow],
                 now_ns: Callable[[], int]) -> None:
        self._stack, self._ffi, self._lib = stack, stack._ffi, stack._lib
        self._remote, self._bind_port, self._connect_port = remote, bind_port, connect_port
        self._new_flow, self._find_flow, self._now_ns = new_flow, find_flow, now_ns
        self.table: dict[int, Descriptor] = {}
        self.current: Descriptor | None = None  # the connection that code asks about
        self.wake_ns: int | None = None
        self.notes: set[str] = set()

    def start(self, call: Call) -> Steps:
        """Return the steps of a call.

        :raises Unsupported: a call that has no meaning here.
        """
        act = getattr(self, f"_call_{call.name}", None)
        if act is None:
            raise Unsupported(f"{call.name}()")
        steps: Steps = act(call, *call.arguments)
        return steps

    def _socket(self, fd: Any) -> Descriptor:
        found = self.table.get(number(fd))
        if found is None:
            raise _Fails("EBADF")
        return found

    def info(self, sock: Descriptor) -> Any:
        """Return ``struct kit_tcp_info`` of a socket with a handle."""
        out = self._ffi.new("struct kit_tcp_info *")
        self._lib.kit_net_tcp_info(sock.handle, out)
        return out[0]

    def _failed(self, sock: Descriptor, rc: int) -> Returned:
        """Return an error; what killed the connection is told once."""
        if rc == EAGAIN:
            return Returned(-1, "EAGAIN")
        if rc in (-5, -7, -8, -14):
            if sock.reported:
                return Returned(-1, "EPIPE")
            sock.reported = True
        return Returned(-1, _ERRORS.get(rc, f"error {rc}"))

    def _address(self, argument: Any, port: int) -> tuple[str, int]:
        if isinstance(argument, Fields):
            values = argument.values
            ip, port = values.get("sin_addr", self._remote), values.get("sin_port", port)
            return str(ip), number(port)
        return self._remote, port

    def _pack(self, ip: str, port: int) -> Any:
        import ipaddress
        return _packed(self._ffi, ipaddress.ip_address(ip), port)

    # -- opening and closing --------------------------------------------------------------------

    def _call_socket(self, call: Call, family: Any, kind: Any, *_: Any) -> Steps:
        words = names(kind)
        if not words & {"SOCK_STREAM", "SOCK_DGRAM"}:
            raise Unsupported(f"a socket of type {kind}")
        made = Descriptor("udp" if "SOCK_DGRAM" in words else "tcp",
                          4 if family is ... or str(family) == "AF_INET" else 6)
        made.nonblocking = "SOCK_NONBLOCK" in words
        fd = number(call.result) if call.result is not ... else max([2, *self.table]) + 1
        self.table[fd] = made
        return Returned(fd)
        yield

    def _call_bind(self, call: Call, fd: Any, address: Any, *_: Any) -> Steps:
        sock = self._socket(fd)
        sock.port = self._address(address, self._bind_port)[1]
        if sock.kind == "udp":
            return self._open_udp(sock)
        return Returned(0)
        yield

    def _open_udp(self, sock: Descriptor) -> Returned:
        out = self._ffi.new("struct kit_udp **")
        rc = self._lib.kit_net_udp_open(self._stack._ptr, sock.port, self._ffi.NULL,
                                        self._ffi.NULL, out)
        if rc < 0:
            return self._failed(sock, rc)
        sock.handle, sock.role = out[0], "datagram"
        sock.port = self._lib.kit_net_udp_port(out[0])
        sock.flow = self._find_flow(0, sock.port)
        return Returned(0)

    def _call_listen(self, call: Call, fd: Any, backlog: Any) -> Steps:
        sock = self._socket(fd)
        out = self._ffi.new("struct kit_tcp **")
        rc = self._lib.kit_net_tcp_listen(self._stack._ptr, sock.port or self._bind_port,
                                          max(number(backlog), 1), self._ffi.NULL, self._ffi.NULL,
                                          out)
        if rc < 0:
            return self._failed(sock, rc)
        sock.handle, sock.role = out[0], "listener"
        return Returned(0)
        yield

    def _gather(self, sock: Descriptor) -> None:
        while len(sock.accepted) < 1 and (tcp := self._lib.kit_net_tcp_accept(sock.handle)):
            sock.accepted.append(tcp)

    def _call_accept(self, call: Call, fd: Any, *_: Any) -> Steps:
        sock = self._socket(fd)
        while True:
            self._gather(sock)
            if sock.accepted:
                break
            if sock.nonblocking:
                return Returned(-1, "EAGAIN")
            yield
        made = Descriptor("tcp", sock.family)
        made.handle, made.role = sock.accepted.pop(0), "connection"
        made.nonblocking = call.name == "accept4" and \
            "SOCK_NONBLOCK" in names(call.arguments[3])
        info = self.info(made)
        made.flow = self._find_flow(info.remote.port, info.local.port)
        new = number(call.result) if call.result is not ... and not call.error else \
            max(self.table) + 1
        self.table[new] = self.current = made
        return Returned(new)

    _call_accept4 = _call_accept

    def _call_connect(self, call: Call, fd: Any, address: Any, *_: Any) -> Steps:
        sock = self._socket(fd)
        ip, port = self._address(address, self._connect_port)
        if sock.kind == "udp":
            return self._connect_udp(sock, ip, port)
        if sock.role == "connection":
            return Returned(-1, "EISCONN")
        if sock.role == "new":
            if sock.port:
                raise Unsupported("bind() before connect()")
            out = self._ffi.new("struct kit_tcp **")
            rc = self._lib.kit_net_tcp_connect(self._stack._ptr, self._pack(ip, port),
                                               self._ffi.NULL, self._ffi.NULL, out)
            if rc < 0:
                return self._failed(sock, rc)
            sock.handle, sock.role = out[0], "connecting"
            local = self.info(sock).local.port
            sock.flow = self._new_flow(port, local, ip)
            self.current = sock
            if sock.nonblocking:
                return Returned(-1, "EINPROGRESS")
        while True:
            info = self.info(sock)
            if info.error:
                return self._failed(sock, info.error)
            if info.state not in (_SYN_SENT, _SYN_RECEIVED):
                sock.role = "connection"
                return Returned(0)
            if sock.nonblocking:
                return Returned(-1, "EALREADY")
            yield

    def _connect_udp(self, sock: Descriptor, ip: str, port: int) -> Returned:
        if sock.handle is None and (opened := self._open_udp(sock)).value < 0:
            return opened
        sock.remote = self._pack(ip, port)
        sock.flow = self._find_flow(port, sock.port)
        return Returned(0)

    def _call_close(self, call: Call, fd: Any) -> Steps:
        sock = self._socket(fd)
        del self.table[number(fd)]
        if sock.handle is None:
            return Returned(0)
        if sock.kind == "udp":
            self._lib.kit_net_udp_close(sock.handle)
            return Returned(0)
        while sock.accepted:
            self._lib.kit_net_tcp_abort(sock.accepted.pop())
        unread = sock.role == "connection" and self.info(sock).receive_ready != 0
        if (sock.abort or unread) and sock.role != "listener":
            self._lib.kit_net_tcp_abort(sock.handle)
        else:
            self._lib.kit_net_tcp_close(sock.handle)
        if self.current is sock:
            self.current = None
        sock.handle = None
        return Returned(0)
        yield

    def _call_shutdown(self, call: Call, fd: Any, how: Any) -> Steps:
        sock, word = self._socket(fd), str(how)
        if sock.role not in ("connection", "connecting"):
            return Returned(-1, "ENOTCONN")
        if word in ("SHUT_RD", "SHUT_RDWR", "0", "2"):
            sock.no_reading = True
        if word in ("SHUT_WR", "SHUT_RDWR", "1", "2"):
            rc = self._lib.kit_net_tcp_shutdown(sock.handle)
            if rc < 0 and rc != ECLOSED:
                return self._failed(sock, rc)
        return Returned(0)
        yield

    # -- data -----------------------------------------------------------------------------------

    def _call_write(self, call: Call, fd: Any, data: Any, size: Any, flags: Any = 0,
                    *_: Any) -> Steps:
        sock = self._socket(fd)
        if names(flags) - _SEND_FLAGS:
            raise Unsupported(f"sending with {flags}")
        length = number(size)
        if sock.kind == "udp":
            return self._send_datagram(sock, sock.remote, length)
        if sock.handle is None or sock.role in ("new", "listener"):
            return Returned(-1, "EPIPE" if sock.role == "new" else "ENOTCONN")
        assert sock.flow is not None
        given = data.encode("latin-1")[:length] if isinstance(data, str) else b""
        todo = given + pattern(len(sock.flow.written) + 17 + len(given), length - len(given))
        done = 0
        while True:
            rc = self._lib.kit_net_tcp_send(sock.handle, todo[done:], length - done)
            if rc > 0:
                sock.flow.written += todo[done:done + rc]
                done += rc
            if done == length:
                return Returned(done)
            if rc < 0 and rc != EAGAIN:
                return Returned(done) if done else self._failed(sock, rc)
            if rc == EAGAIN:
                if sock.nonblocking or "MSG_DONTWAIT" in names(flags):
                    return Returned(done) if done else Returned(-1, "EAGAIN")
                yield

    _call_send = _call_write

    def _send_datagram(self, sock: Descriptor, to: Any, length: int) -> Returned:
        if to is None:
            return Returned(-1, "EDESTADDRREQ")
        if sock.handle is None and (opened := self._open_udp(sock)).value < 0:
            return opened
        rc = self._lib.kit_net_udp_send(sock.handle, to, pattern(0, length), length)
        return Returned(length) if rc == 0 else self._failed(sock, rc)

    def _call_sendto(self, call: Call, fd: Any, data: Any, size: Any, flags: Any, address: Any,
                     *_: Any) -> Steps:
        sock = self._socket(fd)
        if sock.kind == "tcp" or (address is ... and sock.remote is not None):
            return (yield from self._call_write(call, fd, data, size, flags))
        ip, port = self._address(address, self._connect_port)
        result = self._send_datagram(sock, self._pack(ip, port), number(size))
        if sock.flow is None or sock.flow.remote_port != port:
            sock.flow = self._find_flow(port, sock.port)
        return result

    def _call_read(self, call: Call, fd: Any, data: Any, size: Any, flags: Any = 0,
                   *_: Any) -> Steps:
        sock = self._socket(fd)
        words = names(flags) - {"0"}
        if words - {"MSG_DONTWAIT", "MSG_PEEK", "MSG_NOSIGNAL"}:
            raise Unsupported(f"receiving with {flags}")
        if sock.handle is None or sock.role == "listener":
            return Returned(-1, "ENOTCONN")
        buffer = self._ffi.new("uint8_t[]", max(number(size), 1))
        while True:
            rc = self._take(sock, buffer, number(size), "MSG_PEEK" in words)
            if rc != EAGAIN:
                break
            if sock.no_reading:
                return Returned(0)
            if sock.nonblocking or "MSG_DONTWAIT" in words:
                return Returned(-1, "EAGAIN")
            yield
        if rc < 0:
            if sock.reported and rc in (-5, -7, -8, -14):
                return Returned(0)
            return self._failed(sock, rc)
        self._verify(sock, buffer, rc, "MSG_PEEK" in words)
        return Returned(min(rc, number(size)))

    _call_recv = _call_recvfrom = _call_read

    def _take(self, sock: Descriptor, buffer: Any, size: int, peek: bool) -> int:
        if sock.kind == "udp":
            return int(self._lib.kit_net_udp_receive(
                sock.handle, self._ffi.new("struct kit_address *"), buffer, size))
        if not peek:
            return int(self._lib.kit_net_tcp_receive(sock.handle, buffer, size))
        out = self._ffi.new("const void **")
        rc = int(self._lib.kit_net_tcp_peek(sock.handle, out))
        if rc > 0:
            rc = min(rc, size)
            self._ffi.memmove(buffer, out[0], rc)
        return rc

    def _verify(self, sock: Descriptor, buffer: Any, length: int, peek: bool) -> None:
        """See that the application gets what the peer sent."""
        if sock.kind == "udp" or sock.flow is None:
            return
        if bytes(self._ffi.buffer(buffer, length)) != pattern(sock.flow.read, length):
            raise _WrongData(f"the {length} bytes received from {sock.flow.read} on are not what "
                             "was sent")
        if not peek:
            sock.flow.read += length

    def _call_sendmsg(self, call: Call, fd: Any, message: Any, flags: Any) -> Steps:
        size = self._message_size(message)
        return (yield from self._call_sendto(call, fd, ..., size, flags, ...))

    def _call_recvmsg(self, call: Call, fd: Any, message: Any, flags: Any) -> Steps:
        size = self._message_size(message)
        return (yield from self._call_read(call, fd, ..., size, flags))

    @staticmethod
    def _message_size(message: Any) -> int:
        if not isinstance(message, Fields) or "msg_control" in message.values:
            raise Unsupported("ancillary data")
        parts = message.values.get("msg_iov", [])
        return sum(number(list(each.values.values())[1]) for each in parts)

    # -- readiness and options --------------------------------------------------------------------

    def _ready(self, sock: Descriptor) -> int:
        """Return the events of poll() that hold now."""
        if sock.role == "listener":
            self._gather(sock)
            return select.POLLIN if sock.accepted else 0
        if sock.kind == "udp":
            raise Unsupported("poll() of a UDP socket")
        if sock.handle is None:
            return int(select.POLLHUP | select.POLLOUT)
        info, found = self.info(sock), 0
        if info.error:
            found |= 0 if sock.reported else select.POLLERR
            found |= select.POLLHUP | select.POLLIN | select.POLLOUT
        elif info.state in (_SYN_SENT, _SYN_RECEIVED):
            return 0
        peeked = self._lib.kit_net_tcp_peek(sock.handle, self._ffi.new("const void **"))
        if peeked != EAGAIN:
            found |= select.POLLIN
        if peeked == 0 or (peeked > 0 and info.state >= _CLOSE_WAIT):
            found |= getattr(select, "POLLRDHUP", 0x2000)
        if info.send_space and info.state in (_ESTABLISHED, _CLOSE_WAIT):
            found |= select.POLLOUT
        return found

    def _call_poll(self, call: Call, fields: Any, count: Any, timeout: Any) -> Steps:
        watched = [(self._socket(each.values["fd"]), number(each.values["events"]))
                   for each in fields]
        limit = number(timeout)
        end = None if limit < 0 else self._now_ns() + limit * 10**6
        always = select.POLLERR | select.POLLHUP
        while True:
            found = [self._ready(sock) & (wanted | always) for sock, wanted in watched]
            if any(found) or (end is not None and self._now_ns() >= end):
                self.wake_ns = None
                return Returned(sum(map(bool, found)), out=found)
            self.wake_ns = end
            yield

    def _call_fcntl(self, call: Call, fd: Any, command: Any, value: Any = 0) -> Steps:
        sock = self._socket(fd)
        if str(command) == "F_SETFL":
            sock.nonblocking = bool(number(value) & os.O_NONBLOCK)
        elif str(command) == "F_GETFL":
            return Returned(os.O_RDWR | (os.O_NONBLOCK if sock.nonblocking else 0))
        return Returned(0)
        yield

    def _call_setsockopt(self, call: Call, fd: Any, level: Any, name: Any, value: Any,
                         *_: Any) -> Steps:
        sock, word = self._socket(fd), str(name)
        first = value[0] if isinstance(value, list) and value else value
        if word == "SO_LINGER" and isinstance(value, (Fields, list)):
            fields = value if isinstance(value, Fields) else value[0]
            sock.abort = bool(number(fields.values["onoff"])) and \
                number(fields.values["linger"]) == 0
        elif word == "TCP_NODELAY":
            nagle = getattr(self._stack._record, "nagle", None)
            if nagle is None or bool(nagle) == bool(number(first)):
                raise Unsupported("setsockopt(TCP_NODELAY)")
        elif word not in _SET_FREELY:
            raise Unsupported(f"setsockopt({word})")
        return Returned(0)
        yield

    def _call_getsockopt(self, call: Call, fd: Any, level: Any, name: Any, value: Any,
                         *_: Any) -> Steps:
        sock, word = self._socket(fd), str(name)
        if word == "SO_ERROR":
            code = self.info(sock).error if sock.kind == "tcp" and sock.handle else 0
            sock_error = 0 if not code or sock.reported else \
                getattr(errno, _ERRORS.get(code, "EIO"))
            sock.reported = sock.reported or bool(code)
            return Returned(0, out=[sock_error])
        if word == "TCP_MAXSEG" and sock.handle:
            return Returned(0, out=[self.info(sock).mss])
        if word in _SIZES:
            self.notes.add(f"{word} is a stack's own choice and was not judged")
            return Returned(0)
        raise Unsupported(f"getsockopt({word})")
        yield

    def _call_ioctl(self, call: Call, fd: Any, request: Any, out: Any) -> Steps:
        sock = self._socket(fd)
        if str(request) in ("SIOCINQ", "FIONREAD") and sock.handle and sock.kind == "tcp":
            return Returned(0, out=[self.info(sock).receive_ready])
        if str(request) in ("SIOCOUTQ", "TIOCOUTQ") and sock.handle and sock.kind == "tcp":
            return Returned(0, out=[self.info(sock).unacknowledged])
        raise Unsupported(f"ioctl({request})")
        yield

    def addresses(self, sock: Descriptor) -> tuple[Any, Any]:
        """Return the local and the remote address of a connection."""
        info = self.info(sock)
        return _text(self._ffi, info.local), _text(self._ffi, info.remote)


class _Fails(Exception):
    """A call on something that is no socket."""


class _WrongData(Exception):
    """The application got other bytes than were sent."""


__all__ = ["Descriptor", "Returned", "Sockets", "Unsupported", "names", "number", "same_error"]
