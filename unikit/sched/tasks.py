"""A live scheduler in this process: Python callables, generators and C functions as tasks.

Python code never runs on a stack of the scheduler: CPython watches the stack of its thread, and the
frames of two interleaved threads of Python on one interpreter would be taken for one. So callables,
timers and the steps of generators run as work items, in the context of :meth:`Tasks.turn`, under
every scheduler alike; a generator is how a Python task stops in the middle. Stacks are for C
functions (:meth:`Tasks.spawn_c`), and those MUST NOT call into Python.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from unikit.errors import Deadlock, InvalidArgument, Panic, TimedOut
from unikit.ffi import load
from unikit.sched.policy import raise_failure
from unikit.sched.share import Share
from unikit.sched.task import Call, CTask, Task

if TYPE_CHECKING:
    from unikit.sched.api import Scheduler

NEVER = 2**64 - 1
_OWN_HEAP = "64M"
_DETACHED = 1
_WAKE_CPU = 8
_NAMED = 16  # blocked tasks in a message


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """What a scheduler counts.

    :ivar switches: to a task's stack.
    :ivar turns: turns that found something to do.
    :ivar timers: timers that fired; the ends of sleeping C tasks are not among them.
    :ivar work: work items run; Python callables and steps of generators are among them.
    :ivar spawned: C tasks made.
    :ivar tasks: C tasks alive now.
    :ivar runnable: of these, ready.
    :ivar armed: timers armed now.
    :ivar stack_peak: deepest use of any stack, bytes; 0: not measured.
    :ivar missed: slices that were not served by their deadline.
    """

    switches: int
    turns: int
    timers: int
    work: int
    spawned: int
    tasks: int
    runnable: int
    armed: int
    stack_peak: int
    missed: int


class Tasks:
    """Tasks on an open scheduler; made by :meth:`Scheduler.open`.

    For one thread. Everything runs inside :meth:`turn` (which :meth:`run` calls): timers that are
    due, then work in order of arrival, then C tasks. What a callable raises is raised by the
    ``turn`` or ``run`` that ran it, when all else of that turn has run; several exceptions come as
    one group. A Python task's exception goes to the task that waits for it instead, if one does.
    """

    def __init__(self, record: Scheduler, heap: Any = None, env: Any = None) -> None:
        self._s: Any = None
        self.record = record
        self._ffi, self._lib = load.abi()
        self._component = load.component(record)
        self._closers: list[Callable[[], None]] = []
        self._errors: list[BaseException] = []
        self._pending: dict[int, Call] = {}
        self._alive: dict[Task, None] = {}  # in order of spawning
        self._names: dict[str, Any] = {}
        self._turning = False
        self._broken = False
        try:
            self._open(heap, env)
        except BaseException:
            self._release()
            raise
        run = _runner(self._ffi, self._pending, self._errors)
        self._run = {"work": self._ffi.callback("void(struct kit_work *)", run),
                     "timer": self._ffi.callback("void(struct kit_timer *)", run)}

    def _open(self, heap: Any, env: Any) -> None:
        if env is None:
            from unikit.platform.host import HostEnvironment
            env = HostEnvironment()
            self._closers.append(env.close)
        self._env = env
        if heap is None or isinstance(heap, (int, str)):
            heap = self._own_heap(heap or _OWN_HEAP)
        self._heap = heap
        self._options = load.options(self.record)
        out = self._ffi.new("struct kit_sched **")
        self._checked(self._component.open(self._options, env.ptr, heap._live(), out),
                      f"opening {self.record.id}")
        self._s = out[0]

    def _own_heap(self, size: int | str) -> Any:
        from unikit.alloc import Tlsf, region
        memory = region(size, hugepages="never")
        self._closers.append(memory.close)
        heap = Tlsf().open(memory)
        self._closers.append(heap.close)
        if hasattr(self._env, "add_region"):  # so that stacks can have guard pages
            address = int(self._ffi.cast("uintptr_t", self._ffi.from_buffer(memory)))
            self._env.add_region(address, len(memory))
            self._closers.append(lambda: self._env.remove_region(address))
        return heap

    @property
    def ptr(self) -> Any:
        """The ``struct kit_sched *``, for C tasks that call it."""
        return self._live()[1]

    # ---- what to run -------------------------------------------------------------------------

    def spawn(self, target: Callable[..., Any] | Generator[Any, Any, Any], *args: Any,
              name: str = "") -> Task:
        """Make a Python task; it starts in the next turn.

        A generator may yield nothing (it goes on in the next turn), seconds (it sleeps), or a task
        (it waits until that is done; the ``yield`` has its result, or raises what it raised).

        :param target: a callable, a generator function, or a generator.

        >>> from unikit.sched import Loop
        >>> def double(value):
        ...     yield 0.001
        ...     return value * 2
        >>> with Loop().open() as tasks:
        ...     def both():
        ...         first, second = tasks.spawn(double, 1), tasks.spawn(double, 2)
        ...         return (yield first) + (yield second)
        ...     tasks.run(tasks.spawn(both))
        6
        """
        self._live()
        if not callable(target) and not inspect.isgenerator(target):
            raise InvalidArgument(f"spawning {target!r}: give a callable or a generator")
        if inspect.isgenerator(target) and args:
            raise InvalidArgument("spawning a generator that runs already: it takes no arguments")
        task = Task(self, target, args, name)
        self._alive[task] = None
        self._submit(task._turn)
        return task

    def spawn_c(self, entry: Any, argument: Any = None, *, name: str = "", stack_size: int = 0,
                priority: int = 0, share: Share | None = None, detached: bool = False) -> CTask:
        """Make a task of a C function ``void entry(void *argument)``.

        :param entry: its address, or a cffi function pointer; the function MUST NOT call into
            Python, and under a scheduler without threads MUST NOT block.
        :param argument: an address or a cffi pointer, which the caller keeps alive.
        :param name: for messages about its stack.
        :param stack_size: bytes; 0: as the component's option says.
        :param priority: for schedulers that know priorities, where there is no share.
        :param share: what it shall get of the processor.
        :param detached: nobody joins it; else :meth:`CTask.join` MUST be called.
        :raises OutOfMemory: the heap is full.
        """
        ffi, (lib, s) = self._ffi, self._live()
        text = self._names.setdefault(name, ffi.new("char[]", name.encode()))
        spec = ffi.new("struct kit_task_spec *", {
            "entry": ffi.cast("void(*)(void *)", entry),
            "argument": ffi.cast("void *", argument or 0), "name": text,
            "stack_size": stack_size, "priority": priority, "flags": _DETACHED * detached})
        if share is not None:
            fields = ffi.new("struct kit_task_share *", share._fields())
            spec.share = fields
        out = ffi.new("struct kit_task **")
        self._checked(lib.kit_sched_spawn(s, spec, out), f"spawning task {name!r}")
        return CTask(self, out[0], detached)

    def post(self, function: Callable[..., object], *args: Any) -> Call:
        """Run a callable in the next turn, after what was posted before it."""
        self._live()
        call = Call(self, function, args, "work")
        self._submit(call)
        return call

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Call:
        """Run a callable in ``delay`` seconds; calls of one moment run in order of making.

        :raises OutOfMemory: the heap is full.
        """
        if not delay >= 0:
            raise InvalidArgument(f"calling in {delay!r} seconds: give 0 or more")
        return self.call_at(min(self.now_ns() + round(delay * 1e9), NEVER - 1), function, *args)

    def call_at(self, deadline_ns: int, function: Callable[..., object], *args: Any) -> Call:
        """Run a callable at a time by :meth:`now_ns`; as soon as possible if it has passed.

        :raises OutOfMemory: the heap is full.
        """
        lib, s = self._live()
        call = Call(self, function, args, "timer")
        self._checked(lib.kit_sched_arm(s, call._object, deadline_ns), "arming a timer")
        self._pending[call._key()] = call
        return call

    # ---- running it --------------------------------------------------------------------------

    def turn(self) -> bool:
        """Run what is due now; whether there was anything.

        :raises BaseException: what callables raised.
        :raises Panic: the scheduler found a broken contract; it is of no further use.
        """
        lib, s = self._live()
        if self._turning:
            raise InvalidArgument("a turn within a turn: let the callable return instead")
        self._turning = True
        try:
            any_ = bool(lib.kit_sched_turn(s))
            if not any_:
                self._panicked("turning the scheduler")
        finally:
            self._turning = False
        self._raise()
        return any_

    def run(self, until: Task | None = None, timeout: float | None = None) -> Any:
        """Turn, and sleep while nothing is due, until nothing is left to do.

        :param until: stop when this task is done, and return its result.
        :param timeout: seconds; ``None``: for ever.
        :raises TimedOut: there is still something to do.
        :raises Deadlock: tasks are left, and nothing can wake them.
        """
        if until is None:
            self._run_until(lambda: False, timeout)
            return None
        self._run_until(lambda: until.done, timeout)
        return until.result()

    def deadline_ns(self) -> int | None:
        """When there is something to do: 0 for now, a time, or ``None`` for nothing."""
        lib, s = self._live()
        deadline = int(lib.kit_sched_deadline_ns(s))
        return None if deadline == NEVER else deadline

    def now_ns(self) -> int:
        """Return the scheduler's clock, ns."""
        return int(self._env.now_ns())

    def stats(self) -> Stats:
        """Return the scheduler's counters."""
        lib, s = self._live()
        out = self._ffi.new("struct kit_sched_stats *")
        self._checked(lib.kit_sched_stats(s, out), "reading statistics")
        return Stats(**{field.name: int(getattr(out, field.name))
                        for field in dataclasses.fields(Stats)})

    def check(self) -> None:
        """Verify every invariant of the scheduler.

        :raises Corrupt: one is broken.
        """
        lib, s = self._live()
        self._checked(lib.kit_sched_check(s), f"checking {self.record.id}")

    # ---- life --------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._s is None

    def close(self) -> None:
        """Drop all tasks as they stand and free everything; closing twice does nothing.

        Generators of Python tasks are closed, so their ``finally`` blocks run.

        :raises InvalidArgument: it is called within a turn.
        """
        if self._s is None:
            return
        if self._turning:
            raise InvalidArgument("closing a scheduler within its turn")
        for task in list(self._alive):
            try:
                task.cancel()
            except BaseException as error:  # raised again below, when all is closed
                self._errors.append(error)
        s, self._s = self._s, None
        if not self._broken:
            self._lib.kit_sched_close(s)
        self._pending.clear()
        self._release()
        self._raise()

    def __enter__(self) -> Tasks:
        self._live()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_s", None) is not None:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = "closed" if self._s is None else f"{len(self._alive)} Python tasks"
        return f"<Tasks {self.record.id}: {state}>"

    # ---- inside ------------------------------------------------------------------------------

    def _live(self) -> tuple[Any, Any]:
        if self._s is None:
            raise ValueError("the scheduler is closed")
        if self._broken:
            raise ValueError("the scheduler panicked; close it")
        return self._lib, self._s

    def _release(self) -> None:
        while self._closers:
            self._closers.pop()()

    def _new(self, kind: str) -> Any:
        return self._ffi.new(f"struct kit_{kind} *", {"run": self._run[kind]})

    def _address(self, item: Any) -> int:
        return int(self._ffi.cast("uintptr_t", item))

    def _submit(self, call: Call) -> None:
        lib, s = self._live()
        self._checked(lib.kit_sched_post(s, call._object), "posting work")
        self._pending[call._key()] = call

    def _withdraw(self, call: Call) -> None:
        lib, s = self._live()
        cancel = lib.kit_sched_cancel if call._kind == "timer" else lib.kit_sched_cancel_work
        cancel(s, call._object)
        del self._pending[call._key()]

    def _run_until(self, reached: Callable[[], bool], timeout: float | None) -> None:
        end = NEVER if timeout is None else self.now_ns() + round(timeout * 1e9)
        while not reached():
            any_ = self.turn()
            if end != NEVER and self.now_ns() >= end and not reached():
                raise TimedOut(f"running {self.record.id} for {timeout:g} s: there is more to do")
            if any_:
                continue
            deadline = self.deadline_ns()
            if deadline is None:
                if reached() or not (self._alive or self.stats().tasks):
                    return
                raise Deadlock(self._who_waits())
            self._env.wait(min(deadline, end), _WAKE_CPU)

    def _who_waits(self) -> str:
        parts = [f"{task.name!r} waits for {task._awaits.name!r}" for task in self._alive
                 if task._awaits is not None]
        if blocked := self.stats().tasks:
            parts.append(f"{blocked} C task{'s' * (blocked > 1)} blocked without a deadline"
                         f"{self._who_is_blocked()}")
        return f"running {self.record.id}: nothing can go on: {'; '.join(parts)}"

    def _who_is_blocked(self) -> str:
        """Name the C tasks, and whose end they wait for; nothing where the scheduler cannot."""
        info, names, joins = self._ffi.new("struct kit_task_info *"), {}, {}
        task = self._ffi.NULL
        while task := self._lib.kit_sched_next_task(self._s, task, info):
            if info.state == self._lib.KIT_TASK_ENDED:
                continue
            names[task] = repr(self._ffi.string(info.name).decode(errors="replace"))
            if info.joins:
                joins[task] = info.joins
        said = [name + (f" (waits for {names.get(joins[task])})" if task in joins else "")
                for task, name in names.items()]
        more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
        return f": {', '.join(said[:_NAMED])}{more}" if said else ""

    def _raise(self) -> None:
        errors = self._errors[:]
        self._errors.clear()
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("several callables raised", errors)

    def _checked(self, code: int, doing: str) -> int:
        self._broken = self._broken or code == self._lib.KIT_EPANIC
        if code < 0:
            raise_failure(self.record)
        return load.check(code, doing)

    def _panicked(self, doing: str) -> None:
        try:
            load.check_panic(doing)
        except Panic:
            self._broken = True
            raise_failure(self.record)
            raise


def _runner(ffi: Any, pending: dict[int, Call],
            errors: list[BaseException]) -> Callable[[Any], None]:
    """Make the function that C calls for each work item and timer; it does not hold the Tasks."""
    def run(item: Any) -> None:
        call = pending.pop(int(ffi.cast("uintptr_t", item)))
        try:
            call._run()
        except BaseException as error:  # raised again by turn()
            errors.append(error)
    return run
