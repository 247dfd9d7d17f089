"""Claims: a switch between fibers costs less than greenlet's, asyncio's tasks half of uvloop's.

CPU time of this thread per switch; the coroutines are the same for every loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import interleave, paired_ratio, record

from unikit.aio import EventLoop
from unikit.sched import Coop, Fiber

ROUNDS = 9
FACTS = {"greenlet": "133 ns (2026-11-20)", "uvloop": "614 ns (2026-11-20)",
         "asyncio": "1277 ns (2026-11-20)"}


def switches(make: Callable[[Callable[[], None]], Any], current: Callable[[], Any],
             count: int = 200_000) -> float:
    """Switch to and fro; ns per switch."""
    main = current()

    def loop() -> None:
        switch = main.switch
        while True:
            switch()

    other = make(loop)
    switch = other.switch
    switch()
    start = time.thread_time_ns()
    for _ in range(count):
        switch()
    return (time.thread_time_ns() - start) / count / 2


def lives(make: Callable[[Callable[[], int]], Any], count: int = 20_000) -> float:
    """Make, run, end; ns."""
    start = time.thread_time_ns()
    for _ in range(count):
        make(int).switch()
    return (time.thread_time_ns() - start) / count


def test_fiber(benchmark: Any) -> None:
    """Two fibers switch to and fro in one Python loop; also whole lives."""
    greenlet = pytest.importorskip("greenlet")
    found = benchmark.pedantic(
        interleave, args=(ROUNDS, 1), rounds=1,
        kwargs={"ours": lambda: switches(Fiber, Fiber.getcurrent),
                "greenlet": lambda: switches(greenlet.greenlet, greenlet.getcurrent),
                "life": lambda: lives(Fiber), "greenlet life": lambda: lives(greenlet.greenlet)})
    record("sched_fiber", "switch between two fibers from Python", "ns", found["ours"], must=133,
           reference=found["greenlet"], ratio=paired_ratio(found["ours"], found["greenlet"]),
           more=[found["life"], found["greenlet life"]], constants=FACTS,
           note="life: make, run to the end, drop")


def tasks(factory: Any, count: int, rounds: int) -> float:
    """``count`` tasks that take turns by sleep(0); ns per switch."""
    async def work() -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)

    async def main() -> float:
        start = time.thread_time_ns()
        every = [asyncio.create_task(work()) for _ in range(count)]
        for each in every:
            await each
        return (time.thread_time_ns() - start) / count / rounds

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def spawns(factory: Any, count: int = 5000) -> float:
    """Create a task and wait for it; ns."""
    async def work() -> None:
        pass

    async def main() -> float:
        start = time.thread_time_ns()
        for _ in range(count):
            await asyncio.create_task(work())
        return (time.thread_time_ns() - start) / count

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def checkpoints(count: int = 10, rounds: int = 500) -> float:
    """The same as tasks() under trio; ns per switch."""
    trio = pytest.importorskip("trio")

    async def work() -> None:
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()

    async def main() -> float:
        start = time.thread_time_ns()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(work)
        return (time.thread_time_ns() - start) / count / rounds

    return float(trio.run(main))


@pytest.mark.parametrize("count", [2, 10, 100, 1000])
def test_tasks(benchmark: Any, count: int) -> None:
    """Tasks that yield to each other by asyncio.sleep(0), each loop with the same coroutines."""
    uvloop = pytest.importorskip("uvloop")
    rounds = max(20_000 // count, 200)
    contestants = {"ours": lambda: tasks(EventLoop, count, rounds),
                   "uvloop": lambda: tasks(uvloop.new_event_loop, count, rounds),
                   "asyncio": lambda: tasks(None, count, rounds),
                   "ours, sched.coop": lambda: tasks(lambda: EventLoop(Coop), count, rounds)}
    if count == 10:
        contestants |= {"trio checkpoint": checkpoints,
                        "create and await": lambda: spawns(EventLoop),
                        "create and await, uvloop": lambda: spawns(uvloop.new_event_loop),
                        "create and await, asyncio": lambda: spawns(None)}
    found = benchmark.pedantic(interleave, args=(ROUNDS, 1), rounds=1, kwargs=contestants)
    record(f"sched_asyncio_{count}", f"switch between {count} asyncio tasks", "ns", found["ours"],
           must=0.5, compare="ratio", reference=found["uvloop"], constants=FACTS,
           ratio=paired_ratio(found["ours"], found["uvloop"]),
           more=[sample for name, sample in found.items() if name not in ("ours", "uvloop")],
           note="some 190 ns of each switch are the interpreter's, which makes and runs the "
                "coroutine of sleep(0) under any loop")
