"""The runtime environment of this very Python process.

A component asks its environment for time, randomness, sleep and pages; inside an image a platform
answers, here this process does. Objects made by ``Coop().open()`` or ``Mini().open(netif)`` use one
of their own unless they are given one::

    with HostEnvironment(memory="1M") as env:
        before = env.now_ns()
        env.wait(timeout=0.001)
        assert env.now_ns() - before >= 1_000_000

There is no ``platform="host"`` to boot: an image is a file for another address space, whereas here
its components run as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from unikit.component import parse_size
from unikit.errors import Closed
from unikit.ffi import load

WAKE_CONSOLE, WAKE_NETWORK, WAKE_BLOCK, WAKE_CPU = 1, 2, 4, 8
"""What may end a wait, as bits (``KIT_WAKE_*``)."""
WAKE_ANY = WAKE_CONSOLE | WAKE_NETWORK | WAKE_BLOCK | WAKE_CPU
NEVER = 2**64 - 1
"""A deadline that does not come."""
_EXTENSION = "unikit.platform.host._host"


class HostConsole:
    """The outer end of an environment's console, for any thread."""

    def __init__(self, env: HostEnvironment) -> None:
        self._env = env

    def read(self, size: int = 65536) -> bytes:
        """Return and forget up to ``size`` bytes that components have written."""
        ffi, lib, host = self._env._parts()
        buffer = ffi.new("char[]", size)
        return bytes(ffi.buffer(buffer, lib.kit_host_environment_output(host, buffer, size)))

    def write(self, data: bytes | str) -> int:
        """Give input to the components and wake them; the number of bytes there was room for."""
        _, lib, host = self._env._parts()
        raw = data.encode() if isinstance(data, str) else bytes(data)
        return int(lib.kit_host_environment_input(host, raw, len(raw)))


