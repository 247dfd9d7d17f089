"""A runtime environment whose clock stands until it is told: what runs on it can be repeated."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from unikit.errors import Closed, InvalidArgument
from unikit.ffi import load


class VirtualEnvironment:
    """A virtual environment; takes the place of a ``HostEnvironment``.

    The clock starts at 0. :meth:`wait` jumps to its deadline, so a program that sleeps runs
    through at once. Randomness follows from the seed. The console is memory.

    >>> from unikit.sched import Loop
    >>> with VirtualEnvironment() as env, Loop().open(env=env) as tasks:
    ...     _ = tasks.call_later(3600, print, "an hour later")
    ...     tasks.run()
    ...     env.now_ns()
    an hour later
    3600000000000
    """

    def __init__(self, seed: int = 0) -> None:
        self._ffi, self._lib = load.extension("unikit.testing._suites")
        self._virtual: Any = self._ffi.new("struct kit_virtual *")
        self._lib.kit_virtual_open(self._virtual, self._ffi.NULL, 0, seed)

    def _live(self) -> Any:
        if self._virtual is None:
            raise Closed("the environment is closed")
        return self._virtual

    @property
    def ptr(self) -> Any:
        """The ``runtime_environment_t *`` that components are opened with."""
        return self._lib.kit_virtual_environment(self._live())

    def now_ns(self) -> int:
        """Return the time, ns."""
        return int(self._live().clock_ns)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        :param seconds: 0 or more.
        """
        if not seconds >= 0:
            raise InvalidArgument(f"advancing by {seconds!r} seconds: time does not run backwards")
        self._lib.kit_virtual_advance(self._live(), round(seconds * 1e9))

    def wait(self, deadline_ns: int = 2**64 - 1, wake: int = 0) -> int:
        """Jump to a deadline, unless it has passed or is none; 0."""
        env = self.ptr
        return int(env.wait(env, deadline_ns, wake))

    def entropy(self, size: int) -> bytes:
        """Return the next ``size`` bytes that follow from the seed."""
        buffer = self._ffi.new("char[]", size)
        env = self.ptr
        load.check(env.entropy(env, buffer, size), f"getting {size} bytes")
        return bytes(self._ffi.buffer(buffer, size))

    @property
    def output(self) -> bytes:
        """What components wrote to the console, at most 8 KiB."""
        virtual = self._live()
        return bytes(self._ffi.buffer(virtual.output, virtual.output_length))

    def close(self) -> None:
        """Free it; components that use it MUST be closed before. Closing twice does nothing."""
        self._virtual = None

    def __enter__(self) -> VirtualEnvironment:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
