"""Links, bridges, addresses and network namespaces of the host, made so that they can be unmade.

Everything here goes through netlink. What outlives the process that made it, a bridge or a
namespace, carries its owner's name in the alias of a link (the bridge itself, the namespace's
``lo``): ``unikit:<pid namespace>:<pid>:<start time>``. So a later run recognises what a killed one
left behind, and never takes anything else away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from unikit.errors import InvalidArgument, NoPermission, PlatformError, UnikitError

PREFIX = "uk"
NAME_MAX = 15
"""Longest name of a link (``IFNAMSIZ`` - 1)."""
_TAG = "unikit"
_R = TypeVar("_R")

LOCK = threading.RLock()
"""Held while something is made or reaped: what one thread just made is still unused."""


@cache
def owner_tag() -> str:
    """Return the alias that marks what this process made."""
    return f"{_TAG}:{_pid_namespace()}:{os.getpid()}:{_start_time(os.getpid())}"


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116


def _start_time(pid: int) -> str:
    """Return field 22 of /proc/pid/stat, which tells a process from a later one of its number."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()[19]


def is_ours(tag: str | None) -> bool:
    """Say whether an alias marks something of this process or of a unikit process that is dead."""
    return tag == owner_tag() or is_orphan(tag)


def is_orphan(tag: str | None) -> bool:
    """Say whether an alias marks something of a unikit process that is dead."""
    parts = (tag or "").split(":")
    if len(parts) != 4 or parts[0] != _TAG or not parts[2].isdigit():
        return False
    if parts[1] != str(_pid_namespace()):
        return False  # its processes cannot be seen from here
    try:
        return _start_time(int(parts[2])) != parts[3]
    except OSError:
        return True


