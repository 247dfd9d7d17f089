"""asyncio on a unikit scheduler: an event loop whose ready queue, tasks and timers are its.

    asyncio.Runner(loop_factory=unikit.aio.EventLoop)

The loop is asyncio's selector loop with another heart: transports, servers, subprocesses, signals
and executors are those of the standard library, over the kernel's sockets.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import base_events
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from unikit.errors import NotSupported, check
from unikit.ffi import load
from unikit.sched.loop import Loop
from unikit.sched.share import Share

if TYPE_CHECKING:
    from unikit.sched.api import Scheduler

    class Core:
        """The C side of the loop."""

        def __getattr__(self, name: str) -> Any: ...

    Task = asyncio.Task[Any]
else:
    try:
        from unikit.sched.aio._aio import Core, Task
    except ImportError as error:
        raise NotSupported("unikit.aio needs CPython 3.11, 3.12 or 3.13 on x86-64, and a build for "
                           f"just this one (python3 -m unikit.ffi.build_ext): {error}") from error

__all__ = ["EventLoop", "Task", "run"]

_MEMORY = "256M"


class EventLoop(Core, asyncio.SelectorEventLoop):
    """An event loop of asyncio that runs on a scheduler of unikit.

    Under the default, ``sched.loop``, callbacks and tasks run in asyncio's order. Under a scheduler
    with threads each task is a task of the scheduler, which decides by its :class:`Share` who goes
    on next; callbacks and timers go before tasks. Code between two ``await`` is never interrupted.

    :param sched: a record, its class, or a :class:`unikit.sched.Policy`.
    :param env: the clock, as for :meth:`unikit.sched.Scheduler.open`; the caller's. With
        :class:`unikit.testing.VirtualEnvironment` time passes only while nobody has work, and then
        at once: programs that sleep run in no time, the same way each time.
    :param memory: for timers and, with threads, for a stack for each task; touched as needed.

    >>> import asyncio
    >>> from unikit.aio import EventLoop
    >>> from unikit.sched import Prio, Share
    >>> async def main():
    ...     order = []
    ...     async def say(word):
    ...         order.append(word)
    ...     async with asyncio.TaskGroup() as group:
    ...         loop = asyncio.get_running_loop()
    ...         first = loop.create_task(say("low"))
    ...         second = loop.create_task(say("high"), share=Share(priority=5))
    ...         await asyncio.wait([first, second])
    ...     return order
    >>> with asyncio.Runner(loop_factory=lambda: EventLoop(Prio())) as runner:
    ...     runner.run(main())
    ['high', 'low']
    """

    def __init__(self, sched: Scheduler | type[Scheduler] = Loop, *, env: Any = None,
                 memory: int | str = _MEMORY) -> None:
        super().__init__()
        record = sched() if isinstance(sched, type) else sched
        try:
            self._tasks = record.open(memory, env)
        except BaseException:
            super().close()
            raise
        ffi, lib = load.abi()
        self._waits = self._tasks._env.wait
        virtual = env is not None and type(env).__name__ == "VirtualEnvironment"
        self._open(self._tasks, *(int(ffi.cast("uintptr_t", each)) for each in
                                  (self._tasks.ptr, self._tasks._env.ptr, lib.kit_abi_hooks())),
                   self._selector.fileno(), self._selector._fd_to_key,
                   "threads" in record.features, virtual)
        self.set_debug(self._debug)

    @property
    def sched(self) -> Any:
        """The open scheduler: :class:`unikit.sched.Tasks`, whose statistics can be read."""
        return self._tasks

    if TYPE_CHECKING:
        def create_task(  # type: ignore[override]
                self, coro: Coroutine[Any, Any, Any], *, name: str | None = None,
                context: contextvars.Context | None = None,
                share: Share | None = None) -> asyncio.Task[Any]:
            """Make a task, which gets this share of the processor; ``set_share`` changes it.

            :raises OutOfMemory: the scheduler does not admit it, or has no memory for its stack.
            """

    # ---- what asyncio's loop asks of its heart ---------------------------------------------------

    def call_soon_threadsafe(  # type: ignore[override]
            self, callback: Callable[..., object], *args: Any,
            context: contextvars.Context | None = None) -> Any:
        """Run a callback soon; the one method for other threads."""
        if self._debug:
            self._check_closed()
            handle = self._call_soon_debug(callback, *args, context=context, anywhere=True)
            if handle._source_traceback:  # type: ignore[attr-defined]
                del handle._source_traceback[-1]  # type: ignore[attr-defined]
        else:
            handle = self.call_soon(callback, *args, context=context)
        self._write_to_self()
        return handle

    def set_debug(self, enabled: bool) -> None:
        """Switch the debug mode: see the documentation of asyncio."""
        super().set_debug(enabled)
        self._set_debugging(enabled)

    def close(self) -> None:
        """Close the loop and its scheduler; what is queued is dropped."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        super().close()
        self._shut()
        self._tasks.close()

    def _add_callback_signalsafe(self, handle: Any) -> None:
        self._add_callback(handle)
        self._write_to_self()

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass  # the scheduler's timer finds out when it is due

    def _call_soon_debug(self, callback: Callable[..., object], *args: Any,
                         context: contextvars.Context | None = None,
                         anywhere: bool = False) -> asyncio.Handle:
        if not anywhere:
            self._check_thread()
        self._check_callback(callback, "call_soon_threadsafe" if anywhere else "call_soon")
        handle = asyncio.Handle(callback, args, self, context)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1]  # type: ignore[attr-defined]
        self._add_callback(_Timed(self, handle))
        return handle

    def _call_at_debug(self, when: float, callback: Callable[..., object], *args: Any,
                       context: contextvars.Context | None = None) -> asyncio.TimerHandle:
        self._check_thread()
        self._check_callback(callback, "call_at")
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1]  # type: ignore[attr-defined]
        handle._scheduled = True  # type: ignore[attr-defined]
        self._set_debugging(False)
        try:
            self.call_at(when, self._add_callback, _Timed(self, handle))
        finally:
            self._set_debugging(self._debug)
        return handle

    def _create_by_factory(self, coro: Any, *, share: Share | None = None, **more: Any) -> Any:
        return asyncio.BaseEventLoop.create_task(self, coro, **more)

    def _slow_step(self, task: Any, start_ns: int) -> None:
        self._slow(task, self.time() - start_ns * 1e-9)

    def _slow(self, what: Any, took: float) -> None:
        if took >= self.slow_callback_duration:
            base_events.logger.warning(  # type: ignore[attr-defined]
                "Executing %s took %.3f seconds", what, took)

    def _callback_failed(self, handle: Any, error: BaseException) -> None:
        from asyncio.format_helpers import _format_callback_source
        text = _format_callback_source(handle._callback, handle._args)
        self.call_exception_handler({"message": f"Exception in callback {text}",
                                     "exception": error, "handle": handle})

    def _wait(self, deadline_ns: int) -> None:
        self._waits(deadline_ns, 8)

    def _refused(self, code: int) -> None:
        check(code, f"making a task on {self._tasks.record.id}")

    def _panicked(self) -> None:
        self._tasks._panicked("running the event loop")


class _Timed:
    """A handle of asyncio in debug mode: it says so if it takes long."""

    def __init__(self, loop: EventLoop, handle: Any) -> None:
        self._loop, self._handle = loop, handle

    @property
    def _cancelled(self) -> bool:
        return bool(self._handle._cancelled)

    def _run(self) -> None:
        start = self._loop.time()
        self._handle._run()
        from asyncio.base_events import _format_handle  # type: ignore[attr-defined]
        took = self._loop.time() - start
        if took >= self._loop.slow_callback_duration:
            self._loop._slow(_format_handle(self._handle), took)
        del self  # an exception's frames lead here from 3.12 on, and would keep the handle


def run(main: Coroutine[Any, Any, Any], sched: Scheduler | type[Scheduler] = Loop, *,
        debug: bool | None = None) -> Any:
    """Run a coroutine as :func:`asyncio.run` does, on a scheduler of unikit.

    >>> import asyncio, unikit.aio
    >>> async def main():
    ...     await asyncio.sleep(0.001)
    ...     return 42
    >>> unikit.aio.run(main())
    42
    """
    with asyncio.Runner(debug=debug, loop_factory=lambda: EventLoop(sched)) as runner:
        return runner.run(main)
