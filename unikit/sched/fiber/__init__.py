"""Fibers: Python functions that stop anywhere and go on later, on C stacks of their own.

What generators cannot do, these can: stop within functions that know nothing of it, C functions
among them. Needs CPython 3.11, 3.12 or 3.13 with the GIL, on x86-64; importing it elsewhere fails
with one line that says so.
"""

from __future__ import annotations

from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from unikit.errors import NotSupported

__all__ = ["Fiber", "FiberExit", "getcurrent"]

if TYPE_CHECKING:
    from collections.abc import Callable

    class FiberExit(BaseException):
        """Ends a fiber; a fiber that it ends returns it as a value."""

    class Fiber:
        """A function with a stack of its own, of the thread that makes it.

        A fiber runs when it is switched to, until it switches elsewhere or ends. What it returns,
        or raises, goes to its parent: the fiber that made it, unless told otherwise. Each thread's
        first fiber is its own stack, which has no parent. Contextvars are a copy of those at the
        first switch. A fiber that nobody refers to any more is ended by :class:`FiberExit`.

        :ivar dead: whether it has ended.
        :ivar parent: where its outcome goes; it may be changed.
        :ivar run: the callable, until it starts; a subclass may define it as a method.
        :ivar frame: the innermost Python frame while it is suspended, for looking at.

        :param run: called with the arguments of the first :meth:`switch`.
        :param parent: of the same thread; by default the fiber that runs.
        :param stack_size: bytes of C stack, mapped as they are used. How deep calls may go is
            limited in proportion (1 KiB each): :class:`RecursionError` comes before the guard page.

        >>> from unikit.sched import Fiber
        >>> def double(value):
        ...     while True:
        ...         value = main.switch(value * 2)
        >>> main, doubling = Fiber.getcurrent(), Fiber(double)
        >>> doubling.switch(1), doubling.switch(21)
        (2, 42)
        """

        dead: bool
        parent: Fiber | None
        run: Callable[..., Any]
        frame: FrameType | None

        def __init__(self, run: Callable[..., Any] | None = None, parent: Fiber | None = None, *,
                     stack_size: int = 1 << 20) -> None: ...

        def switch(self, *args: Any, **kwargs: Any) -> Any:
            """Go on in this fiber; return what is handed over when somebody switches back.

            At the first time the arguments are those of ``run``. Later they are what the fiber's
            own ``switch`` returns: nothing is ``None``, one value is itself, several are a tuple,
            keywords alone a dictionary, both a pair. A dead fiber's place is taken by its parent.

            :raises RuntimeError: the fiber belongs to another thread.
            :raises MemoryError: there is no stack for it.
            """

        def throw(self, kind: Any = FiberExit, value: Any = None,
                  traceback: TracebackType | None = None) -> Any:
            """Go on in this fiber by raising an exception there; as for :meth:`switch`.

            :param kind: an exception, or its class.
            :param value: the argument of the class.
            """

        @staticmethod
        def getcurrent() -> Fiber:
            """Return the fiber that runs."""
else:
    try:
        from unikit.sched.fiber._fiber import Fiber, FiberExit
    except ImportError as error:
        raise NotSupported(
            "unikit.sched.Fiber needs CPython 3.11, 3.12 or 3.13 with the GIL on x86-64, and a "
            f"build for just this one (python3 -m unikit.ffi.build_ext): {error}") from error

getcurrent = Fiber.getcurrent
"""The same as :meth:`Fiber.getcurrent`."""
