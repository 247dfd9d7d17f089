"""TAP devices: an image's interface as a link of the host's kernel."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from typing import Any

from unikit.component import component, option
from unikit.errors import AlreadyExists, InvalidArgument, NoPermission, PlatformError, UnikitError
from unikit.net.api import Interface
from unikit.net.netif import links
from unikit.net.netif.host import FdInterface, parse_mac

# linux/if_tun.h, linux/if.h, linux/sockios.h
_DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_UP = 0x0002, 0x1000, 0x0001
_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_REMEDY = ("run as root or give the process CAP_NET_ADMIN; or make a TAP once that belongs to you "
           "(as root: Tap(name, persist=True, owner=uid)) and name it; or use User()")


@component
class Tap(Interface):
    """A TAP device of the Linux kernel: the image is a machine on the host's network.

    A device of that name that exists is used and stays; otherwise it is made, and removed by
    ``close()`` together with the bridge and the namespace that had to be made for it.
    """

    id = "netif.tap"
    side = "host"
    reference = "Linux, Documentation/networking/tuntap.rst"

    name: str = option("", "name of the device; empty: the next free uk0, uk1 ...", kind="text",
                       kw_only=False)
    address: str = option("", "address of the host's end, 10.0.0.1/24; empty: none", kind="prefix")
    bridge: str = option("", "bridge it becomes a port of; made if there is none", kind="text")
    namespace: str = option("", "network namespace it lives in; made if there is none", kind="text")
    persist: bool = option(False, "whether what was made stays", kind="bool")
    owner: int = option(-1, "user who may open the persistent device; -1: root alone", minimum=-1,
                        maximum=2**32 - 2)
    mtu: int = option(1500, "largest payload of a frame", minimum=68, maximum=65521, unit="bytes")
    mac: str = option("", "address of the image's end; empty: random", kind="text")

    def open(self) -> TapInterface:
        """Make or attach the device and return it live.

        :raises NoPermission: creating or changing it takes CAP_NET_ADMIN.
        :raises AlreadyExists: the name is in use by another process or by a link that is no TAP.
        :raises InvalidArgument: a name too long, a malformed MAC address.
        :raises PlatformError: /dev/net/tun is missing, or the kernel refused something else.
        """
        return TapInterface(self)


class TapInterface(FdInterface):
    """An open TAP device.

    :ivar name: of the device, as the kernel knows it.
    :ivar namespace: where it lives; ``""``: that of the process.
    :ivar address: of the host's end, with prefix length; ``""``: none given.
    """

    def __init__(self, record: Tap) -> None:
        if record.name:
            links.check_name(record.name, "TAP")
        self.name, self.address, self.namespace = record.name, record.address, record.namespace
        self._undo = contextlib.ExitStack()
        mac = parse_mac(record.mac)
        with links.LOCK, contextlib.ExitStack() as undo:  # a failure unmakes what was made
            fd = self._make(record, undo)
            super().__init__(fd, mac=mac, mtu=self._kernel_mtu(record))
            self._undo = undo.pop_all()

    def _make(self, record: Tap, undo: contextlib.ExitStack) -> int:
        """Make everything the record asks for; callbacks run in reverse, so the device goes first.

        What other interfaces still use stays, and goes with the last of them.
        """
        if record.namespace:
            links.reap_namespaces()
            undo.callback(links.reap_namespaces, record.namespace)
            links.make_namespace(record.namespace)
        if record.bridge:
            undo.callback(self._reap_bridge, record.bridge)
        fd, self.name, made = links.inside(record.namespace, lambda: _attach(record.name))
        undo.callback(os.close, fd)
        if made and record.persist:
            undo.push(_Unpersist(fd))
            _persist(fd, record.owner)
        if made or record.address or record.bridge or not self._is_up():
            self._configure(record, made, undo)
        return fd

    def _configure(self, record: Tap, made: bool, undo: contextlib.ExitStack) -> None:
        with links.Links(self.namespace) as net:
            if made:
                net.reap_bridges()
                net.set(self.name, ifalias=links.owner_tag() if not record.persist else "unikit",
                        mtu=record.mtu)
            link, fresh = self.name, made  # which link gets the address: a port has none itself
            if record.bridge:
                link, fresh = record.bridge, net.make_bridge(record.bridge)
                net.attach(self.name, record.bridge)
                if not made:
                    undo.callback(self._restore, "detach", self.name)
            if record.address and net.add_address(link, record.address) and not fresh:
                undo.callback(self._restore, "remove_address", link, record.address)
            if made or not self._is_up():
                net.set(self.name, state="up")
                if not made:
                    undo.callback(self._restore, "set", self.name, state="down")

    def _restore(self, verb: str, link: str, *words: Any, **changes: Any) -> None:
        with contextlib.suppress(UnikitError), links.Links(self.namespace) as net:
            getattr(net, verb)(link, *words, **changes)

    def _reap_bridge(self, name: str) -> None:
        with links.Links(self.namespace) as net:
            net.reap_bridges(name)

    def _is_up(self) -> bool:
        return bool(links.inside(self.namespace, lambda: _link_word(self.name, _SIOCGIFFLAGS))
                    & _IFF_UP)

    def _kernel_mtu(self, record: Tap) -> int:
        return links.inside(self.namespace, lambda: _link_word(self.name, _SIOCGIFMTU))

    @property
    def image_address(self) -> str:
        """An address for the image that fits the host's end, ``"10.0.0.2/24"``; ``""``: none."""
        return neighbour(self.address) if self.address else ""

    def _release(self) -> None:
        super()._release()
        with links.LOCK:
            self._undo.close()

    def __repr__(self) -> str:
        return f"<TapInterface {self.name}{' in ' + self.namespace if self.namespace else ''}>"


