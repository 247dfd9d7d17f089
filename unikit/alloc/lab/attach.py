"""Record a running process without restarting it.

The recorder is loaded by a call of ``dlopen`` in one of its threads, then the words in which its
modules keep the addresses of ``malloc`` and its family are pointed to the recorder, which passes
every call on to the allocator that served it before: blocks made before, meanwhile and after are
all the same allocator's. At the end the words are put back; the library stays mapped and idle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pwd
import shutil
import stat
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ptrace.error import PtraceError

from unikit.alloc.lab import got, recorder, remote
from unikit.alloc.lab.trace import Trace
from unikit.errors import InvalidArgument, NoPermission, NotFound, NotSupported, PlatformError

FAMILY = (
    "malloc", "free", "calloc", "realloc", "reallocarray", "aligned_alloc", "memalign",
    "posix_memalign", "valloc", "pvalloc", "free_sized", "free_aligned_sized", "_Znwm", "_Znam",
    "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t", "_ZdlPv",
    "_ZdaPv", "_ZdlPvm", "_ZdaPvm", "_ZdlPvSt11align_val_t", "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t", "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t")
"""What is recorded, in the order of ``host_record.h``."""

_CODE, _STACK = 4096, 512 << 10
_MAP, _ANONYMOUS, _UNMAP = 9, 0x22, 11  # mmap, MAP_PRIVATE | MAP_ANONYMOUS, munmap
_NOW = 2  # RTLD_NOW
_TRIES, _PAUSE_S = 200, 0.002
_MARGIN = 0x4000  # functions before the first public one of glibc's malloc.o
_OWN = ("je_malloc", "mi_malloc", "tc_malloc", "sn_malloc", "rpmalloc", "zmalloc_allocator")


@dataclasses.dataclass(frozen=True, slots=True)
class _Patch:
    slot: got.Slot
    before: int
    hook: int


class Recording:
    """A process being recorded, from the making of this object to :meth:`stop`.

    Usable in ``with``. Not for two threads: the kernel knows who traces.

    :ivar allocator: the file that serves the process: ``libc.so.6``, ``libjemalloc.so.2``.
    :ivar slots: words that were pointed to the recorder.
    :ivar stops: seconds for which the process as a whole was stopped, each time.
    :ivar busy: seconds for which one thread was borrowed to load the recorder.
    :ivar trace: what was recorded, once stopped.
    """

    def __init__(self, pid: int, target: str | Path, *, names: bool = True) -> None:
        """Begin to record.

        :param target: where the trace goes.
        :param names: look up the names of call sites at the end.
        :raises NotFound: there is no such process.
        :raises NoPermission: it may not be traced; the message says why and what to do.
        :raises NotSupported: it is such that nothing can be loaded into it.
        :raises PlatformError: loading failed; the process runs on as before.
        """
        self.pid, self.target, self.trace = pid, Path(target), None
        self.stops: list[float] = []
        self.busy = 0.0
        self._names = names
        self._patches: list[_Patch] = []
        self._executable: list[tuple[int, int]] = []
        examine(pid)
        self._memory = _open(pid)
        self._folder = _folder(pid)
        try:
            self._modules = got.modules(pid, self._memory)
            self._check_modules()
            self._library = self._place()
            self._raw = self._folder / "out/trace"
            self._load()
            self._redirect()
        except BaseException as error:
            self._give_up()
            if isinstance(error, PtraceError):
                raise _refusal(pid, error) from error
            raise
        self._active = True

    trace: Trace | None

    # ---- using it ------------------------------------------------------------------------

    def wait(self, seconds: float | None = None) -> bool:
        """Wait so long, or until the process ends; say whether it is alive."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while _is_alive(self.pid):
            rest = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
            if rest <= 0:
                return True
            time.sleep(rest)
        return False

    def stop(self) -> Trace:
        """End the recording, leave the process as it was, and return the trace.

        :raises NotFound: nothing was recorded.
        """
        if not self._active:
            assert self.trace is not None
            return self.trace
        self._active = False
        try:
            ended = "" if self._restore() else "ended"
            self.trace = recorder.finish(self._raw, self.target, ended=ended, names=self._names)
        finally:
            self._release()
        return self.trace

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # ---- loading -------------------------------------------------------------------------

    def _check_modules(self) -> None:
        names = [Path(module.path).name for module in self._modules]
        if any(name.startswith(("ld-musl", "libc.musl")) for name in names):
            raise NotSupported(f"process {self.pid} uses musl, whose dynamic linker cannot be "
                               "called from outside; only programs of glibc can be recorded")
        self._linkers = [module for module in self._modules
                         if Path(module.path).name.startswith("ld-linux")]
        self._open_names: dict[str, tuple[int, int]] = {}
        for module in self._modules:
            if Path(module.path).name.startswith(("libc.so", "libc-2", "libdl")):
                self._open_names |= module.defined(frozenset(
                    {"dlopen", "__libc_dlopen_mode", "dlerror", "__errno_location"}))
        if not self._linkers or not {"dlopen", "__libc_dlopen_mode"} & self._open_names.keys():
            raise NotSupported(
                f"process {self.pid} is linked statically (it has no glibc to load a library "
                "with); link the program dynamically, or record one that is")
        # What provides malloc: the first module in the order of search, which is that of the
        # link map; a preloaded or linked allocator comes before libc.
        providers = [module for module in self._modules
                     if "malloc" in module.defined(frozenset({"malloc"}))
                     and module not in self._linkers]
        own = [module for module in providers if not Path(module.path).name.startswith("libc")]
        found = (own or providers)[:1]
        self.allocator = Path(found[0].path).name if found else "unknown"
        self._providers = providers
        self._name_own()

    def _name_own(self) -> None:
        """Name an allocator that the program carries in itself, which nobody can record."""
        exe = Path(f"/proc/{self.pid}/exe")
        with contextlib.suppress(OSError):
            path = exe.readlink()
            module = next((each for each in self._modules if each.path == str(path)), None)
            inside = sorted(module.defined(frozenset(_OWN))) if module is not None else []
            if inside:
                self.allocator += f", and one of its own inside: {inside[0]}"

    def _place(self) -> Path:
        """Put the recorder where the process can read it."""
        made = recorder.library(attach=True)
        digest = made.parent.name[:12]
        wanted = f"libunikit-attach-{digest}.so"
        loaded = next((module.path for module in self._modules
                       if Path(module.path).name == wanted), None)
        if loaded is not None:
            return Path(loaded)
        path = self._folder / wanted
        shutil.copyfile(made, path)
        path.chmod(0o755)
        seen = Path(f"/proc/{self.pid}/root") / path.relative_to("/")
        if not seen.exists():
            raise NotSupported(f"process {self.pid} does not see {self._folder}: it is in a "
                               "container or a chroot; record from inside, where it is")
        return path

    def _unsafe(self) -> list[tuple[int, int]]:
        """Return the code in which locks are held that loading needs."""
        found = [(module.start, module.end) for module in self._linkers]
        for module in self._providers:
            if Path(module.path).name.startswith("libc"):
                family = module.defined(frozenset(FAMILY) | {
                    "malloc_info", "mallopt", "malloc_trim", "mallinfo", "malloc_usable_size"})
                starts = [start for start, _ in family.values()]
                ends = [start + size for start, size in family.values()]
                found.append((min(starts) - _MARGIN, max(ends)))
            else:
                found.append((module.start, module.end))
        return found

    def _load(self) -> None:
        """Load the recorder and start it, in the first thread found at a good moment."""
        unsafe = self._unsafe()
        glibc = self.allocator.startswith("libc")
        for number in range(_TRIES):
            tids = remote.threads(self.pid)
            if not tids:
                raise NotFound(f"process {self.pid} ended")
            tid = tids[number % len(tids)]
            try:
                thread = remote.Thread(tid)
            except NotFound:
                continue
            except PtraceError as error:
                if remote.ended(self.pid, tid, error) and _is_alive(self.pid):
                    continue
                raise
            try:
                if remote.safe(thread, self._memory, unsafe, glibc=glibc):
                    began = time.monotonic()
                    self._load_in(thread)
                    self.busy = time.monotonic() - began
                    return
            finally:
                thread.release()
            time.sleep(_PAUSE_S)
        raise PlatformError(f"process {self.pid} is allocating or linking in all its threads "
                            f"whenever looked at ({_TRIES} times); try again")

    def _load_in(self, thread: remote.Thread) -> None:
        instruction = self._find_syscall()
        with thread.borrowed():
            code = thread.syscall(instruction, _MAP, 0, _CODE, 5, _ANONYMOUS, -1, 0)
            room = thread.syscall(instruction, _MAP, 0, _STACK, 3, _ANONYMOUS, -1, 0)
            if code < 0 or room < 0:
                raise PlatformError(f"process {self.pid} has no memory for the recorder: "
                                    f"{os.strerror(-min(code, room))}")
            try:
                self._memory.write(code, b"\xff\xd0\xcc")
                self._call_recorder(thread, code, room)
            finally:
                thread.syscall(instruction, _UNMAP, code, _CODE)
                thread.syscall(instruction, _UNMAP, room, _STACK)

    def _call_recorder(self, thread: remote.Thread, code: int, room: int) -> None:
        """Call dlopen and the recorder's start; errno stays as it was."""
        top = room + _STACK - 64
        errno_at = thread.call(code, top, self._open_names["__errno_location"][0])
        before = self._memory.read(errno_at, 4)
        try:
            self._memory.write(room, os.fsencode(self._library) + b"\0")
            if not any(module.path == str(self._library) for module in self._modules):
                opener = self._open_names.get("dlopen") or self._open_names["__libc_dlopen_mode"]
                if not thread.call(code, top, opener[0], room, _NOW):
                    said = thread.call(code, top, self._open_names["dlerror"][0]) \
                        if "dlerror" in self._open_names else 0
                    raise PlatformError(f"process {self.pid} cannot load the recorder: "
                                        f"{self._memory.text(said) if said else 'no reason given'}")
            self._modules = got.modules(self.pid, self._memory)
            self._recorder = next(module for module in self._modules
                                  if module.path == str(self._library))
            self._hooks = {name: address for name, (address, _) in self._recorder.defined().items()}
            self._memory.write(room, os.fsencode(self._raw) + b"\0")
            failed = thread.call(code, top, self._hooks["kit_record_start"], room) & 0xFFFFFFFF
            if failed:
                raise PlatformError(f"process {self.pid} cannot write {self._raw}: "
                                    f"{os.strerror(failed)}")
        finally:
            self._memory.write(errno_at, before)

    def _find_syscall(self) -> int:
        for module in (*self._providers, *self._linkers):
            if Path(module.path).name.startswith(("libc.", "libc-", "ld-")):
                at = module.start
                while at < module.end:
                    data = self._memory.read(at, min(1 << 20, module.end - at))
                    found = data.find(b"\x0f\x05")
                    while found >= 0:
                        if self._is_code(at + found):
                            return at + found
                        found = data.find(b"\x0f\x05", found + 1)
                    at += max(len(data), 4096)
        raise NotSupported(f"process {self.pid} has no system call instruction in its C library")

    def _is_code(self, address: int) -> bool:
        if not self._executable:
            for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
                span, rights = line.split(None, 2)[:2]
                if "x" in rights:
                    start, _, end = span.partition("-")
                    self._executable.append((int(start, 16), int(end, 16)))
        return any(start <= address < end - 1 for start, end in self._executable)

    # ---- redirecting ---------------------------------------------------------------------

    def _redirect(self) -> None:
        """Point every module's words to the recorder, while the whole process stands still."""
        names = frozenset(FAMILY)
        found = [slot for module in self._modules if module is not self._recorder
                 for slot in module.slots(names)]
        targets = self._targets(found)
        owners = {module.path: module for module in self._modules}
        wanted = [(slot, targets[slot.name], self._hooks[f"kit_record_{slot.name}"])
                  for slot in found if targets.get(slot.name)]
        with self._standstill():
            for slot, target, hook in wanted:
                now = int.from_bytes(self._memory.read(slot.address, 8), "little")
                owner = owners[slot.module]
                unresolved = slot.lazy and owner.start <= now < owner.end and now != target
                if now == target or unresolved:
                    self._patches.append(_Patch(slot, now, hook))
                    self._memory.write(slot.address, hook.to_bytes(8, "little"))
        if not self._patches:
            raise NotSupported(f"process {self.pid} calls no allocator through its dynamic "
                               "linker: it is one of its own, compiled in")
        self.slots = len(self._patches)

    def _targets(self, found: list[got.Slot]) -> dict[str, int]:
        """Return what calls are passed on to, by name.

        Where a program takes the address of a function, its name may stand for a jump table's
        entry in the program, which the words we change feed: then the true one is taken.
        """
        at = self._recorder.objects("record_next")
        words = struct.unpack(f"<{len(FAMILY)}Q", self._memory.read(at, 8 * len(FAMILY)))
        targets = dict(zip(FAMILY, words, strict=True))
        defined = {name: {place[name][0] for place in map(
            lambda module: module.defined(frozenset({name})), self._modules) if name in place}
            for name in FAMILY}
        for index, name in enumerate(FAMILY):
            if targets[name] and targets[name] not in defined[name]:
                values = Counter(int.from_bytes(self._memory.read(slot.address, 8), "little")
                                 for slot in found if slot.name == name)
                true = next((value for value, _ in values.most_common()
                             if value in defined[name]), 0)
                self._memory.write(at + 8 * index, true.to_bytes(8, "little"))
                targets[name] = true
        if not targets["malloc"]:
            raise NotSupported(f"process {self.pid}: which malloc serves it cannot be told")
        return targets

    @contextlib.contextmanager
    def _standstill(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            with remote.stopped(self.pid):
                yield
        finally:
            self.stops.append(time.monotonic() - began)

    def _restore(self) -> bool:
        """Put the words back; say whether the process is alive."""
        try:
            with self._standstill():
                for patch in self._patches:
                    now = self._memory.read(patch.slot.address, 8)
                    if now == patch.hook.to_bytes(8, "little"):
                        self._memory.write(patch.slot.address, patch.before.to_bytes(8, "little"))
                state = self._recorder.objects("record_state")
                self._memory.write(state, (2).to_bytes(4, "little"))
        except (NotFound, OSError, PtraceError):
            if _is_alive(self.pid):
                raise
            return False
        self._patches.clear()
        return True

    def _give_up(self) -> None:
        if self._patches:
            with contextlib.suppress(NotFound, OSError, PtraceError):
                self._restore()
        self._release()

    def _release(self) -> None:
        self._active = False
        self._memory.close()
        shutil.rmtree(self._folder, ignore_errors=True)


# ---- may we, and can we --------------------------------------------------------------------------


def examine(pid: int) -> None:
    """Say why a process cannot be recorded, as far as that can be known before trying.

    :raises NotFound: there is no such process, or it has ended.
    :raises NoPermission: it is traced by another program.
    :raises NotSupported: its kind is not supported.
    :raises InvalidArgument: it is this very process.
    """
    if pid == os.getpid():
        raise InvalidArgument("a process cannot attach to itself; record it with "
                              "unikit alloc record -- PROGRAM")
    found = _status(pid)
    if found is None:
        raise NotFound(f"there is no process {pid}")
    if found.get("Tgid") != str(pid):
        raise InvalidArgument(f"{pid} is a thread of process {found.get('Tgid')}; give that number")
    state = found.get("State", "")
    if state[:1] in ("Z", "X"):
        raise NotFound(f"process {pid} has ended and waits for its parent")
    tracer = found.get("TracerPid", "0")
    if tracer != "0":
        raise NoPermission(f"process {pid} is traced by process {tracer} already (a debugger, "
                           "strace?); end that first")
    if state[:1] in ("T", "t"):
        raise NotSupported(f"process {pid} is stopped; let it go on first: kill -CONT {pid}")
    if found.get("Seccomp", "0") != "0":
        raise NotSupported(f"process {pid} runs under seccomp, which may kill it for what the "
                           "recorder does; start it under unikit alloc record -- instead")
    if found.get("Kthread") == "1" or not _readable(Path(f"/proc/{pid}/maps"), pid):
        raise NotSupported(f"process {pid} has no memory of its own: it belongs to the kernel")
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/exe").open("rb") as file:
        head = file.read(20)
        if head[:4] == b"\x7fELF" and (head[4] != 2 or head[18] != 62):
            raise NotSupported(f"process {pid} is no 64-bit x86 program")


def _status(pid: int) -> dict[str, str] | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _readable(maps: Path, pid: int) -> bool:
    try:
        return bool(maps.read_text())
    except PermissionError as error:
        raise _refusal(pid, error) from error
    except OSError:
        return True


def _is_alive(pid: int) -> bool:
    found = _status(pid)
    return found is not None and found.get("State", "")[:1] not in ("Z", "X")


def _open(pid: int) -> remote.Memory:
    try:
        return remote.Memory(pid)
    except FileNotFoundError as error:
        raise NotFound(f"there is no process {pid}") from error
    except OSError as error:
        raise _refusal(pid, error) from error


def _refusal(pid: int, error: Exception) -> Exception:
    """Return what the kernel's refusal means here, with what to do about it."""
    if getattr(error, "errno", None) == errno.ESRCH:
        return NotFound(f"process {pid} ended")
    found = _status(pid) or {}
    owner = int(found.get("Uid", "0").split()[0])
    if os.geteuid() not in (0, owner):
        return NoPermission(f"process {pid} belongs to {_user(owner)}; attach as that user or as "
                            "root")
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    with contextlib.suppress(OSError, ValueError):
        level = int(scope.read_text())
        if level == 3:
            return NoPermission(f"this system allows no tracing at all ({scope} is 3, until the "
                                "next boot); start the program under unikit alloc record --")
        if level == 2 or (level == 1 and os.geteuid() != 0):
            return NoPermission(f"this system lets only {'root' if level == 2 else 'parents'} "
                                f"trace a process ({scope} is {level}); attach as root, or: "
                                "sysctl kernel.yama.ptrace_scope=0")
    return NoPermission(f"process {pid} may not be traced: {error}; it may have privileges of its "
                        "own, or this is a container without CAP_SYS_PTRACE")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _folder(pid: int) -> Path:
    """Make a folder that the process can read and, one level below, write."""
    folder = Path(tempfile.mkdtemp(prefix="unikit-attach-"))
    folder.chmod(stat.S_IRWXU | stat.S_IXGRP | stat.S_IXOTH)
    out = folder / "out"
    out.mkdir(mode=0o700)
    found = _status(pid) or {}
    words = found.get("Uid", "0 0").split(), found.get("Gid", "0 0").split()
    if os.geteuid() == 0:
        os.chown(out, int(words[0][1]), int(words[1][1]))
    return folder
