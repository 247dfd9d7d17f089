"""asyncio on unikit's schedulers: order as asyncio's, shares, and what real programs need."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from unikit.aio import EventLoop, Task, run
from unikit.errors import CallbackError, OutOfMemory
from unikit.sched import Coop, Edf, Fair, Loop, Policy, PolicyTask, Prio, Share
from unikit.testing import VirtualEnvironment

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
POLICIES = [Loop, Coop, Fair, Prio, Edf]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda kind: kind.__name__)


# ---- the same order as asyncio's


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


# ---- tasks


@each_policy
def test_cancelling(policy: type) -> None:
    """Requests before the start, while it waits, while it runs, twice; and taking them back."""
    async def main() -> None:
        async def forever() -> None:
            await asyncio.sleep(3600)

        never = asyncio.create_task(forever())
        never.cancel("early")
        with pytest.raises(asyncio.CancelledError, match="early"):
            await never
        waits = asyncio.create_task(forever())
        await asyncio.sleep(0)
        assert waits._fut_waiter is not None  # type: ignore[attr-defined]
        assert waits.cancel() and waits.cancelling() == 1
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert waits.cancelled() and not waits.cancel()

        async def itself() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("me")
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                assert task.uncancel() == 0
                return str(error)
            return "not cancelled"

        assert await asyncio.create_task(itself()) == "me"

        async def last_step() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

        done = asyncio.create_task(last_step())
        await asyncio.wait([done])
        assert done.cancelled()

    run(main(), policy)


def test_a_task_is_asyncios_task() -> None:
    """Programs look at types, names, contexts, stacks and representations."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def main() -> None:
        task = asyncio.current_task()
        assert type(task) is Task and isinstance(task, asyncio.Task) and asyncio.isfuture(task)
        assert task.get_name().startswith("Task-") and task in asyncio.all_tasks()
        assert "main" in repr(task) and "pending" in repr(task)
        assert "main" in [frame.f_code.co_name for frame in task.get_stack()]
        task.set_name("mine")
        task.extra = 1  # type: ignore[attr-defined]
        assert task.get_name() == "mine" and weakref.ref(task)() is task

        async def changes() -> int:
            variable.set(variable.get() + 1)
            await asyncio.sleep(0)
            return variable.get()

        assert await asyncio.gather(*(asyncio.create_task(changes()) for _ in range(3))) == [1] * 3
        own = contextvars.copy_context()
        assert await asyncio.get_running_loop().create_task(changes(), context=own) == 1
        assert (variable.get(), own[variable]) == (0, 1)
        with pytest.raises(RuntimeError):
            task.set_result(1)  # type: ignore[union-attr]
        with pytest.raises(TypeError, match="a coroutine was expected"):
            asyncio.create_task(5)  # type: ignore[arg-type]

    run(main())


