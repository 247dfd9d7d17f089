"""Scheduling policies as Python classes: tried in the simulator before any C is written.

A policy is a real scheduler: a component behind the ops table of ``sched.h``, whose tasks have
stacks, and of which Python decides only who runs next.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

from unikit.errors import CallbackError, CompositionError, Corrupt
from unikit.ffi import load
from unikit.sched.api import Scheduler
from unikit.sched.share import Share, share_of

_EXTENSION = "unikit.sched._policy"
_REASONS = ("new", "woken", "yielded")
_FEATURES = {"threads": 1, "priorities": 2, "weights": 4, "reservations": 8}
_WANTS = {"begin_turn": 1, "stopped": 2, "stop_ns": 4, "change": 8, "depend": 16, "check": 32}
_PREEMPTIVE = 64
_STACKS = (32768, 0, 64, 0)  # size, guard, cached, measure: as in sched.api.Threaded
NEVER = 2**64 - 1


class PolicyTask:
    """A task as a policy sees it. A policy may set attributes of its own on it.

    :ivar number: counts all tasks of the scheduler from 1.
    :ivar name: for messages.
    :ivar share: what it asked for.
    :ivar priority: what :meth:`Policy.depend` may change; others are told this one.
    :ivar ready: whether the policy has it: it was handed over and not yet taken.
    """

    def __init__(self, live: _Live, ptr: Any) -> None:
        self._live, self._ptr = live, ptr
        self.number = int(ptr.number)
        self.name = live.text(ptr.name) if ptr.name else f"task {self.number}"
        self.share = share_of(ptr.share)
        self.ready = False

    @property
    def priority(self) -> int:
        """Its priority, with what others lend."""
        return int(self._ptr.share.priority)

    @priority.setter
    def priority(self, value: int) -> None:
        self._ptr.share.priority = value

    @property
    def ran_ns(self) -> int:
        """How long it has run, the run that goes on now included."""
        return int(self._live.lib.kit_policy_ran_ns(self._live.ptr, self._ptr))

    def __repr__(self) -> str:
        return f"<PolicyTask {self.number} {self.name!r}>"


class Policy(Scheduler):
    """Base of scheduling policies in Python: define :meth:`ready` and :meth:`next`.

    The object is a pattern: each scheduler that is opened from it runs a deep copy, so that what
    one run leaves in it does not get into the next. It can stand wherever a scheduler's record can:
    in :func:`unikit.sched.simulate`, :func:`unikit.testing.check_scheduler`, and :meth:`open`; not
    in an image, which carries C alone.

    A turn makes as many runs as there were ready tasks when it began; the scheduler counts, the
    policy need not.

    :cvar features: what it claims beside ``threads``: ``priorities``, ``weights`` or
        ``reservations``; the conformance suite looks whether it is true.
    :cvar preemptive: whether a running task is stopped when a timer is due, which may make a more
        urgent one ready; and at :meth:`stop_ns`.

    >>> from collections import deque
    >>> from unikit.sched import Policy, SimTask, simulate
    >>> class RoundRobin(Policy):
    ...     def __init__(self):
    ...         self.queue = deque()
    ...     def ready(self, task, reason):
    ...         self.queue.append(task)
    ...     def next(self):
    ...         return self.queue.popleft()
    >>> simulate([SimTask("a", "2ms", "10ms"), SimTask("b", "3ms", "10ms")], RoundRobin(),
    ...          until="100ms").missed
    0
    """

    features: ClassVar[frozenset[str]] = frozenset({"threads"})
    preemptive: ClassVar[bool] = False
    id = "sched.policy"
    side = "host"

    _live: _Live

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.id = f"sched.{cls.__name__.lower()}"
        cls.features = frozenset({"threads", *cls.features})
        if unknown := cls.features - _FEATURES.keys():
            raise CompositionError([f"{cls.__name__}: {', '.join(sorted(unknown))} is no feature of"
                                    f" a scheduler; known: {', '.join(_FEATURES)}"])

    # ---- what a policy decides -----------------------------------------------------------------

    def ready(self, task: PolicyTask, reason: str) -> None:
        """Take over a task that has become ready.

        :param reason: ``"new"``, ``"woken"`` or ``"yielded"``.
        """
        raise NotImplementedError

    def next(self) -> PolicyTask | None:
        """Take out the ready task that runs now; called only if one is ready.

        ``None``: none of them may run before :meth:`wake_ns`.
        """
        raise NotImplementedError

    def wake_ns(self) -> int:
        """Return when :meth:`next` will have a task after it returned ``None``, by :attr:`now_ns`.

        A policy whose :meth:`next` returns ``None`` must define it: else a task is lost.
        """
        raise NotImplementedError

    def begin_turn(self) -> None:
        """Note that a turn begins: devices have just been looked at."""

    def stopped(self, task: PolicyTask, ran_ns: int) -> None:
        """Note that the running task has stopped, before it is ready again, sleeps or ends."""

    def stop_ns(self, task: PolicyTask) -> int | None:
        """Return until when a task that runs from now on may run; ``None``: as long as it wants."""
        return None

    def admit(self, task: PolicyTask) -> bool:
        """Say whether there is enough of the processor left for a new task.

        :raises ValueError: its share is none that the policy can serve.
        """
        return True

    def change(self, task: PolicyTask, share: Share) -> bool:
        """Change what a task gets, which may be ready or running; ``False``: not enough is left.

        Without this method shares cannot be changed.

        :raises ValueError: the share is none that the policy can serve.
        """
        raise NotImplementedError

    def depend(self, task: PolicyTask, on: PolicyTask | None) -> None:
        """Note that a task waits for what another holds, or for nothing any longer."""

    def ended(self, task: PolicyTask) -> None:
        """Forget a task: it has ended, or could not be made after all."""

    def check(self) -> None:
        """Raise an exception if the policy's own state is wrong."""

    # ---- what it may ask -----------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The time by the scheduler's clock, ns."""
        return int(self._live.lib.kit_policy_now_ns(self._live.ptr))

    @property
    def timer_ns(self) -> int | None:
        """When the next timer is due, which may make a task ready; ``None``: none is armed."""
        found = int(self._live.lib.kit_policy_timer_ns(self._live.ptr))
        return None if found == NEVER else found

    # ---- as a record -----------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Policy:
        made = object.__new__(type(self))
        memo[id(self)] = made
        for name, value in vars(self).items():
            if name not in ("_hooks", "_live"):
                setattr(made, name, copy.deepcopy(value, memo))
        return made

    def encoded(self) -> list[int]:
        """Return the options of C: those of stacks, and where to call."""
        return [*_STACKS, self._made().address]

    def c_component(self) -> Any:
        """Return the ``struct kit_sched_component`` that calls this policy."""
        return self._made().component

    def failure(self) -> BaseException | None:
        """Return what went wrong in the policy since the last call, once."""
        made = self._made()
        error, made.error = made.error, None
        if error is not None:
            made.live.clear()  # a panic closed nothing
        return error

    def _made(self) -> _Hooks:
        found: _Hooks | None = self.__dict__.get("_hooks")
        if found is None:
            found = self.__dict__["_hooks"] = _Hooks(self)
        return found


