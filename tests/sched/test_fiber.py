"""Fibers: whole programs under each CPython there is, and greenlet as the reference."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES = [*sorted((ROOT / "unikit/sched/fiber").glob("*.c")), ROOT / "unikit/rt/x86_64/switch.S"]
FIND = "import sysconfig; print(sysconfig.get_path('include'))"


def test_fibers() -> None:
    """Everything that the class promises, in this process."""
    from fiber_program import program

    from unikit.sched import Fiber, FiberExit
    program(Fiber, FiberExit)


def interpreter(version: str) -> tuple[str, str]:
    """Return an interpreter of a version that can compile modules, and its headers."""
    places = [f"python{version}", *map(str, sorted(
        Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")))]
    for place in places:
        try:
            found = subprocess.run([place, "-c", FIND], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        if (Path(found.stdout.strip()) / "Python.h").exists():
            return place, found.stdout.strip()
    pytest.skip(f"no Python {version} with headers here")


def build(headers: str, folder: Path) -> None:
    """Compile the extension for other headers."""
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall",
                    "-Wextra", "-Wno-missing-field-initializers", "-Wno-unused-parameter",
                    f"-I{ROOT}", f"-I{headers}", "-o", folder / "_fiber.so", *SOURCES], check=True)


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_other_versions(version: str, tmp_path: Path) -> None:
    """The state that belongs to a stack differs from version to version."""
    python, headers = interpreter(version)
    build(headers, tmp_path)
    found = subprocess.run([python, HERE / "fiber_program.py", tmp_path], capture_output=True,
                           text=True, timeout=120)
    assert (found.returncode, found.stdout) == (0, "all\n"), found.stderr


def test_a_version_that_is_not_supported_says_so(tmp_path: Path) -> None:
    """One line, and no crash."""
    python, headers = interpreter("3.10")
    build(headers, tmp_path)
    found = subprocess.run([python, "-c", "import _fiber"], cwd=tmp_path, capture_output=True,
                           text=True)
    assert found.stderr.splitlines()[-1] == (
        "ImportError: unikit.sched.Fiber supports CPython 3.11, 3.12 and 3.13 with the GIL, x86-64")


class Ring:
    """A seeded program of fibers that switch, throw and end at random."""

    def __init__(self, make: Any, current: Any, exit_: type[BaseException], seed: int) -> None:
        self.make, self.exit = make, exit_
        self.chance = random.Random(seed)
        self.log: list[Any] = []
        self.alive: list[tuple[int, Any]] = [(0, current())]
        self.made = 0

    def run(self, steps: int) -> list[Any]:
        """Return what happened."""
        for _ in range(steps):
            self.step(0)
        return self.log

    def step(self, me: int) -> None:
        """Do one thing, as fiber number ``me``."""
        self.log.append(me)
        if len(self.log) > 3000:
            return
        kind = self.chance.random()
        if kind < 0.3 or len(self.alive) == 1:
            self.made += 1
            fiber = self.make(self.body)
            self.alive.append((self.made, fiber))
            self.guard(lambda: fiber.switch(self.made))
            return
        _, other = self.chance.choice(self.alive)
        if kind < 0.9:
            self.guard(lambda: other.switch(self.chance.randrange(100)))
        else:
            self.guard(lambda: other.throw(KeyError(self.chance.randrange(100))))

    def guard(self, what: Any) -> None:
        """Note what a switch brings back."""
        try:
            value = what()
            self.log.append("exit" if isinstance(value, self.exit) else value)
        except KeyError as error:
            self.log.append(str(error))

    def body(self, me: int) -> int:
        """Live for a while."""
        try:
            for _ in range(self.chance.randrange(8)):
                self.step(me)
            if self.chance.random() < 0.2:
                raise KeyError(me)
            return -me
        finally:
            self.alive = [each for each in self.alive if each[0] != me]


@pytest.mark.parametrize("seed", range(20))
def test_the_same_program_as_with_greenlet(seed: int) -> None:
    """The independent reference, on programs nobody would write."""
    greenlet = pytest.importorskip("greenlet", reason="greenlet is not installed")
    from unikit.sched import Fiber, FiberExit
    ours = Ring(Fiber, Fiber.getcurrent, FiberExit, seed).run(200)
    theirs = Ring(greenlet.greenlet, greenlet.getcurrent, greenlet.GreenletExit, seed).run(200)
    assert ours == theirs
    assert len(ours) > 500


def test_an_interpreter_may_end_while_fibers_are_suspended() -> None:
    """Ends cleanly: in a thread, in a cycle, in a module's globals."""
    code = ("import threading\nfrom unikit.sched import Fiber\n"
            "main = Fiber.getcurrent()\n"
            "def run(): main.switch()\n"
            "def thread():\n"
            "    own = Fiber.getcurrent(); mine = Fiber(lambda: own.switch(mine)); mine.switch()\n"
            "f = [Fiber(run) for _ in range(100)]\n"
            "for each in f: each.switch()\n"
            "t = threading.Thread(target=thread); t.start(); t.join()\n"
            "print('done')\n")
    found = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True,
                           text=True, cwd=ROOT)
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")
