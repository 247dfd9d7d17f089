"""Tasks in this process: Python callables, generators and C functions on a scheduler."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from unikit.alloc import Tlsf
from unikit.errors import (
    Closed,
    CompositionError,
    Deadlock,
    InvalidArgument,
    OutOfMemory,
    TimedOut,
    WouldBlock,
)
from unikit.sched import Coop, Loop, Scheduler, Tasks
from unikit.testing import VirtualEnvironment, check_scheduler

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[2]
_folder = TemporaryDirectory(prefix="unikit-test-sched-")


@pytest.fixture
def env() -> Iterator[VirtualEnvironment]:
    """A virtual clock: no test sleeps."""
    with VirtualEnvironment() as environment:
        yield environment


@pytest.fixture(params=[Loop, Coop], ids=lambda kind: kind.stem())
def tasks(request: pytest.FixtureRequest, env: VirtualEnvironment) -> Iterator[Tasks]:
    """Tasks on each scheduler, checked at the end."""
    with request.param().open(env=env) as opened:
        yield opened
        opened.check()


@pytest.mark.parametrize("record", [Loop(), Coop(), Coop(stack="32K", cached=0, measure=True)],
                         ids=repr)
def test_schedulers_conform_in_this_process(record: Scheduler) -> None:
    """The suite runs from Python as a third party's tests would call it."""
    assert check_scheduler(record, "64M").checks > 50_000


# ---- calls and timers ------------------------------------------------------------------------


def test_posted_calls_run_in_order_in_the_next_turn(tasks: Tasks) -> None:
    """What a call posts waits a turn, so that a chain of calls cannot stop the world."""
    seen: list[int] = []
    tasks.post(lambda: (seen.append(1), tasks.post(seen.append, 3)))
    tasks.post(seen.append, 2)
    assert tasks.turn()
    assert seen == [1, 2]
    assert tasks.turn() and seen == [1, 2, 3]
    assert not tasks.turn()


def test_timers_fire_by_time_then_by_order_of_making(
        tasks: Tasks, env: VirtualEnvironment) -> None:
    """run() lets the clock jump from deadline to deadline and ends with the last."""
    seen: list[tuple[str, int]] = []
    for name, delay in (("c", 0.3), ("a", 0.1), ("d", 0.3), ("b", 0.1)):
        tasks.call_later(delay, lambda name=name: seen.append((name, env.now_ns())))
    assert tasks.deadline_ns() == 100_000_000
    tasks.run()
    assert seen == [("a", 10**8), ("b", 10**8), ("c", 3 * 10**8), ("d", 3 * 10**8)]
    assert tasks.deadline_ns() is None


def test_cancelled_calls_do_not_run(tasks: Tasks) -> None:
    """cancel() says whether there was anything to cancel."""
    seen: list[str] = []
    posted, timer = tasks.post(seen.append, "posted"), tasks.call_later(1, seen.append, "timer")
    kept = tasks.post(seen.append, "kept")
    assert posted.pending and posted.cancel() and not posted.pending and not posted.cancel()
    assert timer.cancel() and not timer.cancel()
    tasks.run()
    assert seen == ["kept"]
    assert not kept.pending and not kept.cancel()


def test_ten_thousand_timers_in_random_order(tasks: Tasks, env: VirtualEnvironment) -> None:
    """The queue orders as sorted() does."""
    seen: list[int] = []
    deadlines = [(i * 7919) % 10_007 for i in range(10_000)]
    for deadline in deadlines:
        tasks.call_at(deadline, seen.append, deadline)
    tasks.check()
    tasks.run()
    assert seen == sorted(deadlines)
    assert tasks.stats().timers == 10_000


# ---- exceptions ------------------------------------------------------------------------------


