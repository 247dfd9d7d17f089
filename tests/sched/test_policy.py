"""Policies in Python: the simulator and the conformance suite run them, and find what is wrong."""

from __future__ import annotations

import importlib.util
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from unikit.errors import CallbackError, CompositionError, Corrupt, InvalidArgument, OutOfMemory
from unikit.image import Image
from unikit.sched import Policy, PolicyTask, Prio, Share, SimTask, simulate
from unikit.testing import check_scheduler
from unikit.testing.report import NotConforming

pytestmark = pytest.mark.fast

MS = 1_000_000
SET = [SimTask("a", "2ms", "10ms"), SimTask("b", "3ms", "15ms", offset="1ms")]


class Fifo(Policy):
    """Round robin."""

    def __init__(self) -> None:
        self.queue: deque[PolicyTask] = deque()

    def ready(self, task: PolicyTask, reason: str) -> None:
        """Queue it."""
        self.queue.append(task)

    def next(self) -> PolicyTask | None:
        """Take the first."""
        return self.queue.popleft()


class Levels(Policy):
    """Fixed priorities with inheritance, as sched.prio."""

    features = frozenset({"priorities"})
    preemptive = True

    def __init__(self) -> None:
        self.queues: list[list[PolicyTask]] = [[] for _ in range(64)]
        self.on: dict[PolicyTask, PolicyTask] = {}
        self.own: dict[PolicyTask, int] = {}

    def admit(self, task: PolicyTask) -> bool:
        self.own[task] = task.share.priority
        return True

    def ended(self, task: PolicyTask) -> None:
        del self.own[task]

    def ready(self, task: PolicyTask, reason: str) -> None:
        self.queues[task.priority].append(task)

    def next(self) -> PolicyTask | None:
        return next(queue for queue in reversed(self.queues) if queue).pop(0)

    def change(self, task: PolicyTask, share: Share) -> bool:
        self.own[task] = share.priority
        self.update(task)
        return True

    def depend(self, task: PolicyTask, on: PolicyTask | None) -> None:
        before = self.on.pop(task, None)
        if on is not None:
            self.on[task] = on
        for each in (before, on):
            self.update(each)

    def update(self, task: PolicyTask | None) -> None:
        """Bring the level of a task up to date, and of those it waits for."""
        while task is not None:
            level = max([self.own[task],
                         *(each.priority for each, on in self.on.items() if on is task)])
            if level == task.priority:
                return
            if task.ready:
                self.queues[task.priority].remove(task)
                self.queues[level].append(task)
            task.priority = level
            task = self.on.get(task)

    def check(self) -> None:
        assert sum(map(len, self.queues)) == sum(task.ready for task in self.own)


def shortest() -> type[Policy]:
    """Import the policy of the how-to."""
    path = Path(__file__).resolve().parent / "example/shortest.py"
    spec = importlib.util.spec_from_file_location("shortest", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Policy] = module.Shortest
    return found


# ---- right ones


@pytest.mark.parametrize("policy", [Fifo, Levels, shortest()], ids=lambda kind: kind.__name__)
def test_conforms(policy: type[Policy]) -> None:
    """Python decides, and everything else is the scheduler that C policies have."""
    assert check_scheduler(policy).checks > 100_000


def test_a_policy_in_python_makes_the_schedule_of_the_same_one_in_c() -> None:
    """The independent reference: sched.prio, on a set where somebody is preempted all the time."""
    tasks = [SimTask(f"t{n}", f"{n + 1}ms", f"{5 * n + 7}ms", priority=9 - n) for n in range(4)]
    ours = simulate(tasks, Levels(), until="500ms", switch="2us")
    theirs = simulate(tasks, Prio(), until="500ms", switch="2us")
    assert ours.segments == theirs.segments
    assert ours.jobs == theirs.jobs
    assert len(ours.segments) > 100


def test_the_page_says_what_the_example_does() -> None:
    """By weight: twice as much for twice the weight, and half of all for who comes late."""
    tasks = [SimTask("one", "60ms"), SimTask("two", "60ms", weight=2048),
             SimTask("late", "12ms", offset="20ms", weight=3072)]
    found = simulate(tasks, shortest()(slice_ns=4 * MS), until="140ms")
    assert abs(found.used("two", end=20 * MS) - 2 * found.used("one", end=20 * MS)) <= 8 * MS
    assert found.jobs[0].task == 2
    assert found.fairness_error() <= 8 * MS


def test_each_run_starts_from_the_same_object() -> None:
    """What one run leaves behind must not get into the next."""
    policy = Fifo()
    assert simulate(SET, policy, until="100ms") == simulate(SET, policy, until="100ms")
    assert not policy.queue


def test_python_tasks_run_on_it() -> None:
    """Embedding: the same object as a scheduler of this process."""
    with Fifo().open() as tasks:
        def both() -> Any:
            first, second = tasks.spawn(sum, (1, 2)), tasks.spawn(sum, (3, 4))
            return (yield first), (yield second)
        assert tasks.run(tasks.spawn(both)) == (3, 7)
        tasks.check()


