"""Control sockets: how a command finds and talks to a machine that another process runs.

Each running machine listens on ``NAME.sock`` in the user's runtime folder. A request is one line of
JSON, ``{"do": "stats"}``; so is the reply, except that ``follow`` streams the console until the
machine ends. What a killed process left behind is cleared away by whoever finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unikit.errors import AlreadyExists, InvalidArgument, NotFound, PlatformError
from unikit.platform.api import Machine

_LINE_MAX = 4096
_FOLLOWER_S = 1.0


def folder() -> Path:
    """Return the user's runtime folder, created, readable by the user alone.

    :raises PlatformError: somebody else owns it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        path = Path(base) / "unikit"
    else:
        path = Path(os.environ.get("TMPDIR") or "/tmp") / f"unikit-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    stat = path.stat()
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077:
        raise PlatformError(f"{path} is not yours alone; remove it or set XDG_RUNTIME_DIR")
    return path


def log_path(name: str) -> Path:
    """Return where a detached machine's console is kept."""
    return folder() / f"{name}.log"


def running() -> list[str]:
    """Return the names of the running machines; clears away what the dead left."""
    names = []
    for path in sorted(folder().glob("*.sock")):
        try:
            _connect(path).close()
        except ConnectionRefusedError:  # nobody listens any more
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue
        except OSError:  # too many ask at once, or it is slow: alive
            names.append(path.stem)
        else:
            names.append(path.stem)
    return names


def check_name(name: str) -> None:
    """Refuse a name that could not be the name of a socket beside others.

    :raises InvalidArgument: it is empty, long, or has other characters than allowed.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", name):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise InvalidArgument(f"{shown!r} is no name for a machine: give up to 63 letters, digits, "
                              "-, _ and ., not - or . first")


def free_name(wish: str, exact: bool) -> str:
    """Return a name no running machine has: ``wish``, or ``wish-2`` and so on unless ``exact``.

    :raises AlreadyExists: ``wish`` is taken and ``exact`` is set.
    :raises InvalidArgument: it is no name for a machine.
    """
    check_name(wish)
    taken = set(running())
    if wish not in taken:
        return wish
    if exact:
        raise AlreadyExists(f"a machine called {wish} is running; stop it (unikit stop {wish}) or "
                            "give another --name")
    number = 2
    while f"{wish}-{number}" in taken:
        number += 1
    return f"{wish}-{number}"


def _connect(path: Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(5)
        link.connect(str(path))
    except OSError:
        link.close()
        raise
    return link


def ask(name: str, what: str) -> dict[str, Any]:
    """Ask a machine one thing (``info``, ``stats``, ``logs``, ``stop``) and return its answer.

    :raises NotFound: no machine of that name runs; the message lists those that do.
    :raises PlatformError: it does not answer.
    """
    link = _open(name)
    with link, link.makefile("r") as reader:
        try:
            link.sendall(json.dumps({"do": what}).encode() + b"\n")
            line = reader.readline()
            return dict(json.loads(line))
        except (OSError, ValueError) as error:
            raise PlatformError(f"machine {name} does not answer: {error}") from error


def follow(name: str) -> Iterator[bytes]:
    """Yield the console of a machine until it ends.

    :raises NotFound: no machine of that name runs.
    """
    link = _open(name)
    with link:
        link.sendall(b'{"do": "follow"}\n')
        link.settimeout(None)
        while chunk := link.recv(65536):
            yield chunk


def _open(name: str) -> socket.socket:
    with contextlib.suppress(InvalidArgument):
        check_name(name)
        with contextlib.suppress(OSError):
            return _connect(folder() / f"{name}.sock")
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    raise NotFound(f"no machine called {shown!r} is running; running: "
                   f"{', '.join(running()) or 'none'}")


class Server:
    """The control socket of one machine, served by a thread; removed by :meth:`close`."""

    def __init__(self, name: str, machine: Machine, facts: dict[str, Any],
                 stopping: Callable[[], object] = bool) -> None:
        self._machine = machine
        self._stopping = stopping
        self._facts = facts | {"name": name, "pid": os.getpid(), "started": time.time()}
        self._path = folder() / f"{name}.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        temporary = self._path.with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        self._socket.bind(str(temporary))
        self._socket.listen(8)
        try:
            os.link(temporary, self._path)  # fails if it exists: two runs never share a name
        except FileExistsError:
            self._socket.close()
            raise AlreadyExists(f"a machine called {name} is starting just now") from None
        finally:
            temporary.unlink()
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def close(self) -> None:
        """Stop serving and remove the socket; idempotent."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError, ValueError, RecursionError):
            link.settimeout(5)
            line = link.makefile("rb").readline(_LINE_MAX)
            asked = json.loads(line) if line else None
            what = asked.get("do") if isinstance(asked, dict) else None
            if what == "follow":
                self._follow(link)
                return
            link.sendall(json.dumps(self._reply(what)).encode() + b"\n")

    def _reply(self, what: Any) -> dict[str, Any]:
        if what == "info":
            return self._facts | {"running": self._machine.running}
        if what == "stats":
            return self._machine.stats()
        if what == "logs":
            return {"text": self._machine.console.text}
        if what == "stop":
            self._stopping()
            self._machine.stop()
            return {"stopped": True}
        return {"error": f"unknown request {what!r}"}

    def _follow(self, link: socket.socket) -> None:
        link.settimeout(_FOLLOWER_S)  # one that does not read must not hold up the console
        gone = threading.Event()

        def give(data: bytes) -> None:
            if gone.is_set():
                return
            try:
                link.sendall(data)
            except OSError:
                gone.set()

        self._machine.console.attach(give)
        while self._machine.running and not gone.wait(0.1):
            continue