class Yields:
    """An awaitable that yields something odd."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __await__(self) -> Any:
        return (yield self.what)


def test_mistakes_of_coroutines() -> None:
    """Each is raised in the coroutine, which may go on."""
    async def main() -> None:
        task = asyncio.current_task()
        other = asyncio.SelectorEventLoop()
        for wrong, text in ((5, "bad yield: 5"), (task, "yield from"),
                            (other.create_future(), "yield from"), ((x for x in ()), "generator")):
            with pytest.raises(RuntimeError, match=text):
                await Yields(wrong)
        foreign = other.create_future()
        foreign._asyncio_future_blocking = True
        with pytest.raises(RuntimeError, match="different loop"):
            await Yields(foreign)
        other.close()

    run(main())


def test_futures_of_others() -> None:
    """A future in Python, whose exception only its result tells, is looked at."""
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = asyncio.futures._PyFuture(loop=loop)  # type: ignore[attr-defined]
        loop.call_soon(future.set_result, 5)
        assert await future == 5
        failing = asyncio.futures._PyFuture(loop=loop)  # type: ignore[attr-defined]
        loop.call_soon(failing.set_exception, LookupError("no"))
        failing._asyncio_future_blocking = True
        with pytest.raises(LookupError):
            await Yields(failing)

    run(main())


# ---- the loop


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


@each_policy
def test_streams_and_subprocesses(policy: type) -> None:
    """A thousand lines through a server, several clients at once, and a child process."""
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async def client(address: tuple[str, int], n: int) -> int:
        reader, writer = await asyncio.open_connection(*address[:2])
        for i in range(50):
            writer.write(f"line {n} {i}\n".encode())
            assert await reader.readline() == f"LINE {n} {i}\n".encode()
        writer.close()
        return n

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            assert await asyncio.gather(*(client(address, n) for n in range(20))) == [*range(20)]
        child = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE,
                                                     stdout=subprocess.PIPE)
        assert (await child.communicate(b"through"))[0] == b"through"
        assert child.returncode == 0

    run(main(), policy)


def test_many_tasks_on_stacks() -> None:
    """Two thousand tasks of a scheduler with threads, waiting for each other in a chain."""
    async def main() -> int:
        async def link(before: asyncio.Task[int] | None) -> int:
            return 1 + (await before if before is not None else 0)

        task = None
        for _ in range(2000):
            task = asyncio.create_task(link(task))
        assert task is not None
        return await task

    assert run(main(), Fair) == 2000


def test_http_with_aiohttp() -> None:
    """A real server and a real client."""
    if importlib.util.find_spec("aiohttp") is None:
        pytest.skip("aiohttp is not installed")
    from aiohttp import ClientSession, web

    async def main() -> None:
        async def answer(request: Any) -> Any:
            return web.json_response({"path": request.path, "body": await request.text()})

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with ClientSession(f"http://127.0.0.1:{port}") as session:
            async def ask(n: int) -> Any:
                async with session.post(f"/{n}", data="x" * n) as response:
                    return json.loads(await response.text())
            answers = await asyncio.gather(*(ask(n) for n in range(50)))
        assert answers == [{"path": f"/{n}", "body": "x" * n} for n in range(50)]
        await runner.cleanup()

    for policy in (Loop, Fair):
        run(main(), policy)


def test_http_with_httpx() -> None:
    """anyio stands between it and the loop, and looks into tasks."""
    if importlib.util.find_spec("httpx") is None:
        pytest.skip("httpx is not installed")
    import httpx

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, httpx.AsyncClient(trust_env=False) as client:
            answers = await asyncio.gather(*(client.get(f"http://127.0.0.1:{port}/")
                                             for _ in range(10)))
        assert {each.text for each in answers} == {"hello"}

    run(main())


CPYTHON = ("test_taskgroups", "test_timeouts", "test_locks", "test_queues", "test_waitfor",
           "test_threads", "test_pep492", "test_context", "test_futures2")
CPYTHON_LONG = ("test_runners", "test_sock_lowlevel", "test_streams", "test_server",
                "test_sendfile",
                "test_subprocess", "test_events", "test_ssl", "test_buffered_proto")


def cpythons_own(names: tuple[str, ...]) -> None:
    """Run test modules of CPython on our loop; none may fail."""
    if importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this Python comes without its own tests")
    found = subprocess.run([sys.executable, HERE / "aio_cpython.py", *names], cwd=ROOT,
                           capture_output=True, text=True, timeout=900)
    failed = [line for line in found.stdout.splitlines() if line.startswith("FAILED")]
    assert failed == [] and "RAN " in found.stdout, found.stderr[-3000:]


def test_cpythons_own_tests() -> None:
    """Written by those who wrote asyncio."""
    cpythons_own(CPYTHON)


@pytest.mark.slow
def test_cpythons_own_tests_of_transports() -> None:
    """Sockets, TLS, signals, subprocesses: minutes."""
    cpythons_own(CPYTHON_LONG)