class _Live:
    """A policy at work in one open scheduler."""

    def __init__(self, policy: Policy, hooks: _Hooks, ptr: Any) -> None:
        self.policy, self.hooks, self.ptr = policy, hooks, ptr
        self.lib, self.tasks, self.ready = hooks.lib, dict[int, PolicyTask](), 0
        policy._live = self

    def text(self, string: Any) -> str:
        found = self.hooks.ffi.string(string)
        return str(found.decode(errors="replace"))

    def on_begin(self) -> int:
        self.policy.begin_turn()
        return 0

    def on_admit(self, ptr: Any) -> int:
        task = PolicyTask(self, ptr)
        answer = self._verdict(self.policy.admit, task)
        if answer == 0:
            self.tasks[task.number] = task
        return answer

    def on_ended(self, ptr: Any) -> int:
        self.policy.ended(self.tasks.pop(ptr.number))
        return 0

    def on_ready(self, ptr: Any, reason: int) -> int:
        task = self.tasks[ptr.number]
        task.ready = True
        self.ready += 1
        self.policy.ready(task, _REASONS[reason])
        return 0

    def on_stopped(self, ptr: Any, ran_ns: int) -> int:
        self.policy.stopped(self.tasks[ptr.number], ran_ns)
        return 0

    def on_next(self, out: Any, wake: Any) -> int:
        task = self.policy.next()
        if task is None:
            if type(self.policy).wake_ns is Policy.wake_ns:
                raise Corrupt(f"returned None though there are ready tasks, and no wake_ns(): "
                              f"{self._waiting()} lost")
            wake[0] = self.policy.wake_ns()
            return 0
        if not isinstance(task, PolicyTask) or task._live is not self:
            raise Corrupt(f"returned {task!r}, which is no task of this scheduler")
        if not task.ready:
            raise Corrupt(f"returned {task!r}, which is not ready: it was returned before")
        task.ready = False
        self.ready -= 1
        out[0] = task._ptr
        return 1

    def on_stop_ns(self, ptr: Any, out: Any) -> int:
        found = self.policy.stop_ns(self.tasks[ptr.number])
        out[0] = NEVER if found is None else found
        return 0

    def on_change(self, ptr: Any, share: Any) -> int:
        task, wanted = self.tasks[ptr.number], share_of(share)
        answer = self._verdict(self.policy.change, task, wanted)
        if answer == 0:
            task.share = wanted
        return answer

    def on_depend(self, ptr: Any, on: Any) -> int:
        self.policy.depend(self.tasks[ptr.number], self.tasks[on.number] if on else None)
        return 0

    def on_check(self) -> int:
        self.policy.check()
        return 0

    def _waiting(self) -> str:
        names = [task.name for task in self.tasks.values() if task.ready]
        return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") + \
            (" is" if len(names) == 1 else " are")

    @staticmethod
    def _verdict(ask: Callable[..., bool], *arguments: Any) -> int:
        try:
            return 0 if ask(*arguments) else 1
        except ValueError:
            return 2


