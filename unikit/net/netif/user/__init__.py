"""netif.user: ports of the host forwarded into an image, without privileges."""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import socket
from typing import Any

from unikit import registry
from unikit.component import component, option
from unikit.errors import (
    AlreadyExists,
    CompositionError,
    InvalidArgument,
    NoPermission,
    PlatformError,
)
from unikit.ffi import load
from unikit.net.api import Interface
from unikit.net.netif.host import HostInterface, parse_mac

_EXTENSION = "unikit.net.netif._user"
_PROTOCOLS = {"tcp": 6, "udp": 17}
_OUTER, _IMAGE = 2, 15
_TRIES = 100
_BACKLOG = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """One forwarded port.

    :ivar protocol: ``"tcp"`` or ``"udp"``.
    :ivar address: of the host, where it listens.
    :ivar port: of the host; 0: any that is free.
    :ivar image_port: where it leads.
    """

    protocol: str
    address: str
    port: int
    image_port: int


def parse_forwards(text: str) -> list[Forward]:
    """Return the ports that a text like ``"8080:80, udp:5353:53"`` forwards.

    Each is ``[tcp:|udp:][address:]host-port:image-port``; one number stands for both ports.

    >>> parse_forwards("8080:80")
    [Forward(protocol='tcp', address='127.0.0.1', port=8080, image_port=80)]

    :raises InvalidArgument: malformed; the message names the part.
    """
    return [_parse_forward(part.strip()) for part in text.split(",") if part.strip()]


def _parse_forward(text: str) -> Forward:
    words = text.split(":")
    protocol = words.pop(0) if words[0] in _PROTOCOLS else "tcp"
    try:
        address = str(ipaddress.IPv4Address(words.pop(0))) if "." in words[0] else "127.0.0.1"
        ports = [int(word) for word in words]
    except (IndexError, ValueError):
        ports = []
    if (len(ports) not in (1, 2) or not all(0 <= port < 65536 for port in ports)
            or ports[-1] == 0):
        raise InvalidArgument(f"{text!r} forwards no port; write 8080:80, udp:5353:53 or "
                              "tcp:0.0.0.0:8080:80 (host's port first)")
    return Forward(protocol, address, ports[0], ports[-1])


@component
class User(Interface):
    """Ports of the host's loopback address lead into the image; no privileges are needed.

    A hosted unikit stack sits on the outer side of the wire and connects to the image for whoever
    connects to a forwarded port. The image reaches that stack's address and nothing beyond it.
    """

    id = "netif.user"
    side = "host"
    requires = ()
    reference = "Danny Gasparovski, Slirp (1995)"

    forward: str = option("", "forwarded ports: 8080:80, udp:5353:53 ...; host's port first",
                          kind="text", kw_only=False)
    network: str = option("10.0.2.0/24", "network of the wire; the image is .15, the outer side .2",
                          kind="prefix")
    stack: str = option("mini", "net component that serves as the outer stack", kind="text")
    connections: int = option(4096, "TCP connections at once; further ones wait", minimum=1,
                              maximum=16000)
    sessions: int = option(256, "UDP peers at once; the longest silent one makes room", minimum=1,
                           maximum=1000)
    session_timeout: int | str = option("60s", "how long a silent UDP peer is remembered",
                                        kind="duration", minimum=1)
    memory: int | str = option("256M", "what the outer stack may take at most", kind="size",
                               minimum=1 << 16)
    mtu: int = option(1500, "largest payload of a frame", minimum=576, maximum=65521, unit="bytes")
    mac: str = option("", "address of the image's end; empty: random", kind="text")

    def __post_init__(self) -> None:
        super(User, self).__post_init__()  # noqa: UP008  the decorator makes the class anew
        try:
            parse_forwards(self.forward)
            self.addresses()
        except InvalidArgument as error:
            raise CompositionError([f"{self.id}: {error}"]) from error

    def addresses(self) -> tuple[ipaddress.IPv4Interface, ipaddress.IPv4Interface]:
        """Return the addresses of the outer side and of the image.

        :raises InvalidArgument: the network has no room for both.
        """
        network = ipaddress.IPv4Interface(self.network).network
        if network.num_addresses <= _IMAGE + 1:
            raise InvalidArgument(f"network {network} is too small; take a /27 or wider")
        return (ipaddress.IPv4Interface(f"{network[_OUTER]}/{network.prefixlen}"),
                ipaddress.IPv4Interface(f"{network[_IMAGE]}/{network.prefixlen}"))

    def open(self) -> UserInterface:
        """Take the ports and return the interface live.

        A port in use is replaced by the next free one; the result's ``forwards`` has the real ones.

        :raises NoPermission: a port below 1024 without the privilege.
        :raises AlreadyExists: a port and the hundred after it are in use.
        :raises PlatformError: the host refused a port for another reason.
        """
        return UserInterface(self)