class HostEnvironment:
    """A runtime environment in this process. Use from one thread; :meth:`wake` from any.

    :param memory: bytes of ``env.memory``, ``"16M"`` or a number; 0: none.
    :param output: descriptor or file for console output; ``None``: kept for ``console.read()``,
        at most 64 KiB.
    :param input: descriptor or file for console input; ``None``: from ``console.write()``.
    :param options: boot options by name.
    :param args: the argument string.
    :param cpus: processors; the further ones are threads that ``env->cpu_start`` makes.
    :raises OutOfMemory: the host has not that much address space.
    """

    def __init__(self, *, memory: int | str = 0, output: Any = None, input: Any = None,
                 options: Mapping[str, str] | None = None, args: str = "",
                 cpus: int = 1) -> None:
        self._host: Any = None
        self._ffi, self._lib = load.extension(_EXTENSION)
        given = {**(options or {}), **({"": args} if args else {})}
        packed = b"".join(f"{name}\0{value}\0".encode() for name, value in given.items())
        text = self._ffi.new("char[]", packed)
        settings = self._ffi.new("struct kit_host_settings *", {
            "memory": parse_size(memory), "output": _descriptor(output),
            "input": _descriptor(input), "options": text, "options_bytes": len(packed),
            "cpus": cpus})
        out = self._ffi.new("struct kit_host_environment **")
        load.check(self._lib.kit_host_environment_open(settings, out), "opening an environment")
        self._host = out[0]
        self._files = (output, input)
        self.console = HostConsole(self)

    def _parts(self) -> tuple[Any, Any, Any]:
        if self._host is None:
            raise Closed("the environment is closed")
        return self._ffi, self._lib, self._host

    @property
    def ptr(self) -> Any:
        """The ``runtime_environment_t *`` that components are opened with."""
        _, lib, host = self._parts()
        return lib.kit_host_environment_env(host)

    @property
    def memory(self) -> memoryview:
        """``env.memory`` as a writable view; valid until :meth:`close`."""
        ffi, _, _ = self._parts()
        region = self.ptr.memory
        return memoryview(ffi.buffer(region.base_address, region.size))

    def now_ns(self) -> int:
        """Return monotonic time, ns."""
        return int(self.ptr.now_ns(self.ptr))

    def wall_ns(self) -> int:
        """Return time since 1970 UTC, ns."""
        return int(self.ptr.wall_ns(self.ptr))

    def entropy(self, size: int) -> bytes:
        """Return ``size`` random bytes fit for keys."""
        buffer = self._ffi.new("char[]", size)
        load.check(self.ptr.entropy(self.ptr, buffer, size), f"getting {size} random bytes")
        return bytes(self._ffi.buffer(buffer, size))

    def wait(self, deadline_ns: int = NEVER, wake: int = WAKE_ANY, *,
             timeout: float | None = None) -> int:
        """Sleep until a deadline or an event; other Python threads run meanwhile.

        :param deadline_ns: by :meth:`now_ns`.
        :param wake: ``WAKE_*`` bits that may end it.
        :param timeout: seconds from now, instead of ``deadline_ns``.
        :returns: the bits that ended it; 0: the deadline, or a signal (which Python then handles).
        """
        _, lib, host = self._parts()
        if timeout is not None:
            deadline_ns = self.now_ns() + round(timeout * 1e9)
        return int(lib.kit_host_environment_wait(host, min(deadline_ns, NEVER), wake))

    def wake(self) -> None:
        """End the wait that runs now, or the next one, with ``WAKE_CPU``; from any thread."""
        _, lib, host = self._parts()
        lib.kit_host_environment_wake(host)

    def watch(self, file: Any) -> None:
        """Let :meth:`wait` wake with ``WAKE_NETWORK`` when a descriptor is readable.

        :param file: a descriptor, or an object with ``fileno()`` such as an open interface.
        :raises AlreadyExists: it is watched.
        :raises OutOfMemory: 32 are watched.
        """
        _, lib, host = self._parts()
        fd = _descriptor(file)
        load.check(lib.kit_host_environment_watch(host, fd), f"watching descriptor {fd}")

    def unwatch(self, file: Any) -> None:
        """Undo :meth:`watch`; before the descriptor is closed.

        :raises NotFound: it is not watched.
        """
        _, lib, host = self._parts()
        fd = _descriptor(file)
        load.check(lib.kit_host_environment_unwatch(host, fd), f"unwatching descriptor {fd}")

    def add_region(self, base: int, size: int) -> None:
        """Allow components to release and protect pages of an arena of the caller's.

        :param base: address of whole pages, private and anonymous; ``size`` bytes.
        :raises InvalidArgument: not whole pages.
        """
        ffi, lib, host = self._parts()
        load.check(lib.kit_host_environment_add_region(host, ffi.cast("void *", base), size),
                   f"adding {size} bytes at {base:#x}")

    def remove_region(self, base: int) -> None:
        """Undo :meth:`add_region`; before the arena is unmapped.

        :raises NotFound: no such region.
        """
        ffi, lib, host = self._parts()
        load.check(lib.kit_host_environment_remove_region(host, ffi.cast("void *", base)),
                   f"removing the region at {base:#x}")

    @property
    def exit_code(self) -> int | None:
        """The code a component gave to ``env->exit``; ``None``: it did not.

        The call itself unwinds to Python and raises :class:`~unikit.errors.Panic`.
        """
        ffi, lib, host = self._parts()
        code = ffi.new("int32_t *")
        exited = lib.kit_host_environment_fate(host, code) == lib.KIT_HOST_EXITED
        return int(code[0]) if exited else None

    def close(self) -> None:
        """Free everything; idempotent. Components that use it MUST be closed before."""
        if self._host is not None:
            self._lib.kit_host_environment_close(self._host)
            self._host = None

    def __enter__(self) -> HostEnvironment:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_host", None) is not None:
            warnings.warn("a HostEnvironment was never closed", ResourceWarning, stacklevel=2)


def _descriptor(file: Any) -> int:
    if file is None:
        return -1
    return file if isinstance(file, int) else int(file.fileno())


__all__ = ["HostConsole", "HostEnvironment", "NEVER", "WAKE_ANY", "WAKE_BLOCK", "WAKE_CONSOLE",
           "WAKE_CPU", "WAKE_NETWORK"]