class _Hooks:
    """The C side of a policy object: a component of its own, and the functions that it calls."""

    METHODS = {"begin": ("begin_turn", ""), "admit": ("admit", "struct kit_policy_task *"),
               "ended": ("ended", "struct kit_policy_task *"),
               "ready": ("ready", "struct kit_policy_task *, int"),
               "stopped": ("stopped", "struct kit_policy_task *, uint64_t"),
               "next": ("next", "struct kit_policy_task **, uint64_t *"),
               "stop_ns": ("stop_ns", "struct kit_policy_task *, uint64_t *"),
               "change": ("change", "struct kit_policy_task *, const struct kit_task_share *"),
               "depend": ("depend", "struct kit_policy_task *, struct kit_policy_task *"),
               "check": ("check", "")}

    def __init__(self, policy: Policy) -> None:
        self.ffi, self.lib = load.extension(_EXTENSION)
        self.pattern = copy.deepcopy(policy)
        self.error: BaseException | None = None
        self.live: dict[int, _Live] = {}
        kind = type(policy)
        self.name = kind.__name__
        wants = sum(bit for name, bit in _WANTS.items()
                    if getattr(kind, name) is not getattr(Policy, name))
        self._kept: list[Any] = [self.ffi.new("char[]", f"policy {self.name} failed".encode()),
                                 self.ffi.new("char[]", policy.id.encode())]
        self.ptr = self.ffi.new("struct kit_policy_hooks *", {
            "wants": wants | _PREEMPTIVE * kind.preemptive, "failure": self._kept[0]})
        self._callback("open", "int(struct kit_policy_hooks *, struct kit_policy *)", self._open)
        self._callback("close", "void(struct kit_policy *)", self._close)
        for field, (method, more) in self.METHODS.items():
            signature = "int(struct kit_policy *" + (f", {more}" if more else "") + ")"
            self._callback(field, signature, self._calling(method, f"on_{field}"))
        self.address = int(self.ffi.cast("uintptr_t", self.ptr))
        self.component = self.ffi.new("struct kit_sched_component *")
        self.lib.kit_policy_component(self.component, self._kept[1],
                                      sum(_FEATURES[word] for word in kind.features))

    def _callback(self, field: str, signature: str, function: Callable[..., Any]) -> None:
        made = self.ffi.callback(signature, function)
        self._kept.append(made)
        setattr(self.ptr, field, made)

    def _key(self, ptr: Any) -> int:
        return int(self.ffi.cast("uintptr_t", ptr))

    def _open(self, _hooks: Any, ptr: Any) -> int:
        try:
            self.live[self._key(ptr)] = _Live(copy.deepcopy(self.pattern), self, ptr)
        except BaseException as error:  # raised again by whoever opens it
            self._failed("__deepcopy__", error)
            return -1
        return 0

    def _close(self, ptr: Any) -> None:
        self.live.pop(self._key(ptr), None)

    def _calling(self, method: str, inner: str) -> Callable[..., int]:
        def run(ptr: Any, *arguments: Any) -> int:
            try:
                return int(getattr(self.live[self._key(ptr)], inner)(*arguments))
            except BaseException as error:  # raised again where the C side was called
                self._failed(method, error)
                return -1
        return run

    def _failed(self, method: str, error: BaseException) -> None:
        if self.error is not None:
            return
        if not isinstance(error, Exception):
            self.error = error  # Ctrl-C is nobody's mistake
        elif isinstance(error, Corrupt):
            self.error = Corrupt(f"policy {self.name}: {method}() {error}")
        else:
            self.error = CallbackError(f"policy {self.name}: {method}() raised "
                                       f"{type(error).__name__}: {error}")
            self.error.__cause__ = error


def raise_failure(record: Any) -> None:
    """Raise what went wrong in a policy in Python, if the record is one and something did."""
    error = record.failure() if isinstance(record, Policy) else None
    if error is not None:
        load.abi()[1].kit_abi_take_panic()  # that it became on the way
        raise error from error.__cause__
