"""A machine that is a process of this host: its pipes, its report, its network and its end.

Of the platforms that start one: an image as a process, a virtual machine monitor.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from unikit.errors import GuestExit, ImageError, PlatformError, TimedOut
from unikit.platform.api import FAULTED, PAGE, PANICKED, STOPPED, BootImage, Console, Machine
from unikit.platform.process.report import Report

_CHUNK = 1 << 16
_numbers = itertools.count(1)


class ProcessMachine(Machine):
    """A child process with its console on standard input and output, and a report. Thread safe.

    One thread per machine starts the process, reads its console and waits for its end. It lives
    as long as the process: a child that asked the kernel for it is killed when the *thread* that
    made it ends, and so nothing outlives the launcher, however it ends.

    :cvar platform: for statistics.
    :ivar pid: of the process.
    """

    platform = ""

    def __init__(self, image: BootImage, *, netif: Any, name: str,
                 sink: Callable[[bytes], object] | None) -> None:
        self.image = image
        self.name = name or f"{image.plan.get('name', image.path.stem)}-{next(_numbers)}"
        self.netif = netif
        self.console = Console(self._send)
        if sink is not None:
            self.console.attach(sink)
        self._report = Report()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stopped = False
        self._status = 0
        self._cpu_ns = 0
        self._bridge: Any = None
        self._undo = contextlib.ExitStack()

    def _start(self, words: Sequence[str], executable: str, files: Sequence[int]) -> None:
        """Start the process; with these descriptors, beside its three pipes.

        :raises PlatformError: the host refused.
        """
        started, failures = threading.Event(), list[BaseException]()
        self._began_ns = time.monotonic_ns()
        self._thread = threading.Thread(
            target=self._live, args=(list(words), executable, tuple(files), started, failures),
            daemon=True, name=f"unikit-{self.name}")
        self._thread.start()
        started.wait()
        if failures:
            self._thread.join()
            _refused(self.image.path, failures[0])

    def _connect(self) -> int | None:
        """Return the descriptor that carries the image's frames, bridging to it if need be."""
        if self.netif is None:
            return None
        from unikit.net.netif import host
        if isinstance(self.netif, host.FdInterface):
            return self.netif.fileno()
        ours, theirs = host.socket_pair(mtu=self.netif.mtu)
        self._undo.callback(ours.close)
        self._undo.callback(theirs.close)
        self._bridge = host.Bridge(self.netif, ours)
        self._undo.callback(self._bridge.close)
        return theirs.fileno()

    def _live(self, words: list[str], executable: str, files: tuple[int, ...],
              started: threading.Event, failures: list[BaseException]) -> None:
        """Start the process, feed the console until it ends, keep its status."""
        try:
            self._process = subprocess.Popen(
                words, executable=executable, env={}, stdin=subprocess.PIPE, bufsize=0,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
                restore_signals=True, pass_fds=files)
        except BaseException as error:
            failures.append(error)
            return
        finally:
            if failures or not hasattr(self, "_process"):
                started.set()
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        self.pid = process.pid
        self._input = process.stdin.fileno()
        os.set_blocking(self._input, False)
        started.set()
        self._read({process.stdout.fileno(): self.console.feed,
                    process.stderr.fileno(): self._report.feed})
        with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self._cpu_ns = _cpu_ns(process.pid)
        with self._lock:  # from here on the process id may be somebody else's
            self._status = process.wait()
            self._input = -1
        process.stdin.close()
        process.stdout.close()
        process.stderr.close()
        self._run_ns = time.monotonic_ns() - self._began_ns
        self._ended.set()
        self.console.end()

    def _read(self, readers: dict[int, Callable[[bytes], object]]) -> None:
        """Hand on what arrives until every pipe has ended."""
        poll = select.poll()
        for fd in readers:
            poll.register(fd, select.POLLIN)
        while readers:
            for fd, _ in poll.poll():
                data = os.read(fd, _CHUNK)
                if data:
                    readers[fd](data)
                else:
                    poll.unregister(fd)
                    del readers[fd]

    def _send(self, data: bytes) -> int:
        with self._lock:
            if self._input < 0:
                return 0
            try:
                return os.write(self._input, data)
            except (BlockingIOError, BrokenPipeError):
                return 0

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return not self._ended.is_set()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; see :meth:`unikit.platform.api.Machine.wait`."""
        if not self._ended.wait(timeout):
            raise TimedOut(f"{self.name} still runs after {timeout:g} s")
        if self._stopped and self._status in (-signal.SIGKILL, STOPPED):
            return STOPPED
        report = self._report
        if report.kind:
            code = {"panic": PANICKED, "fault": FAULTED}[report.kind]
            self._fail(f"{self.name} {report.sentence(self.image)}", report.kind, code)
        return self._code()

    def _code(self) -> int:
        """Return the exit code of a process that reported nothing; or raise :exc:`GuestExit`."""
        return self._status

    def _fail(self, message: str, reason: str, code: int) -> NoReturn:
        raise GuestExit(message, reason=reason, code=code, registers=self._report.registers,
                        backtrace=self._report.frames(self.image),
                        console=self.console.lines(20))

    def stop(self) -> None:
        """End the process now."""
        with self._lock:
            if self._input >= 0:
                self._stopped = True
                os.kill(self.pid, signal.SIGKILL)  # not Popen.kill: that would reap it
        self._ended.wait()

    def stats(self) -> dict[str, int | float | str]:
        """Return memory, time and, over a bridge, frames."""
        found: dict[str, int | float | str] = {"platform": self.platform, "pid": self.pid}
        if self.running:
            found["run_ns"] = time.monotonic_ns() - self._began_ns
            found["cpu_ns"] = _cpu_ns(self.pid)
            found["resident_bytes"] = _resident_bytes(self.pid)
        else:
            found["run_ns"], found["cpu_ns"] = self._run_ns, self._cpu_ns
        if self._bridge is not None:
            frames = self._bridge.stats()
            found |= {"frames_in": frames["ab_frames"], "frames_out": frames["ba_frames"],
                      "bytes_in": frames["ab_bytes"], "bytes_out": frames["ba_bytes"]}
        return found

    def close(self) -> None:
        """Stop the process and free everything; idempotent."""
        self.stop()
        self._thread.join()
        self._undo.close()
        self.release()


def _refused(path: Path, error: BaseException) -> NoReturn:
    if not isinstance(error, OSError):
        raise error
    if error.errno in (8, 22):  # ENOEXEC, EINVAL
        raise ImageError(f"{path} is not an image that this host can run: "
                         f"{error.strerror}") from error
    raise PlatformError(f"cannot start {path}: {error.strerror}") from error


def _cpu_ns(pid: int) -> int:
    """Return the processor time of a process, ns; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) * 10**9 // os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