def test_an_exception_comes_out_of_the_turn_that_ran_it(tasks: Tasks) -> None:
    """It is the very exception, after the rest of the turn, and the scheduler goes on."""
    seen: list[int] = []
    tasks.post(lambda: 1 // 0)
    tasks.post(seen.append, 1)
    with pytest.raises(ZeroDivisionError):
        tasks.turn()
    assert seen == [1]
    assert not tasks.turn()


def test_several_exceptions_of_a_turn_come_as_a_group(tasks: Tasks) -> None:
    """None is lost."""
    tasks.post(lambda: 1 // 0)
    tasks.post(lambda: [][0])
    with pytest.raises(ExceptionGroup) as caught:
        tasks.run()
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError, IndexError]


def test_interrupts_are_not_swallowed(tasks: Tasks) -> None:
    """Ctrl-C inside a callable ends run()."""
    def interrupt() -> None:
        raise KeyboardInterrupt
    tasks.post(interrupt)
    with pytest.raises(KeyboardInterrupt):
        tasks.run()


def test_turn_and_close_are_refused_within_a_turn(tasks: Tasks) -> None:
    """They would pull the scheduler out from under itself."""
    for call in (tasks.turn, tasks.close):
        tasks.post(call)
        with pytest.raises(InvalidArgument, match="within"):
            tasks.turn()
    assert not tasks.closed


# ---- Python tasks ----------------------------------------------------------------------------


def test_a_callable_is_a_task_with_a_result(tasks: Tasks) -> None:
    """The simplest task: runs once, result() has what it returned."""
    task = tasks.spawn(divmod, 17, 5)
    with pytest.raises(WouldBlock, match="divmod"):
        task.result()
    assert tasks.run(task) == (3, 2)
    assert task.done and repr(task) == "<Task 'divmod': done>"


def test_generators_take_turns(tasks: Tasks) -> None:
    """Bare yields give round robin, one step per turn each."""
    seen = ""

    def letters(text: str) -> Iterator[None]:
        nonlocal seen
        for letter in text:
            seen += letter
            yield

    tasks.spawn(letters, "abc")
    tasks.spawn(letters("123"))
    tasks.run()
    assert seen == "a1b2c3"


def test_yielded_seconds_are_slept(tasks: Tasks, env: VirtualEnvironment) -> None:
    """Sleeping tasks overlap; time passes by deadlines alone."""
    def sleeper(seconds: float) -> Any:
        yield seconds
        yield seconds
        return env.now_ns()

    long, short = tasks.spawn(sleeper, 2), tasks.spawn(sleeper, 0.5)
    tasks.run()
    assert (long.result(), short.result()) == (4 * 10**9, 10**9)


def test_yielding_a_task_waits_for_its_result_or_error(tasks: Tasks) -> None:
    """An error goes to whoever waits, and then not to turn()."""
    def fails() -> Any:
        yield 1
        raise LookupError("lost")

    def parent() -> Any:
        child, done = tasks.spawn(fails), tasks.spawn(divmod, 7, 2)
        quotient, _ = yield done
        try:
            yield child
        except LookupError as error:
            return quotient, str(error), (yield done)

    assert tasks.run(tasks.spawn(parent)) == (3, "lost", (3, 1))


def test_an_error_nobody_waits_for_comes_out_of_run(tasks: Tasks) -> None:
    """It names its place, and result() raises it again."""
    def fails() -> Any:
        yield
        raise LookupError("lost")

    task = tasks.spawn(fails)
    with pytest.raises(LookupError, match="lost"):
        tasks.run()
    with pytest.raises(LookupError, match="lost"):
        task.result()


@pytest.mark.parametrize("wish", ["soon", -1, float("nan"), True, object()],
                         ids=["word", "negative", "nan", "bool", "object"])
def test_yielding_nonsense_is_a_type_error_in_the_task(tasks: Tasks, wish: object) -> None:
    """The mistake shows where it was made."""
    def wrong() -> Any:
        try:
            yield wish
        except TypeError as error:
            return str(error)

    assert "yield nothing, seconds, or a task" in tasks.run(tasks.spawn(wrong))


def test_cancelled_tasks_clean_up_and_tell_who_waits(tasks: Tasks) -> None:
    """Whether it waits for a turn, a time or a task, nothing of it is left."""
    cleaned: list[str] = []

    def waits(name: str, wish: Any) -> Any:
        try:
            yield wish
        finally:
            cleaned.append(name)

    def watches(other: Any) -> Any:
        with pytest.raises(Closed, match="sleeper"):
            yield other
        return "seen"

    sleeper = tasks.spawn(waits, "sleep", 1000, name="sleeper")
    ready, never = tasks.spawn(waits, "turn", None), tasks.spawn(waits, "never started", None)
    joins = tasks.spawn(waits, "join", sleeper)
    watcher = tasks.spawn(watches, sleeper)
    assert never.cancel()
    tasks.turn()
    assert joins.cancel() and ready.cancel() and sleeper.cancel() and not sleeper.cancel()
    assert tasks.run(watcher) == "seen"
    assert cleaned == ["join", "turn", "sleep"]
    assert tasks.deadline_ns() is None


def test_a_task_cannot_cancel_itself(tasks: Tasks) -> None:
    """A running generator cannot be closed; the message says what to do."""
    def suicidal() -> Any:
        yield
        with pytest.raises(InvalidArgument, match="return instead"):
            task.cancel()
        return 1

    task = tasks.spawn(suicidal)
    assert tasks.run(task) == 1


def test_tasks_that_wait_for_each_other_are_a_deadlock(tasks: Tasks) -> None:
    """run() must not sleep for ever; it says who waits for whom."""
    others: list[Any] = []

    def waits(index: int) -> Any:
        yield others[index]

    others += [tasks.spawn(waits, 1, name="one"), tasks.spawn(waits, 0, name="two")]
    with pytest.raises(Deadlock, match="'one' waits for 'two'; 'two' waits for 'one'"):
        tasks.run()


def test_run_times_out(tasks: Tasks, env: VirtualEnvironment) -> None:
    """Neither a far deadline nor endless work keeps run() longer than asked."""
    tasks.call_later(100, print)
    with pytest.raises(TimedOut):
        tasks.run(timeout=1)
    assert env.now_ns() == 10**9

    def endless() -> Any:
        while True:
            env.advance(0.25)
            yield

    tasks.spawn(endless)
    with pytest.raises(TimedOut):
        tasks.run(timeout=1)


@pytest.mark.parametrize("call", [
    lambda tasks: tasks.spawn(42), lambda tasks: tasks.spawn((x for x in ()), 1),
    lambda tasks: tasks.call_later(-1, print), lambda tasks: tasks.call_later(float("nan"), print),
], ids=["no callable", "arguments for a generator", "negative", "nan"])
def test_bad_arguments_are_refused(tasks: Tasks, call: Any) -> None:
    """Before anything is queued."""
    with pytest.raises(InvalidArgument):
        call(tasks)
    assert tasks.deadline_ns() is None


# ---- C tasks ---------------------------------------------------------------------------------


class Tally(ctypes.Structure):
    """As in tasks_of_c.c."""

    _fields_ = [("s", ctypes.c_void_p), ("rounds", ctypes.c_uint64), ("done", ctypes.c_uint64),
                ("code", ctypes.c_int64)]

    def __init__(self, tasks: Tasks, rounds: int = 0) -> None:
        pointer = int(tasks._ffi.cast("uintptr_t", tasks.ptr))
        super().__init__(pointer, rounds, 0, 77)


@cache
def library() -> ctypes.CDLL:
    """Compile tasks_of_c.c."""
    target = Path(_folder.name) / "tasks_of_c.so"
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-fPIC", "-shared", f"-I{ROOT}", "-o", target,
                    Path(__file__).with_name("tasks_of_c.c")], check=True)
    return ctypes.CDLL(str(target))


