"""A running image as a child process: its pipes, its network and its end."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from unikit.errors import GuestExit, ImageError, PlatformError, TimedOut
from unikit.platform.api import (
    FAULTED,
    PAGE,
    PANICKED,
    READ_FROM_OUTSIDE,
    STOPPED,
    BootImage,
    Console,
    Machine,
)
from unikit.platform.linux.report import Report

_STACK_MINIMUM = 16 << 10  # as in guest/memory.c
_MEMORY_MINIMUM = 48 << 10
_CHUNK = 1 << 16
_numbers = itertools.count(1)


class LinuxMachine(Machine):
    """An image that runs as a process of this host. Thread safe.

    One thread per machine starts the process, reads its console and waits for its end. It lives
    as long as the process: the kernel kills a child that asked for it (``parent=``, guest/entry.c)
    when the *thread* that made it ends, and so nothing outlives the launcher, however it ends.

    :ivar pid: of the process.
    """

    def __init__(self, image: BootImage, *, memory: int, netif: Any = None,
                 options: Mapping[str, str], name: str = "",
                 sink: Callable[[bytes], object] | None = None) -> None:
        _check(image, memory)
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
        self._kept: int | None = None
        self._cpu_ns = 0
        self._bridge: Any = None
        self._undo = contextlib.ExitStack()
        try:
            self._start(_arguments(options), memory)
        except BaseException:
            self._undo.close()
            raise

    def _start(self, arguments: Sequence[str], memory: int) -> None:
        words = [str(self.image.path), f"memory={memory}", f"parent={os.getpid()}"]
        self._kept = self._keep(memory)
        if self._kept is not None:
            words.append(f"memory.fd={self._kept}")
        network = self._connect()
        if network is not None:
            mac = ":".join(f"{byte:02x}" for byte in self.netif.mac)
            words += [f"net.fd={network}", f"net.mac={mac}", f"net.mtu={self.netif.mtu}"]
        started, failures = threading.Event(), list[BaseException]()
        self._began_ns = time.monotonic_ns()
        self._thread = threading.Thread(
            target=self._live, args=([*words, *arguments], network, started, failures),
            daemon=True, name=f"unikit-{self.name}")
        self._thread.start()
        started.wait()
        if failures:
            self._thread.join()
            _refused(self.image.path, failures[0])

    def _keep(self, memory: int) -> int | None:
        """Return a file for the heap, if the image leaves something there for readers outside."""
        if not set(READ_FROM_OUTSIDE) & set(self.image.plan.get("components", {})):
            return None
        fd = os.memfd_create(self.name, os.MFD_CLOEXEC)
        self._undo.callback(os.close, fd)
        os.truncate(fd, memory)
        return fd

    def memory(self) -> bytes:
        """Return a copy of the heap, and zeros behind it; see :meth:`Machine.memory`.

        :raises NotSupported: no component of the image leaves anything there to be read.
        """
        if self._kept is None:
            return super().memory()
        found = bytearray(os.fstat(self._kept).st_size)
        view = memoryview(found)
        done = 0
        while count := os.preadv(self._kept, [view[done:]], done):
            done += count
        return bytes(found)

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

    def _live(self, words: list[str], network: int | None, started: threading.Event,
              failures: list[BaseException]) -> None:
        """Start the process, feed the console until it ends, keep its status."""
        try:
            with _executable(self.image.path) as path:
                self._process = subprocess.Popen(
                    words, executable=path, env={}, stdin=subprocess.PIPE, bufsize=0,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
                    restore_signals=True,
                    pass_fds=[fd for fd in (network, self._kept) if fd is not None])
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
        if report.refusal and self._status == 2:
            self._fail(f"{self.name} did not start: {report.refusal}", "killed", 2)
        if self._status == -signal.SIGSYS:
            self._fail(f"{self.name} was killed: it made a system call that images are not "
                       "allowed (seccomp)", "killed", 128 + signal.SIGSYS)
        if self._status in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL):
            self._fail(f"{self.name} faulted and could not report it", "fault", FAULTED)
        if self._status < 0:
            what = signal.strsignal(-self._status) or f"signal {-self._status}"
            self._fail(f"{self.name} was ended from outside: {what}", "killed",
                       128 - self._status)
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
        found: dict[str, int | float | str] = {"platform": "linux", "pid": self.pid}
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


def _check(image: BootImage, memory: int) -> None:
    """Refuse what cannot run before anything is started."""
    if "linux" not in image.entries:
        raise ImageError(f"{image.path} has no entry for linux; build it with --for linux")
    last = image.segments[-1]
    size = -(-(last.address + last.size) // PAGE) * PAGE - image.segments[0].address // PAGE * PAGE
    least = max(size + _STACK_MINIMUM + PAGE, _MEMORY_MINIMUM)
    if memory < least:
        raise ImageError(f"{image.path} does not fit into {memory} bytes of memory: as a Linux "
                         f"process it needs at least {least >> 10}K")


def _arguments(options: Mapping[str, str]) -> list[str]:
    words = [f"{name}={value}" for name, value in options.items() if name]
    return [*words, "--", options[""]] if "" in options else words


@contextlib.contextmanager
def _executable(path: Path) -> Iterator[str]:
    """Yield a path that can be executed: where mode or mount forbid it, of a copy in memory."""
    if os.access(path, os.X_OK):
        yield str(path.absolute())  # a bare name would be looked for on the PATH
        return
    fd = os.memfd_create(path.name)
    try:
        data = memoryview(path.read_bytes())
        while data:
            data = data[os.write(fd, data):]
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)


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
