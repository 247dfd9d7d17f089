"""What runs on a live scheduler: calls, Python tasks, tasks of C code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from unikit.errors import Closed, InvalidArgument, WouldBlock

if TYPE_CHECKING:
    from unikit.sched.tasks import Tasks


class Call:
    """A callable that will run once: in the next turn, or at a time."""

    def __init__(self, tasks: Tasks, function: Callable[..., object], args: tuple[Any, ...],
                 kind: str) -> None:
        self._tasks = tasks
        self._function = function
        self._args = args
        self._kind = kind
        self._object = tasks._new(kind)

    @property
    def pending(self) -> bool:
        """Whether it has still to run."""
        return self._tasks._pending.get(self._key()) is self

    def cancel(self) -> bool:
        """Forget it; whether it had still to run."""
        if not self.pending:
            return False
        self._tasks._withdraw(self)
        return True

    def _key(self) -> int:
        return self._tasks._address(self._object)

    def _run(self) -> None:
        self._function(*self._args)


class Task:
    """A Python task: a callable, or a generator that is resumed until it returns.

    :ivar name: for messages.
    :ivar done: whether it has returned, raised or was cancelled.
    """

    def __init__(self, tasks: Tasks, target: Any, args: tuple[Any, ...], name: str) -> None:
        self.name = name or getattr(target, "__name__", type(target).__name__)
        self.done = False
        self._tasks = tasks
        self._generator: Generator[Any, Any, Any] | None = None
        self._start: Callable[[], Any] | None = None
        if inspect.isgenerator(target):
            self._generator = target
        else:
            self._start = lambda: target(*args)
        self._result: Any = None
        self._error: BaseException | None = None
        self._reply: Any = None
        self._thrown: BaseException | None = None
        self._waiters: list[Task] = []
        self._awaits: Task | None = None
        self._turn = Call(tasks, self._step, (), "work")
        self._alarm: Call | None = None

    def result(self) -> Any:
        """Return what it returned.

        :raises WouldBlock: it is not done.
        :raises Closed: it was cancelled.
        :raises BaseException: what it raised.
        """
        if not self.done:
            raise WouldBlock(f"the result of task {self.name!r}: it is not done")
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> bool:
        """End it where it stands (its generator is closed); whether it was not done.

        :raises InvalidArgument: it is the task that runs.
        """
        if self.done:
            return False
        generator = self._generator
        if generator is not None and inspect.getgeneratorstate(generator) == inspect.GEN_RUNNING:
            raise InvalidArgument(f"task {self.name!r} cannot cancel itself; return instead")
        self._turn.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._awaits is not None:
            self._awaits._waiters.remove(self)
        if generator is not None:
            generator.close()
        self._end(error=Closed(f"task {self.name!r} was cancelled"), quiet=True)
        return True

    def __repr__(self) -> str:
        return f"<Task {self.name!r}: {'done' if self.done else 'alive'}>"

    def _step(self) -> None:
        try:
            if self._start is not None:
                start, self._start = self._start, None
                result = start()
                if not inspect.isgenerator(result):
                    self._end(result)
                    return
                self._generator = result
            assert self._generator is not None
            thrown, self._thrown = self._thrown, None
            reply, self._reply = self._reply, None
            self._wait(self._generator.throw(thrown) if thrown is not None
                       else self._generator.send(reply))
        except StopIteration as stop:
            self._end(stop.value)
        except BaseException as error:  # delivered to whoever waits, or raised by turn()
            self._end(error=error)

    def _wait(self, wish: Any) -> None:
        if wish is None:
            self._tasks._submit(self._turn)
        elif isinstance(wish, Task):
            self._await(wish)
        elif isinstance(wish, (int, float)) and not isinstance(wish, bool) and wish >= 0:
            self._alarm = self._tasks.call_later(wish, self._step)
        else:
            self._resume(error=TypeError(f"task {self.name!r} yielded {wish!r}; yield nothing, "
                                         "seconds, or a task"))

    def _await(self, other: Task) -> None:
        if other.done:
            self._resume(other._result, other._error)
        else:
            self._awaits = other
            other._waiters.append(self)

    def _resume(self, reply: Any = None, error: BaseException | None = None) -> None:
        self._awaits = None
        self._reply, self._thrown = reply, error
        self._tasks._submit(self._turn)

    def _end(self, result: Any = None, error: BaseException | None = None,
             quiet: bool = False) -> None:
        self.done = True
        self._result, self._error = result, error
        self._tasks._alive.pop(self, None)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter._resume(result, error)
        if error is not None and not waiters and not quiet:
            raise error


class CTask:
    """A task of C code, on a stack of its own where the scheduler has threads.

    Join it, unless it was spawned detached: then the handle is good for :meth:`wake` alone, and
    only while the task lives.
    """

    def __init__(self, tasks: Tasks, ptr: Any, detached: bool) -> None:
        self._tasks = tasks
        self._ptr = ptr
        self._detached = detached

    def wake(self) -> None:
        """End its ``kit_sched_block``, or make its next one return at once."""
        lib, s = self._tasks._live()
        self._tasks._checked(lib.kit_sched_wake(s, self._ptr), "waking a task")

    def join(self, timeout: float | None = None) -> None:
        """Turn the scheduler until the task has ended, and free it.

        :param timeout: seconds; ``None``: for ever.
        :raises TimedOut: it did not end in time.
        :raises Deadlock: it cannot end: everything waits.
        :raises InvalidArgument: it is detached, or was joined before.
        """
        if self._ptr is None or self._detached:
            raise InvalidArgument("joining a task that is detached or was joined before")
        self._tasks._run_until(self._ended, timeout)

    def _ended(self) -> bool:
        lib, s = self._tasks._live()
        code = lib.kit_sched_join(s, self._ptr, 0)
        if code == lib.KIT_EAGAIN:
            return False
        self._tasks._checked(code, "joining a task")
        self._ptr = None
        return True