def neighbour(prefix: str) -> str:
    """Return the next host address of the same network.

    >>> neighbour("10.0.0.1/24")
    '10.0.0.2/24'
    >>> neighbour("10.0.0.254/24")
    '10.0.0.1/24'

    :param prefix: an IPv4 address with the length of its network.
    :raises InvalidArgument: the network has room for one address only.
    """
    own = ipaddress.IPv4Interface(prefix)
    network = own.network
    first = int(network.network_address) + (network.prefixlen < 31)
    last = int(network.broadcast_address) - (network.prefixlen < 31)
    if first >= last:
        raise InvalidArgument(f"{prefix}: the network has room for one address; "
                              "take a /30 or wider")
    other = int(own.ip) + 1 if first <= int(own.ip) < last else first
    return f"{ipaddress.IPv4Address(other)}/{network.prefixlen}"


def probe() -> str | None:
    """Say why TAP devices cannot be made here and what would help; ``None`` if they can."""
    try:
        fd, _, _ = _attach(f"{links.PREFIX}probe{os.getpid() % 10**7}")
    except UnikitError as error:
        return str(error.args[-1])
    os.close(fd)
    return None


def probe_namespace() -> str | None:
    """Say why network namespaces cannot be made here and what would help; ``None`` if they can."""
    name = f"{links.PREFIX}-probe-{os.getpid()}"
    try:
        links.make_namespace(name)
    except UnikitError as error:
        return str(error.args[-1])
    links.reap_namespaces(name)
    return None


def _attach(name: str) -> tuple[int, str, bool]:
    """Return (descriptor, name, whether the device was made) in the thread's namespace."""
    try:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _cannot_open(error) from error
    exists = bool(name) and name in (each for _, each in socket.if_nameindex())
    wanted = name or links.PREFIX + "%d"
    try:
        answer = fcntl.ioctl(fd, _TUNSETIFF,
                             struct.pack("16sH22x", wanted.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError as error:
        os.close(fd)
        raise _cannot_attach(name, exists, error) from error
    return fd, answer[:16].rstrip(b"\0").decode(), not exists


def _cannot_open(error: OSError) -> UnikitError:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return PlatformError(error.errno, f"{_DEVICE} is missing: the kernel has no TAP devices "
                             "here; load them as root (modprobe tun), or use User()")
    if error.errno in (errno.EPERM, errno.EACCES):
        return NoPermission(error.errno,
                            f"{_DEVICE} may not be opened: {error.strerror}; {_REMEDY}")
    return PlatformError(error.errno, f"opening {_DEVICE}: {error.strerror}")


def _cannot_attach(name: str, exists: bool, error: OSError) -> UnikitError:
    what = f"TAP {name!r}" if name else "a TAP"
    if error.errno == errno.EBUSY:
        return AlreadyExists(error.errno, f"{what} is in use by another process; "
                             "stop that or choose another name")
    if error.errno == errno.EINVAL and exists:
        return AlreadyExists(error.errno, f"{name!r} is a network link, but not a TAP (or one of "
                             "several queues); choose another name")
    if error.errno in (errno.EPERM, errno.EACCES):
        doing = "belongs to another user" if exists else "cannot be made without privileges"
        return NoPermission(error.errno, f"{what} {doing}; {_REMEDY}")
    return PlatformError(error.errno, f"opening {what}: {error.strerror}")


def _persist(fd: int, owner: int) -> None:
    if owner >= 0:
        fcntl.ioctl(fd, _TUNSETOWNER, owner)
    fcntl.ioctl(fd, _TUNSETPERSIST, 1)


class _Unpersist:
    """Makes a device that should have stayed go after all, if opening it fails later on."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            fcntl.ioctl(self._fd, _TUNSETPERSIST, 0)


def _link_word(name: str, request: int) -> int:
    """Ask the kernel for a short of ``struct ifreq`` (flags) or an int (mtu); no privileges."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, request, struct.pack("16s24x", name.encode()))
    layout = "16xh" if request == _SIOCGIFFLAGS else "16xi"
    return int(struct.unpack_from(layout, answer)[0])


__all__ = ["Tap", "TapInterface", "neighbour", "probe", "probe_namespace"]
