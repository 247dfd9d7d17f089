"""The kernels in Python, for what schedules there: fibers and greenlets, event loops.

Started as a process of its own: ``python -m unikit.cli.sched.loops KIND KERNEL NUMBERS...`` prints
lines «name value», as the C programs do.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import random
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from unikit.errors import UnikitError

_SIDE, _QUEUE = 20, 64
_FAR = 3600.0


FIBERS = {"fiber": ("unikit.sched.fiber", "Fiber"), "greenlet": ("greenlet", "greenlet")}
EVENT_LOOPS = {"aio": ("unikit.aio", "EventLoop"), "asyncio": ("asyncio", "new_event_loop"),
               "uvloop": ("uvloop", "new_event_loop")}
TITLES = {"fiber": "unikit.sched.fiber", "aio": "unikit.aio"}
"""What a kind is called in tables, where that is not its name; these are ours."""


def _find(kind: str) -> Any:
    module, name = (FIBERS | EVENT_LOOPS)[kind]
    return getattr(importlib.import_module(module), name)


def lacking(kind: str) -> str | None:
    """Say why a kind cannot be measured here; ``None``: it can."""
    try:
        _find(kind)
    except (ImportError, AttributeError, UnikitError) as error:
        return str(error) if kind in TITLES else f"not installed: pip install {kind}"
    return None


def _say(name: str, nanoseconds: float) -> None:
    print(f"{name} {nanoseconds:.6g}")


def _quiet() -> None:
    cpu = os.environ.get("UNIKIT_BENCH_CPU")
    if cpu is not None:
        os.sched_setaffinity(0, {int(cpu)})
    quiet = 0
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        quiet = 1
    print(f"quiet {quiet}")


# ---- stacks of their own ------------------------------------------------------------------------


def _fiber_switch(kind: str, count: int) -> None:
    fiber = _find(kind)
    current = importlib.import_module(FIBERS[kind][0]).getcurrent

    def bounce() -> None:
        switch = here.switch
        while True:
            switch()

    here, there = current(), fiber(bounce)
    switch = there.switch
    switch()
    began = time.process_time_ns()
    for _ in range(count // 2):
        switch()
    _say("switch", (time.process_time_ns() - began) / count)


def _fiber_spawn(kind: str, count: int) -> None:
    fiber = _find(kind)

    def nothing() -> None:
        pass

    began = time.process_time_ns()
    for _ in range(count):
        fiber(nothing).switch()
    _say("spawn", (time.process_time_ns() - began) / count)


# ---- asyncio and what takes its place -----------------------------------------------------------


async def _yields(tasks: int, count: int) -> None:
    left = count // tasks

    async def run() -> None:
        for _ in range(left):
            await asyncio.sleep(0)

    began = time.process_time_ns()
    await asyncio.gather(*(run() for _ in range(tasks)))
    _say("yield", (time.process_time_ns() - began) / (left * tasks))


async def _spawns(count: int) -> None:
    async def nothing() -> None:
        pass

    began = time.process_time_ns()
    for _ in range(count // 16):
        for task in [asyncio.create_task(nothing()) for _ in range(16)]:
            await task
    _say("spawn", (time.process_time_ns() - began) / (count // 16 * 16))


async def _timers(sleepers: int, count: int) -> None:
    loop, rng = asyncio.get_running_loop(), random.Random(1)

    def nothing() -> None:
        pass

    timers = [loop.call_later(_FAR * (1 + rng.random()), nothing) for _ in range(sleepers)]
    for name, choices in (("own", [0] * count),
                          ("random", [rng.randrange(sleepers) for _ in range(count)])):
        began = time.process_time_ns()
        for at in choices:
            timers[at].cancel()
            timers[at] = loop.call_later(_FAR * (1 + rng.random()), nothing)
        _say(name, (time.process_time_ns() - began) / count)
    for timer in timers:
        timer.cancel()


async def _messages(groups: int, loops: int) -> None:
    message = bytes(100)

    async def send(queues: list[asyncio.Queue[bytes]]) -> None:
        for _ in range(loops):
            for queue in queues:
                await queue.put(message)

    async def receive(queue: asyncio.Queue[bytes]) -> None:
        for _ in range(loops * _SIDE):
            await queue.get()

    work: list[Coroutine[Any, Any, None]] = []
    for _ in range(groups):
        queues: list[asyncio.Queue[bytes]] = [asyncio.Queue(_QUEUE) for _ in range(_SIDE)]
        work += [receive(queue) for queue in queues] + [send(queues) for _ in range(_SIDE)]
    began = time.process_time_ns()
    await asyncio.gather(*work)
    _say("message", (time.process_time_ns() - began) / (groups * _SIDE * _SIDE * loops))


_LOOPS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "yield": _yields, "spawn": _spawns, "timers": _timers, "messages": _messages}


def main(words: list[str]) -> None:
    """Run one kernel."""
    kind, kernel, *rest = words
    numbers = [int(word) for word in rest]
    _quiet()
    if kind in FIBERS:
        {"switch": _fiber_switch, "spawn": _fiber_spawn}[kernel](kind, *numbers)
        return
    with asyncio.Runner(loop_factory=_find(kind)) as runner:
        runner.run(_LOOPS[kernel](*numbers))


if __name__ == "__main__":
    main(sys.argv[1:])
