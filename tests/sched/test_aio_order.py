"""asyncio on unikit's schedulers: its own order, or by the shares of tasks."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from aio_policies import each_policy

from unikit.aio import EventLoop, run
from unikit.errors import CallbackError, OutOfMemory
from unikit.sched import Coop, Edf, Policy, PolicyTask, Prio, Share
from unikit.testing import VirtualEnvironment

pytestmark = pytest.mark.fast


class Program:
    """A seeded program of tasks, callbacks and futures; its log is what happened in which order."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.log: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.futures: list[asyncio.Future[int]] = []

    async def main(self) -> list[Any]:
        """Run it."""
        self.spawn(0)
        while not all(task.done() for task in self.tasks):
            await asyncio.sleep(0)
            for future in self.futures:
                if not future.done() and self.chance.random() < 0.2:
                    future.set_result(1)
        return self.log

    def spawn(self, depth: int) -> None:
        """Start a task."""
        number = len(self.tasks)
        self.tasks.append(asyncio.create_task(self.work(number, depth), name=f"t{number}"))

    async def work(self, me: int, depth: int) -> int:
        """Do this and that."""
        loop = asyncio.get_running_loop()
        try:
            for step in range(self.chance.randrange(6)):
                self.log.append((me, step))
                kind = self.chance.randrange(8)
                if kind < 2:
                    await asyncio.sleep(0)
                elif kind == 2 and depth < 4:
                    self.spawn(depth + 1)
                    self.spawn(depth + 1)
                elif kind == 3:
                    self.futures.append(loop.create_future())
                    await self.futures[-1]
                elif kind == 4:
                    handle = loop.call_soon(self.log.append, ("soon", me, step))
                    if self.chance.random() < 0.3:
                        handle.cancel()
                elif kind == 5:
                    other = self.chance.choice(self.tasks)
                    self.log.append(("cancel", other.get_name(), other.cancel(f"by {me}")))
                elif kind == 6:
                    other = self.chance.choice(self.tasks)
                    if other is not asyncio.current_task():
                        await asyncio.wait([other], timeout=0.01)
                        self.log.append((me, "saw", other.cancelled() if other.done() else "alive"))
                elif self.chance.random() < 0.3:
                    raise LookupError(me)
        except asyncio.CancelledError as error:
            self.log.append((me, "cancelled", error.args))
            if self.chance.random() < 0.5:
                raise
        finally:
            self.log.append((me, "ends", len(asyncio.all_tasks()) > 1))
        return me


def outcome(seed: int, loop: Any) -> tuple[list[Any], list[Any]]:
    """Run a program; the log and what became of the tasks."""
    program = Program(seed)
    with asyncio.Runner(loop_factory=loop) as runner:
        log = runner.run(program.main())
        ends = [("cancelled",) if task.cancelled() else (repr(task.exception()),)
                if task.exception() else task.result() for task in program.tasks]
    return log, ends


def test_the_order_is_asyncios() -> None:
    """The independent reference: the standard library's loop, on programs nobody would write."""
    events = 0
    for seed in range(150):
        ours = outcome(seed, EventLoop)
        assert ours == outcome(seed, asyncio.SelectorEventLoop), seed
        events += len(ours[0])
    assert events > 800


@each_policy
def test_every_policy_brings_every_program_to_its_end(policy: type) -> None:
    """Another order, but nothing is lost and nothing runs twice."""
    for seed in range(40):
        log, ends = outcome(seed, lambda: EventLoop(policy))
        assert sum(1 for each in log if each[1] == "ends") <= len(ends)


# ---- policies and shares


def test_priorities_count() -> None:
    """Who goes on next is the scheduler's decision: at the start, at each wake, at each change."""
    async def main() -> list[str]:
        loop, order = asyncio.get_running_loop(), []

        async def say(name: str) -> None:
            for _ in range(2):
                order.append(name)
                await asyncio.sleep(0)

        tasks = [loop.create_task(say(name), share=Share(priority=level))  # type: ignore[call-arg]
                 for name, level in (("a", 1), ("b", 7), ("c", 3))]
        tasks[0].set_share(Share(priority=9))  # type: ignore[attr-defined]
        await asyncio.wait(tasks)
        return order

    assert run(main(), Prio) == list("aabbcc")
    assert run(main(), Coop) == list("abcabc")


def test_reservations_are_refused_and_given() -> None:
    """sched.edf admits what it can keep; the rest is an error of create_task."""
    async def main() -> int:
        loop = asyncio.get_running_loop()
        task = loop.create_task(asyncio.sleep(0, 5),  # type: ignore[call-arg]
                                share=Share(slice="6ms", period="10ms"))
        late = asyncio.sleep(0)
        with pytest.raises(OutOfMemory, match="sched.edf"):
            loop.create_task(late, share=Share(slice="6ms", period="10ms"))  # type: ignore
        late.close()
        return await task

    assert run(main(), Edf) == 5


def test_c_tasks_have_shares_too() -> None:
    """The second one asks for more than is left; neither runs."""
    with Edf().open() as tasks:
        tasks.spawn_c(1, share=Share(slice="6ms", period="10ms"), detached=True)
        with pytest.raises(OutOfMemory):
            tasks.spawn_c(1, share=Share(slice="6ms", period="10ms"), detached=True)
        tasks.spawn_c(1, share=Share(slice="1ms", period="10ms"), detached=True)


def test_a_policy_in_python_runs_asyncio() -> None:
    """Last in, first out, as a class; and what it raises ends the run, and names it."""
    class Stack(Policy):
        def __init__(self, fails: bool = False) -> None:
            self.tasks: list[PolicyTask] = []
            self.fails = fails

        def ready(self, task: PolicyTask, reason: str) -> None:
            self.tasks.append(task)

        def next(self) -> PolicyTask:
            if self.fails and len(self.tasks) > 1:
                raise KeyError("two")
            return self.tasks.pop()

    async def main() -> list[int]:
        order: list[int] = []

        async def note(n: int) -> None:
            order.append(n)

        await asyncio.wait([asyncio.create_task(note(n)) for n in range(4)])
        return order

    assert run(main(), Stack()) == [3, 2, 1, 0]
    loop = EventLoop(Stack(fails=True))
    with pytest.raises(CallbackError, match=r"policy Stack: next\(\) raised KeyError"):
        loop.run_until_complete(main())
    loop.close()


def test_virtual_time() -> None:
    """Programs that sleep for hours run at once, in order, the same way each time."""
    async def main() -> list[Any]:
        loop, log = asyncio.get_running_loop(), []

        async def sleeper(hours: int) -> None:
            await asyncio.sleep(hours * 3600)
            log.append((hours, loop.time() - start))

        start = loop.time()
        await asyncio.gather(*(sleeper(n) for n in (3, 1, 2)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await asyncio.sleep(10**6)
        return [*log, loop.time() - start]

    with VirtualEnvironment() as env, \
            asyncio.Runner(loop_factory=lambda: EventLoop(env=env)) as runner:
        assert runner.run(main()) == [(1, 3600), (2, 7200), (3, 10800), 11400]
