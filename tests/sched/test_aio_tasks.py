"""Tasks of asyncio on unikit's schedulers: cancelling, what programs look at, mistakes."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from typing import Any

import pytest
from aio_policies import each_policy

from unikit.aio import Task, run

pytestmark = pytest.mark.fast


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


async def chains() -> list[Any]:
    """Cancel tasks in each way; what the first and the second who await them get."""
    seen: list[Any] = []

    async def work(kind: str) -> None:
        try:
            await asyncio.sleep(0 if kind == "ends" else 3600)
        except asyncio.CancelledError as error:
            seen.append(error)
            if kind == "another":
                raise asyncio.CancelledError("mine", 2) from LookupError(kind)
            raise
        task = asyncio.current_task()
        assert task is not None
        task.cancel("at the end")

    async def nested() -> None:
        await asyncio.create_task(work("waits"))

    found: list[Any] = []
    for kind in ("early", "waits", "another", "ends", "nested"):
        task = asyncio.create_task(nested() if kind == "nested" else work(kind))
        for _ in range(0 if kind == "early" else 3):
            await asyncio.sleep(0)
        task.cancel(kind)
        for _ in range(2):
            try:
                await task
            except asyncio.CancelledError as error:
                first = error.__context__
                found.append((kind, error.args, repr(error.__cause__), repr(first),
                              any(error is each or first is each for each in seen)))
    results = [asyncio.create_task(work("waits")) for _ in range(2)]
    await asyncio.sleep(0)
    for task in results:
        task.cancel("all")
    found += [each.args for each in await asyncio.gather(*results, return_exceptions=True)]
    return found


def test_awaiting_a_cancelled_task_raises_what_cancelled_it() -> None:
    """The exception itself, with its cause and where it was, once; then new ones: as in asyncio."""
    ours = run(chains())
    assert ours == asyncio.run(chains())
    assert [each[-1] for each in ours if each[0] == "waits"] == [True, False]
    assert ("another", ("mine", 2), "LookupError('another')") in [each[:3] for each in ours]


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