class UserInterface(HostInterface):
    """An open user-mode interface.

    :ivar forwards: (protocol, port of the host, port of the image) of each forwarded port.
    :ivar ports: the same with the host's address.
    :ivar outer_address: of the outer stack, with prefix length; the image's gateway.
    :ivar image_address: what the image must be configured with.
    """

    def __init__(self, record: User) -> None:
        outer, image = record.addresses()
        self.outer_address, self.image_address = str(outer), str(image)
        self._sockets: list[socket.socket] = []
        self.ports: list[Forward] = []
        try:
            for forward in parse_forwards(record.forward):
                self._listen(forward)
            pointer = self._start(record, outer, image)
        except BaseException:
            self._close_ports()
            raise
        super().__init__(pointer)
        self.forwards = [(each.protocol, each.port, each.image_port) for each in self.ports]

    def _listen(self, wanted: Forward) -> None:
        sock = _take_port(wanted)
        self._sockets.append(sock)
        self.ports.append(dataclasses.replace(wanted, port=sock.getsockname()[1]))

    def _start(self, record: User, outer: ipaddress.IPv4Interface,
               image: ipaddress.IPv4Interface) -> Any:
        self._own, self._lib = load.extension(_EXTENSION)
        stack = _outer_stack(record)
        self._keep = load.options(stack)
        ports = self._own.new("struct kit_user_port[]", [
            {"fd": sock.fileno(), "protocol": _PROTOCOLS[each.protocol],
             "image_port": each.image_port}
            for sock, each in zip(self._sockets, self.ports, strict=True)])
        config = self._own.new("struct kit_user_config *", {
            "stack": load.component(stack), "stack_options": self._keep,
            "outer_address": int(outer), "image_address": int(image),
            "prefix": outer.network.prefixlen, "mtu": record.mtu,
            "connections": record.connections, "sessions": record.sessions,
            "session_ns": record.session_timeout, "memory": record.memory,
            "mac": list(parse_mac(record.mac))})
        out = self._own.new("struct kit_host_netif **")
        load.check(self._lib.kit_host_user_open(config, ports, len(self.ports), out),
                   f"opening the outer stack {stack.id}")
        return out[0]

    def stats(self) -> dict[str, int]:
        """Return counters since it was opened, and what is open now."""
        out = self._own.new("struct kit_user_stats *")
        self._lib.kit_host_user_stats(self._open(), out)
        return {name: int(getattr(out, name)) for name in dir(out)}

    def check(self) -> None:
        """Verify the invariants of both sides.

        :raises Corrupt: one is broken.
        """
        load.check(self._lib.kit_host_user_check(self._open()), f"checking {self!r}")

    def _close_ports(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _release(self) -> None:
        self._lib.kit_host_user_close(self._host)
        self._close_ports()

    def __repr__(self) -> str:
        ports = ", ".join(f"{each.protocol}:{each.port}:{each.image_port}" for each in self.ports)
        return f"<UserInterface {ports or 'no ports'}>"


def _outer_stack(record: User) -> Any:
    """Return the record of the outer stack, with the options it has of those that help here."""
    kind = registry.find(record.stack, "net")
    # Room for connections that still say goodbye; and since nothing old can turn up on this wire,
    # numbers need not rest for long (a client may open and close thousands a second).
    wishes = {"connections": 2 * record.connections, "udp_sockets": record.sessions + 1,
              "nagle": False, "time_wait": "1s"}
    known = {spec.name for spec in kind.options}
    return kind(**{name: value for name, value in wishes.items() if name in known})


def _take_port(wanted: Forward) -> socket.socket:
    """Return a listening (bound) socket at the wanted port or the next one that is free."""
    last = wanted.port + _TRIES if wanted.port else 1
    for port in range(wanted.port, min(last, 65536)):
        sock = _socket(wanted.protocol)
        try:
            sock.bind((wanted.address, port))
            if wanted.protocol == "tcp":
                sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                raise _refusal(wanted, port, error) from error
        else:
            return sock
    raise AlreadyExists(errno.EADDRINUSE, f"{wanted.protocol} ports {wanted.port} to {last - 1} of "
                                          f"{wanted.address} are all in use; choose another")


def _socket(protocol: str) -> socket.socket:
    if protocol == "udp":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _refusal(wanted: Forward, port: int, error: OSError) -> Exception:
    what = f"{wanted.protocol} port {port} of {wanted.address}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return NoPermission(error.errno, f"{what} is privileged; choose one from 1024 on "
                            f"(8{port % 1000:03}:{wanted.image_port}), or run as root")
    if error.errno == errno.EADDRNOTAVAIL:
        return PlatformError(error.errno, f"{what}: this host has no such address")
    return PlatformError(error.errno, f"{what}: {os.strerror(error.errno or 0)}")


__all__ = ["Forward", "User", "UserInterface", "parse_forwards"]