def test_what_a_policy_sees() -> None:
    """Reasons, times and shares, in order."""
    seen: list[Any] = []

    class Watch(Fifo):
        def __deepcopy__(self, memo: Any) -> Watch:
            return Watch()

        def admit(self, task: PolicyTask) -> bool:
            seen.append(("admit", task.name, task.share.weight))
            return True

        def ready(self, task: PolicyTask, reason: str) -> None:
            seen.append((reason, self.now_ns // MS, self.timer_ns))
            super().ready(task, reason)

        def stopped(self, task: PolicyTask, ran_ns: int) -> None:
            seen.append(("stopped", self.now_ns // MS, ran_ns, task.ran_ns))

        def stop_ns(self, task: PolicyTask) -> int | None:
            return self.now_ns + 2 * MS

        def ended(self, task: PolicyTask) -> None:
            seen.append(("ended", task.number))

    simulate([SimTask("x", "3ms", offset="1ms", weight=7)], Watch(), until="20ms")
    assert seen == [("admit", "simulated", 7), ("new", 0, None), ("stopped", 0, 0, 0),
                    ("woken", 1, None), ("stopped", 3, 2 * MS, 2 * MS), ("yielded", 3, None),
                    ("stopped", 4, MS, 3 * MS), ("ended", 1)]


def test_a_policy_may_leave_the_processor_idle() -> None:
    """next() returns nothing, wake_ns() says until when: turns do not spin meanwhile."""
    class Late(Fifo):
        def next(self) -> PolicyTask | None:
            return super().next() if self.now_ns >= 5 * MS else None

        def wake_ns(self) -> int:
            return 5 * MS

    found = simulate([SimTask("x", "1ms")], Late(), until="20ms")
    assert [(each.start, each.end) for each in found.segments] == [(5 * MS, 6 * MS)]


def test_a_policy_may_refuse_tasks() -> None:
    """Not enough left is out of memory, as sched.edf says it; a share it cannot serve is wrong."""
    class Two(Fifo):
        left = 2

        def admit(self, task: PolicyTask) -> bool:
            if task.share.weight > 99:
                raise ValueError("too heavy")
            self.left -= 1
            return self.left >= 0

    simulate(SET, Two(), until="10ms")
    with pytest.raises(OutOfMemory, match="task 'c'"):
        simulate([*SET, SimTask("c", "1ms")], Two(), until="10ms")
    with pytest.raises(InvalidArgument):
        simulate([SimTask("heavy", "1ms", weight=100)], Two(), until="10ms")


# ---- wrong ones


class Raises(Fifo):
    """Raises in next()."""

    def next(self) -> PolicyTask | None:
        raise KeyError("nobody")


class Foreign(Fifo):
    """Returns what is no task."""

    def next(self) -> PolicyTask | None:
        return "first"  # type: ignore[return-value]


class Twice(Fifo):
    """Does not take out what it hands out."""

    def next(self) -> PolicyTask | None:
        return self.queue[0]


class Loses(Fifo):
    """Forgets whoever yields."""

    def ready(self, task: PolicyTask, reason: str) -> None:
        if reason != "yielded":
            super().ready(task, reason)

    def next(self) -> PolicyTask | None:
        return self.queue.popleft() if self.queue else None

    def stop_ns(self, task: PolicyTask) -> int | None:
        return self.now_ns + 1000


WRONG = [(Raises, CallbackError, r"policy Raises: next\(\) raised KeyError: 'nobody'"),
         (Foreign, Corrupt, r"policy Foreign: next\(\) returned 'first', which is no task"),
         (Twice, Corrupt, r"policy Twice: next\(\) returned <PolicyTask .*it was returned before"),
         (Loses, Corrupt, r"policy Loses: next\(\) returned None though .* ready.* lost")]


@pytest.mark.parametrize(("policy", "error", "text"), WRONG,
                         ids=lambda each: getattr(each, "__name__", ""))
def test_mistakes_come_out_as_one_error(policy: type[Policy], error: type[Exception],
                                        text: str) -> None:
    """In the simulator as in the suite: which policy, which method, what."""
    with pytest.raises(error, match=text) as found:
        simulate(SET, policy(), until="100ms")
    if policy is Raises:
        assert isinstance(found.value.__cause__, KeyError)
    with pytest.raises(error, match=text):
        check_scheduler(policy)
    with policy().open() as tasks:  # not broken by what happened elsewhere
        tasks.turn()


def test_a_claim_is_looked_at() -> None:
    """Who says priorities and serves in order of arrival does not conform."""
    class Boasts(Fifo):
        features = frozenset({"priorities"})

    with pytest.raises(NotConforming, match="the_highest_priority_runs_first"):
        check_scheduler(Boasts)
    with pytest.raises(CompositionError, match="speed is no feature"):
        type("Fast", (Fifo,), {"features": {"speed"}})


def test_ctrl_c_is_not_the_policys_mistake() -> None:
    """KeyboardInterrupt comes out as it is."""
    class Stopped(Fifo):
        def next(self) -> PolicyTask | None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(SET, Stopped(), until="10ms")


def test_an_image_does_not_take_it() -> None:
    """Images carry C alone, and say so."""
    with pytest.raises(CompositionError, match="fifo"):
        Image("hello", sched=Fifo()).plan()