def check_name(name: str, what: str) -> None:
    """Refuse a name that the kernel would not take for a link.

    :raises InvalidArgument: too long, or with characters that a link name cannot have.
    """
    if len(name.encode()) > NAME_MAX:
        raise InvalidArgument(f"{what} name {name!r} has {len(name.encode())} bytes; "
                              f"the kernel allows {NAME_MAX}")
    if name in (".", "..") or any(letter in "/:%" or letter.isspace() for letter in name):
        raise InvalidArgument(f"{what} name {name!r}: a link name has no spaces, '/', ':' or '%'")


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn a netlink error into one of ours, with cause and remedy."""
    from pyroute2 import NetlinkError
    try:
        yield
    except NetlinkError as error:
        raise _explanation(doing, error.code, str(error.args[-1])) from error
    except OSError as error:
        if isinstance(error, UnikitError):
            raise
        raise _explanation(doing, error.errno or 0, error.strerror or str(error)) from error


def _explanation(doing: str, code: int, text: str) -> UnikitError:
    if code in (errno.EPERM, errno.EACCES):
        return NoPermission(code, f"{doing}: not permitted; run as root or give the process "
                                  "CAP_NET_ADMIN, or use User(), which needs no privileges")
    return PlatformError(code, f"{doing}: {text}")


class Links:
    """Netlink in one network namespace (``""``: that of the process)."""

    def __init__(self, namespace: str = "") -> None:
        from pyroute2 import IPRoute
        with _explained(f"entering network namespace {namespace!r}"):
            self._route = IPRoute(netns=namespace) if namespace else IPRoute()

    def close(self) -> None:
        """Close the netlink socket."""
        self._route.close()

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def all(self) -> list[Any]:
        """Return every link as pyroute2 gives it."""
        return list(self._route.get_links())

    def find(self, name: str) -> Any | None:
        """Return the link of that name, or ``None``."""
        return next((link for link in self.all() if link.get_attr("IFLA_IFNAME") == name), None)

    def index(self, name: str) -> int:
        """Return the number of a link that exists.

        :raises PlatformError: it does not (any more).
        """
        link = self.find(name)
        if link is None:
            raise PlatformError(errno.ENODEV, f"there is no link {name!r} (any more)")
        return int(link["index"])

    def set(self, name: str, **changes: Any) -> None:
        """Change a link: ``state="up"``, ``mtu=9000``, ``ifalias="..."``, ``master=index``."""
        words = ", ".join(f"{key}={value}" for key, value in changes.items())
        with _explained(f"setting {words} of link {name!r}"):
            self._route.link("set", index=self.index(name), **changes)

    def delete(self, name: str) -> None:
        """Remove a link; no error if it is gone."""
        link = self.find(name)
        if link is not None:
            with _explained(f"removing link {name!r}"):
                self._route.link("del", index=link["index"])

    def add_address(self, name: str, prefix: str) -> bool:
        """Give a link an address (``"10.0.0.1/24"``); ``False`` if it has it already."""
        address, length = prefix.split("/")
        index = self.index(name)
        for held in self._route.get_addr(index=index):
            if (held.get_attr("IFA_LOCAL") or held.get_attr("IFA_ADDRESS")) == address:
                return False
        with _explained(f"giving {prefix} to link {name!r}"):
            self._route.addr("add", index=index, address=address, prefixlen=int(length))
        return True

    def remove_address(self, name: str, prefix: str) -> None:
        """Take an address from a link."""
        address, length = prefix.split("/")
        with _explained(f"taking {prefix} from link {name!r}"):
            self._route.addr("del", index=self.index(name), address=address, prefixlen=int(length))

    def make_bridge(self, name: str) -> bool:
        """Make a bridge and bring it up; ``False`` if a bridge of that name exists.

        :raises PlatformError: a link of that name is no bridge.
        """
        check_name(name, "bridge")
        link = self.find(name)
        if link is None:
            with _explained(f"making bridge {name!r}"):
                self._route.link("add", ifname=name, kind="bridge")
            self.set(name, ifalias=owner_tag(), state="up")
            return True
        if _kind(link) != "bridge":
            raise PlatformError(errno.EEXIST, f"{name!r} is a network link, but not a bridge; "
                                              "choose another bridge name")
        return False

    def attach(self, name: str, bridge: str) -> None:
        """Make a link a port of a bridge."""
        self.set(name, master=self.index(bridge))

    def detach(self, name: str) -> None:
        """Take a link out of its bridge."""
        self.set(name, master=0)

    def reap_bridges(self, name: str = "") -> None:
        """Remove bridges without ports: those of dead unikit processes, and ``name`` if ours."""
        found = self.all()
        masters = {link.get_attr("IFLA_MASTER") for link in found}
        for link in found:
            own, tag = link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_IFALIAS")
            if (_kind(link) == "bridge" and link["index"] not in masters
                    and (is_orphan(tag) or (own == name and is_ours(tag)))):
                self.delete(own)


def _kind(link: Any) -> str | None:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info else None


def make_namespace(name: str) -> bool:
    """Make a named network namespace with ``lo`` up; ``False`` if it exists.

    :raises NoPermission: it takes CAP_SYS_ADMIN.
    """
    from pyroute2 import netns
    if not name or "/" in name or name in (".", ".."):
        raise InvalidArgument(f"{name!r} cannot name a network namespace")
    if name in netns.listnetns():
        return False
    with _explained(f"making network namespace {name!r}"):
        netns.create(name)
    with Links(name) as links:
        links.set("lo", ifalias=owner_tag(), state="up")
    return True


def reap_namespaces(own: str = "") -> None:
    """Remove namespaces without a TAP: those of dead unikit processes, and ``own`` if ours.

    Looks at ``own`` and at all whose name starts with ``uk``.
    """
    from pyroute2 import netns
    for name in netns.listnetns():
        if name != own and not name.startswith(PREFIX):
            continue
        try:
            with Links(name) as links:
                found = links.all()
        except UnikitError:
            continue  # not ours to enter, or gone meanwhile
        tag = next((link.get_attr("IFLA_IFALIAS") for link in found
                    if link.get_attr("IFLA_IFNAME") == "lo"), None)
        mine = is_orphan(tag) or (name == own and is_ours(tag))
        if mine and "tun" not in map(_kind, found):
            with contextlib.suppress(OSError):  # another process was faster
                netns.remove(name)


def inside(namespace: str, work: Callable[[], _R]) -> _R:
    """Run ``work`` in a network namespace, in a thread of its own (``""``: right here)."""
    if not namespace:
        return work()
    result: list[_R] = []
    failure: list[BaseException] = []

    def enter() -> None:
        from pyroute2 import netns
        try:
            with _explained(f"entering network namespace {namespace!r}"):
                netns.setns(namespace)
            result.append(work())
        except BaseException as error:  # noqa: BLE001  it is raised again by the caller
            failure.append(error)

    thread = threading.Thread(target=enter, name=f"unikit-netns-{namespace}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
