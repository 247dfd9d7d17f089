"""The event loop: errors, interrupts, closing, threads, signals, debug mode."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import weakref
from typing import Any

import pytest
from aio_policies import POLICIES, each_policy

from unikit.aio import EventLoop, run

pytestmark = pytest.mark.fast


def test_errors_are_reported() -> None:
    """Callbacks that raise, tasks that are forgotten: the exception handler hears of them."""
    heard: list[dict[str, Any]] = []
    loop = EventLoop()
    loop.set_exception_handler(lambda _loop, context: heard.append(context))

    async def main() -> None:
        loop.call_soon(lambda: 1 / 0)
        loop.call_later(0, lambda: [][1])
        await asyncio.sleep(0.01)
        asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    assert [type(each.get("exception")) for each in heard[:2]] == [ZeroDivisionError, IndexError]
    assert "Exception in callback" in heard[0]["message"]
    assert "destroyed but it is pending" in heard[2]["message"]


@each_policy
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_the_run(policy: type, error: type[BaseException]) -> None:
    """From a callback, from a task; and the loop can go on afterwards."""
    loop, log = EventLoop(policy), []

    def stops() -> None:
        raise error

    async def task_stops() -> None:
        raise error

    async def waits() -> None:
        await asyncio.sleep(0.01)

    loop.call_soon(stops)
    loop.call_soon(log.append, 1)
    with pytest.raises(error):
        loop.run_forever()
    assert log == []
    with pytest.raises(error):
        loop.run_until_complete(task_stops())
    assert log == [1]
    loop.run_until_complete(waits())
    loop.close()


def test_closing_lets_go_of_everything() -> None:
    """Handles, timers and tasks that are left do not keep what they hold."""
    class Thing:
        pass

    for policy in POLICIES:
        loop = EventLoop(policy)
        things = [Thing() for _ in range(4)]
        loop.call_soon(print, things[0])
        loop.call_later(3600, print, things[1])
        loop.call_at(0, print, things[2]).cancel()

        async def holds(thing: Thing) -> None:
            await asyncio.sleep(3600)

        task = loop.create_task(holds(things[3]))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_soon(print, things[0])
        loop.close()
        references = [weakref.ref(each) for each in (*things, loop, task)]
        del loop, task, things
        gc.collect()
        assert [each() for each in references] == [None] * 6, policy
    with pytest.raises(RuntimeError, match="closed"):
        closed = EventLoop()
        closed.close()
        closed.call_soon(print)


def test_threads_wake_the_loop() -> None:
    """call_soon_threadsafe ends a wait for files; run_in_executor stands on it."""
    async def main() -> int:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(future.set_result, threading.get_ident()))
        thread.start()
        assert await asyncio.wait_for(future, 10) != threading.get_ident()
        thread.join()
        return await loop.run_in_executor(None, os.getpid)

    assert run(main()) == os.getpid()


def test_signals() -> None:
    """A handler of the loop, and Ctrl-C, which cancels the program."""
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, future.set_result, 1)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(future, 10)
        loop.remove_signal_handler(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_debug_mode(caplog: pytest.LogCaptureFixture) -> None:
    """Slow steps are named; calls from another thread are refused; handles say where from."""
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        loop.slow_callback_duration = 0.0
        handle = loop.call_later(0, int)
        assert handle._source_traceback  # type: ignore[attr-defined]
        refused: list[BaseException] = []

        def elsewhere() -> None:
            try:
                loop.call_soon(int)
            except RuntimeError as error:
                refused.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert "Non-thread-safe" in str(refused[0])
        with pytest.raises(TypeError):
            loop.call_soon(5)  # type: ignore[arg-type]
        await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=EventLoop, debug=True) as runner:
        runner.run(main())
    assert any("Executing <Task" in each.message for each in caplog.records)
    assert any("Executing <TimerHandle" in each.message or "int()" in each.message
               for each in caplog.records)
