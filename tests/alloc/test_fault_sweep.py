"""Allocation fails at every n-th request until none is left to fail: no crash, no leak.

``alloc.guard`` refuses the n-th request and finds what goes wrong afterwards: what is freed twice,
used after it was freed, or never freed at all.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from unikit.alloc import Guard, Heap, Tlsf
from unikit.errors import OutOfMemory, TimedOut, UnikitError
from unikit.image import Image
from unikit.net import Mini, Pipe
from unikit.net.netif.user import User
from unikit.sched import Coop, Loop

HERE = Path(__file__).resolve().parent
LIMIT = 300


def sweep(act: Callable[[Heap], bool]) -> list[bool]:
    """Run ``act`` with the first, second, ... request refused until it asks for fewer.

    :param act: says whether it succeeded; it must leave nothing behind.
    :returns: what it said each time.
    """
    said: list[bool] = []
    for n in range(1, LIMIT):
        with Guard(Tlsf(), fail_at=n).open("4M") as heap:
            said.append(act(heap))
            assert heap.leaks() == [], f"request {n} refused"
            heap.check()
            if heap.stats().failures == 0:
                return said
    raise AssertionError(f"still refused after {LIMIT} requests")


# ---- in this process ---------------------------------------------------------------------------

def talk(heap: Heap) -> bool:
    """Serve a connection and a datagram on a stack whose memory is scarce."""
    left, right = Pipe().open()
    try:
        with Mini(address="10.0.0.1/24").open(left, heap) as server, \
                Mini(address="10.0.0.2/24").open(right) as client, \
                server.listen(7) as listener, \
                client.connect(("10.0.0.1", 7), timeout=4) as ours, \
                listener.accept(timeout=4) as theirs:
            ours.sendall(b"x" * 20_000)
            got = 0
            while got < 20_000:
                got += len(theirs.recv())
            theirs.sendall(b"y" * 10_000)
            while got < 30_000:
                got += len(ours.recv())
        return True
    except (OutOfMemory, ConnectionError, TimedOut):
        return False
    finally:
        for end in (left, right):
            end.close()


def test_the_stack_survives() -> None:
    """Opening is refused, or a connection does not come about; nothing stays behind."""
    said = sweep(talk)
    assert said[0] is False, "the stack itself did not get its memory"
    assert said[-1] is True
    assert len(said) > 4


@pytest.mark.parametrize("record", [Loop(), Coop()], ids=lambda record: record.id)
def test_the_scheduler_survives(record: Loop | Coop) -> None:
    """Opening says OutOfMemory; tasks that exist run."""
    def run(heap: Heap) -> bool:
        try:
            with record.open(heap=heap) as tasks:
                def both() -> object:
                    first, second = tasks.spawn(str, 1), tasks.spawn(str, 2)
                    return (yield first) + (yield second)

                assert tasks.run(tasks.spawn(both)) == "12"
            return True
        except OutOfMemory:
            return False

    said = sweep(run)
    assert said[0] is False
    assert said[-1] is True


# ---- images ------------------------------------------------------------------------------------

def booted(image: Image, n: int) -> tuple[int, str]:
    """Boot with the n-th request refused; exit code and text. A crash raises GuestExit."""
    with image.boot("linux", memory="4M", options={"alloc.guard.fail_at": n}) as machine:
        return machine.wait(20), machine.console.text


def ran(text: str) -> str:
    """Return what faults/spawns.c says; what was never freed comes behind it."""
    return next(line for line in text.splitlines() if " ran, " in line)


def test_tasks_with_stacks_survive() -> None:
    """Each of them gets a stack or the caller is told; what is kept for the next ones is whole."""
    image = Image("spawns", [HERE / "faults/spawns.c"], alloc="guard,tlsf", sched="coop",
                  needs=["sched:threads"], platforms=["linux"])
    code, text = booted(image, 0)
    assert (code, ran(text)) == (0, "8 ran, 0 refused, 8 kept")
    requests = int(re.search(r"(\d+) requests", text)[1])  # type: ignore[index]
    refused = 0
    for n in range(1, requests + 1):
        code, text = booted(image, n)
        if code == 2:
            assert re.match(r"cannot start [a-z.]+: too little memory\n", text), text
        else:
            last = ran(text)
            assert code == 0, text
            assert last in ("8 ran, 0 refused, 8 kept", "7 ran, 1 refused, 7 kept"), n
            refused += "1 refused" in last
    assert refused >= 8, "each of the tasks asked, and was refused once"


@pytest.mark.parametrize("name", ["echo", "http"])
def test_applications_say_why_they_do_not_start(name: str) -> None:
    """One line, and an exit code; never a panic."""
    image = Image(name, alloc="guard,tlsf", platforms=["linux"])
    wrong = []
    for n in range(1, LIMIT):
        with User().open() as netif, image.boot(
                "linux", memory="8M", netif=netif,
                options={"alloc.guard.fail_at": n}) as machine:
            try:
                machine.console.expect("listening", timeout=10)
            except TimedOut:
                code, text = machine.wait(5), machine.console.text
                assert code in (1, 2), (n, code, text)
                assert re.search(r"too little memory|out of memory", text), (n, text)
                wrong.append(n)
            else:
                break
    assert wrong == list(range(1, len(wrong) + 1))
    assert len(wrong) >= 3


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_the_web_server_goes_on() -> None:
    """Whatever request fails, the next visitor is served."""
    image = Image("http", alloc="guard,tlsf", platforms=["linux"])
    answers: list[list[int]] = []
    for n in range(8, 40):
        with User(forward="0:80").open() as netif, image.boot(
                "linux", memory="8M", netif=netif,
                options={"alloc.guard.fail_at": n}) as machine:
            try:
                machine.console.expect("listening", timeout=10)
            except UnikitError:
                continue
            port = next(host for _, host, guest in netif.forwards if guest == 80)
            visits = [get(f"http://127.0.0.1:{port}/") for _ in range(4)]
            if visits[-1] != 200:
                visits.append(get(f"http://127.0.0.1:{port}/"))
            answers.append(visits)
            assert machine.running
    assert all(sum(status != 200 for status in each) <= 1 for each in answers), answers
    assert all(each[-1] == 200 for each in answers), answers
    assert sum(len(set(each)) > 1 for each in answers) >= 3, "some visitor met the refusal"