def entry(name: str) -> int:
    """Return the address of a function of tasks_of_c.c."""
    address = ctypes.cast(getattr(library(), name), ctypes.c_void_p).value
    assert address is not None
    return address


def test_c_functions_are_tasks_on_every_scheduler(tasks: Tasks) -> None:
    """By address, with an address as argument."""
    tally = Tally(tasks)
    many = [tasks.spawn_c(entry("counts"), ctypes.addressof(tally), name=f"number {i}")
            for i in range(100)]
    tasks.spawn_c(entry("counts"), ctypes.addressof(tally), detached=True)
    for task in many:
        task.join()
    assert tally.done == 101
    assert tasks.stats().spawned == 101 and tasks.stats().tasks == 0
    with pytest.raises(InvalidArgument):
        many[0].join()


def test_c_tasks_yield_block_and_are_woken(env: VirtualEnvironment) -> None:
    """C threads and Python tasks share one scheduler and its clock."""
    with Coop(stack="8K").open(env=env) as tasks:
        runs, sleeps, waits = Tally(tasks, 50), Tally(tasks, 2 * 10**9), Tally(tasks)
        first = tasks.spawn_c(entry("yields"), ctypes.addressof(runs), name="yields")
        second = tasks.spawn_c(entry("blocks"), ctypes.addressof(sleeps), name="sleeps")
        third = tasks.spawn_c(entry("blocks"), ctypes.addressof(waits), name="waits")
        with pytest.raises(TimedOut):
            second.join(timeout=1.0)
        assert runs.done == 50 and sleeps.done == 0
        second.join()
        assert (env.now_ns(), sleeps.code) == (2 * 10**9, -5)
        with pytest.raises(Deadlock, match="1 C task blocked without a deadline: 'waits'"):
            third.join()
        tasks.call_later(1, third.wake)
        third.join()
        first.join()
        assert (waits.code, env.now_ns()) == (0, 3 * 10**9)
        assert tasks.stats().switches == 51 + 2 + 2
        tasks.check()


