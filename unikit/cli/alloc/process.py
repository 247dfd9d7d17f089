"""One program under test: started, watched, ended, and what it cost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from unikit.cli.alloc import native
from unikit.errors import NoPermission, NotFound, NotSupported, PlatformError

_LISTENING, _ACCEPTING = "0A", 0x10000  # as /proc/net/tcp and /proc/net/unix have them
_KILLED_S = 10.0  # the launcher has that long to end everything after it was told so


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What a program used, with all its descendants.

    :ivar status: as of :func:`os.waitstatus_to_exitcode`: negative for a signal.
    :ivar wall: seconds from the start to the end of the program.
    :ivar user: seconds of CPU time in the program.
    :ivar system: seconds of CPU time in the kernel.
    :ivar peak: bytes of memory of the largest process at its largest.
    :ivar minor: page faults without a read from disk.
    :ivar major: page faults with one.
    :ivar switches: context switches.
    :ivar left: processes that outlived the program and were killed.
    """

    status: int
    wall: float
    user: float
    system: float
    peak: int
    minor: int
    major: int
    switches: int
    left: int


class Launch:
    """A running program; leaving the ``with`` kills whatever is left of it.

    Nothing of it survives this process either, however that ends.
    """

    def __init__(self, words: Sequence[str], *, preload: Sequence[Path] = (),
                 cpu: int | None = None, environment: Mapping[str, str] | None = None,
                 folder: Path | None = None, output: IO[bytes] | int | None = None,
                 errors: IO[bytes] | int | None = None) -> None:
        """Start it.

        :param preload: libraries for ``LD_PRELOAD``, before those the environment names.
        :param cpu: the only CPU to run on.
        :param environment: variables beside those of this process.
        :param folder: working directory.
        :param output: where standard output goes; default: nowhere. ``errors`` likewise.
        :raises NotFound: there is no such program.
        :raises NoPermission: it cannot be executed.
        :raises NotSupported: a library's path cannot be said in ``LD_PRELOAD``.
        """
        variables = {**os.environ, **(environment or {})}
        libraries = [str(path) for path in preload]
        if unfit := [path for path in libraries if " " in path or ":" in path]:
            raise NotSupported(f"{unfit[0]}: the dynamic linker takes no path with a space or a "
                               "colon; set UNIKIT_CACHE to another folder")
        libraries += [word for word in [variables.pop("LD_PRELOAD", "")] if word]
        control, self._control = os.pipe()
        self._report, report = os.pipe()
        self._text = b""
        self.pid = 0
        try:
            self._process = subprocess.Popen(
                [native.launcher(), str(control), str(report), str(-1 if cpu is None else cpu),
                 ":".join(libraries), *words],
                pass_fds=(control, report), stdin=subprocess.DEVNULL, env=variables, cwd=folder,
                stdout=subprocess.DEVNULL if output is None else output,
                stderr=subprocess.DEVNULL if errors is None else errors, start_new_session=True)
        except BaseException:
            os.close(self._control)
            os.close(self._report)
            raise
        finally:
            os.close(control)
            os.close(report)
        try:
            self._begin(words[0])
        except BaseException:
            self.close()
            raise

    def _begin(self, name: str) -> None:
        kind, _, rest = self._line(None).partition(" ")
        if kind == "pid":
            self.pid = int(rest)
            return
        reason = os.strerror(int(rest)) if kind == "error" else "the launcher failed"
        if kind == "error" and int(rest) in (2, 20):
            raise NotFound(f"{name}: there is no such program")
        raise NoPermission(f"{name} cannot be executed: {reason}")

    def _line(self, deadline: float | None) -> str:
        """Return the next line of the report; empty: the launcher is gone, or it is too late."""
        while b"\n" not in self._text:
            patience = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._report], [], [], patience)[0]:
                return ""
            chunk = os.read(self._report, 4096)
            if not chunk:
                return ""
            self._text += chunk
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def wait(self, timeout: float | None = None) -> Cost | None:
        """Wait for the end; ``None``: it did not come in time.

        :param timeout: seconds.
        :raises PlatformError: the launcher itself was killed.
        """
        line = self._line(None if timeout is None else time.monotonic() + timeout)
        if not line:
            if self._process.poll() is None:
                return None
            raise PlatformError("the launcher of a program under test was killed")
        number = [int(word) for word in line.split()[1:]]
        return Cost(status=os.waitstatus_to_exitcode(number[0]), wall=number[1] / 1e9,
                    user=number[2] / 1e6, system=number[3] / 1e6, peak=number[4] << 10,
                    minor=number[5], major=number[6], switches=number[7] + number[8],
                    left=number[9])

    def terminate(self) -> None:
        """Ask the program to end, by SIGTERM."""
        self._order(b"T")

    def kill(self) -> None:
        """Kill it with all descendants."""
        self._order(b"K")

    def _order(self, order: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has just ended by itself
            os.write(self._control, order)

    def close(self) -> None:
        """Kill what is left, and let go; idempotent."""
        if self._control < 0:
            return
        os.close(self._control)
        self._control = -1
        try:
            self._process.wait(_KILLED_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._report)

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def ending(status: int) -> str:
    """Say in words how a program ended."""
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def tail(file: IO[bytes], lines: int = 8) -> str:
    """Return the last lines of what a program printed into a file."""
    file.flush()
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 4096))
    return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def descendants(pid: int) -> list[int]:
    """Return a process and all its descendants that live, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def ports(pids: Iterable[int]) -> tuple[set[int], bool]:
    """Return the TCP ports that processes listen on, and whether they do on a local socket."""
    owned, tables = set(), ["", ""]
    for pid in pids:
        with contextlib.suppress(OSError):
            base = Path(f"/proc/{pid}")
            for entry in os.scandir(base / "fd"):
                with contextlib.suppress(OSError):
                    match = re.match(r"socket:\[(\d+)\]", str(Path(entry.path).readlink()))
                    if match:
                        owned.add(match[1])
            if owned and not tables[0]:
                tables = [(base / "net/tcp").read_text() + (base / "net/tcp6").read_text(),
                          (base / "net/unix").read_text()]
    rows = [line.split() for line in tables[0].splitlines()]
    found = {int(row[1].rpartition(":")[2], 16) for row in rows
             if len(row) > 9 and row[3] == _LISTENING and row[9] in owned}
    local = [line.split() for line in tables[1].splitlines()[1:]]
    return found, any(len(row) > 6 and row[6] in owned and int(row[3], 16) & _ACCEPTING
                      for row in local)