# ---- life ------------------------------------------------------------------------------------


def test_close_drops_what_is_left_and_gives_all_memory_back(env: VirtualEnvironment) -> None:
    """The caller's heap is as it was; generators get to their finally."""
    closed: list[str] = []

    def waits() -> Any:
        try:
            yield 1000
        finally:
            closed.append("finally")

    with Tlsf().open("1M") as heap:
        before = heap.stats().used
        with Coop(stack="8K").open(heap, env) as tasks:
            tally = Tally(tasks)
            tasks.spawn_c(entry("blocks"), ctypes.addressof(tally))
            tasks.spawn(waits)
            tasks.call_later(5, print)
            tasks.post(print)
            tasks.turn()
            assert heap.stats().used > before
        assert heap.stats().used == before
        heap.check()
    assert closed == ["finally"]
    tasks.close()
    with pytest.raises(ValueError, match="closed"):
        tasks.turn()


def test_errors_of_cleanup_come_out_of_close(env: VirtualEnvironment) -> None:
    """They are raised when everything else has been closed."""
    def rude() -> Any:
        try:
            yield 1000
        finally:
            raise LookupError("cleanup")

    tasks = Coop().open(env=env)
    tasks.spawn(rude)
    tasks.turn()
    with pytest.raises(LookupError, match="cleanup"):
        tasks.close()
    assert tasks.closed


def test_a_full_heap_is_out_of_memory(env: VirtualEnvironment) -> None:
    """In opening, in spawning, and the scheduler survives it."""
    with Tlsf().open("64K") as heap, Coop(stack="8K").open(heap, env) as tasks:
        tally = Tally(tasks)
        alive = []
        with pytest.raises(OutOfMemory, match="spawning"):
            while True:
                alive.append(tasks.spawn_c(entry("counts"), ctypes.addressof(tally)))
        assert 2 <= len(alive) < 8
        tasks.check()
        for task in alive:
            task.join()
        assert tally.done == len(alive)


def test_real_time_is_the_default() -> None:
    """Without an environment the clock is this process's, and guard pages are real."""
    def guards() -> int:
        lines = Path("/proc/self/maps").read_text().splitlines()
        ranges = [line.split("-", 1)[0] + " " + line.split("-", 1)[1].split()[0]
                  for line in lines if " ---p " in line]
        return sum(int(end, 16) - int(start, 16) == 4096
                   for start, end in map(str.split, ranges))

    with Coop().open() as tasks:
        tally, before = Tally(tasks, 3), guards()
        task = tasks.spawn_c(entry("yields"), ctypes.addressof(tally), name="guarded")
        assert guards() == before + 1
        began = tasks.now_ns()
        tasks.call_later(0.002, bool)
        tasks.run()
        task.join()
        assert tasks.now_ns() - began >= 2_000_000


def test_unclosed_tasks_warn() -> None:
    """A scheduler that was never closed has leaked."""
    tasks = Loop().open()
    with pytest.warns(ResourceWarning, match="sched.loop"):
        del tasks
        gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def test_options_are_checked_when_chosen() -> None:
    """Long before anything opens."""
    with pytest.raises(CompositionError, match="sched.coop.cached"):
        Coop(cached=-1)
