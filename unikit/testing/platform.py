"""``check_platform()``: the conformance suite of platforms, by booting a small image many times."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unikit.errors import GuestExit, ImageError, TimedOut, UnikitError
from unikit.platform.api import FAULTED, PANICKED, STOPPED, BootImage, Machine, Platform
from unikit.testing.report import Failure, NotConforming, Outcome

MEMORY = 4 << 20
_TIMEOUT = 20.0
_SOURCE = Path(__file__).parent / "images" / "platform.c"
_CPUS_SOURCE = _SOURCE.with_name("cpus.c")
_CPUS = 4
_RINGS = 5000
_EINVAL, _EMSGSIZE, _ENOTSUP = -2, -13, -9


def check_platform(platform: Platform | type[Platform], *,
                   only: Sequence[str] = ()) -> Outcome:
    """Check that a platform keeps the contracts of ``env.h`` and :mod:`unikit.platform.api`.

    :param platform: a record with the options to test, or its class for the defaults. Its image
        entry must be registered, so that images can be composed for it.
    :param only: names of single tests; default: all.
    :returns: how much was checked.
    :raises NotConforming: with each behaviour that failed.
    :raises UnikitError: the images of the suite cannot be built here.
    """
    record = platform() if isinstance(platform, type) else platform
    suite = _Suite(record)
    for name, method in inspect.getmembers(suite, inspect.ismethod):
        if name.startswith("check_") and (not only or name.removeprefix("check_") in only):
            suite.run(name.removeprefix("check_"), method)
    if suite.failures:
        raise NotConforming(record.id, suite.failures)
    return Outcome(tests=suite.tests, checks=suite.checks)


class _Suite:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.failures: list[Failure] = []
        self.tests = 0
        self.checks = 0
        self._test = ""
        self._machines: list[Machine] = []
        self.image = self._load("conformance", None)

    def _load(self, name: str, net: str | None) -> BootImage:
        from unikit.image import Image, elf
        image = Image(name, [_SOURCE], net=net, platforms=(self.platform.entry,))
        return elf.load(image.build())

    def run(self, name: str, method: Callable[[], None]) -> None:
        """Run one test; whatever it raises is a failure of the platform."""
        self._test = name.replace("_", " ")
        self.tests += 1
        try:
            method()
        except (UnikitError, OSError, KeyError, IndexError, ValueError) as error:
            self.expect(False, f"{type(error).__name__}: {error}")
        finally:
            for machine in self._machines:
                machine.close()
            self._machines.clear()

    def expect(self, good: object, what: str) -> None:
        """Note a check and, if it failed, where."""
        self.checks += 1
        if not good:
            frame = inspect.currentframe()
            while frame and not frame.f_code.co_name.startswith("check_"):
                frame = frame.f_back
            line = frame.f_lineno if frame else 0
            self.failures.append(Failure(self._test, __file__, line, what))

    def equal(self, seen: object, wanted: object, what: str) -> None:
        self.expect(seen == wanted, f"{what} is {seen!r}, not {wanted!r}")

    def boot(self, command: str, *, image: BootImage | None = None, memory: int = MEMORY,
             options: dict[str, str] | None = None, **more: Any) -> Machine:
        machine = self.platform.boot(image or self.image, memory=memory,
                                     options={**(options or {}), "": command}, **more)
        self._machines.append(machine)
        return machine

    def lines(self, command: str, **more: Any) -> dict[str, list[str]]:
        """Boot, wait for code 0, and return what was printed by first word."""
        machine = self.boot(command, **more)
        self.equal(machine.wait(_TIMEOUT), 0, f"exit code of {command!r}")
        return {line.split(" ")[0]: line.split(" ")[1:] for line in machine.console.lines()}

    def ends(self, command: str, **more: Any) -> GuestExit | None:
        """Boot what must not end by its own exit, and return how it ended."""
        machine = self.boot(command, **more)
        try:
            code = machine.wait(_TIMEOUT)
        except GuestExit as error:
            return error
        self.expect(False, f"{command!r} ended with exit code {code}")
        return None

    def several(self, command: str, cpus: int, **more: Any) -> Machine:
        """Boot the image of several processors, without a scheduler."""
        from unikit.image import Image, elf
        image = elf.load(Image("conformance-cpus", [_CPUS_SOURCE], events=False, cpus=_CPUS,
                               platforms=(self.platform.entry,)).build())
        return self.boot(command, image=image, cpus=cpus, **more)

    def said(self, command: str, cpus: int) -> dict[str, list[list[str]]]:
        """Boot it, wait for code 0, and return the lines by first word."""
        machine = self.several(command, cpus)
        self.equal(machine.wait(_TIMEOUT), 0, f"exit code of {command!r} on {cpus}")
        found: dict[str, list[list[str]]] = {}
        for line in machine.console.lines():
            found.setdefault(line.split(" ")[0], []).append(line.split(" ")[1:])
        return found

    def check_processors(self) -> None:
        if "cpus" not in self.platform.features:
            return
        for cpus in (1, 2, _CPUS):
            seen = self.said("start", cpus)
            self.equal(seen["cpus"], [[str(cpus)] * 2], "the number of processors")
            self.equal(seen["refused"], [["0"]], "results of cpu_start")
            self.equal(seen["good"], [[str(cpus)]], "processors that know which one they are")
            self.equal(seen["again"], [[str(_EINVAL)] * 3], "results of starting the first one, "
                       "one that runs and one that is not there")

    def check_processors_are_woken(self) -> None:
        if "cpus" not in self.platform.features:
            return
        for cpus in (2, _CPUS):  # a wake-up that is lost stops the ball
            rounds = _RINGS // cpus
            seen = self.said(f"ring {rounds}", cpus)
            last = rounds * cpus
            self.equal(seen["sum"], [[str(last * (last - 1) // 2)]], "all that was handed over")

    def check_processors_sleep_by_themselves(self) -> None:
        if "cpus" not in self.platform.features:
            return
        late = self.said("sleep", _CPUS)["late"]
        self.equal(len(late), _CPUS, "processors whose sleep ended")
        for ns, _ in late:
            self.expect(0 <= int(ns) < 10**9, f"a wait of a processor ended {ns} ns late")

    def check_processors_print(self) -> None:
        if "cpus" not in self.platform.features:
            return
        lines = self.said("text", _CPUS)["line"]
        wanted = [[str(cpu), str(i), "abcdefghijklmnopqrstuvwxyz"]
                  for cpu in range(_CPUS) for i in range(50)]
        self.equal(sorted(lines), sorted(wanted), "lines of all processors")

    def check_processors_end_the_image(self) -> None:
        if "cpus" not in self.platform.features:
            return
        self.equal(self.several("exit", 3).wait(_TIMEOUT), 77, "exit code of another processor")
        for command, reason, code in (("panic", "panic", PANICKED), ("null", "fault", FAULTED)):
            machine = self.several(command, 3)
            try:
                machine.wait(_TIMEOUT)
            except GuestExit as end:
                self.equal((end.reason, end.code), (reason, code), f"end by {command}")
                self.equal(end.registers.get("cpu"), 2, f"the processor of {command}")
                self.expect("on processor 2" in str(end), f"no processor in {str(end)!r}")
                self.expect(any("end+" in line or "on_processor+" in line
                                for line in end.backtrace), f"backtrace {end.backtrace}")
            else:
                self.expect(False, f"{command} on another processor did not end the image")

    def check_processors_are_stopped(self) -> None:
        if "cpus" not in self.platform.features:
            return
        for command in ("spin", "stay"):
            machine = self.several(command, _CPUS)
            if command == "spin":
                machine.console.expect("ready", _TIMEOUT)
            began = time.monotonic()
            machine.stop()
            self.expect(time.monotonic() - began < 2, f"stopping {command} took seconds")
            self.equal(machine.wait(_TIMEOUT), STOPPED, "exit code of what was stopped")

    def check_exit_codes(self) -> None:
        for code in (0, 1, 2, 77, 134, 139, 255):
            self.equal(self.boot(f"exit {code}").wait(_TIMEOUT), code, "exit code")

    def check_environment(self) -> None:
        seen = self.lines("facts")
        self.equal(seen["entropy"][0], "0", "result of entropy")
        self.equal(seen["platform"], [self.platform.entry], "env->platform")
        self.expect(int(seen["cpus"][0]) >= 1, "env->cpus is 0")
        self.equal(seen["network"], ["0"], "env->network != NULL without a network")
        self.equal(seen["bss"], ["0"], "sum of uninitialised variables")
        self.equal(seen["start"], ["1"], "start_ns <= now_ns")
        self.expect(int(seen["cpu_start"][0]) in (_EINVAL, _ENOTSUP),
                    "cpu_start of a processor that is not there was not refused")

    def check_entropy_differs(self) -> None:
        runs = [self.lines("facts")["entropy"][1] for _ in range(3)]
        self.equal(len(set(runs)), 3, "different random words of three boots")

    def check_boot_options(self) -> None:
        options = {"net.mini.address": "10.0.0.2/24", "test.empty": ""}
        seen = self.lines("facts", options=options)
        self.equal(seen["option"], ["10.0.0.2/24", "-"], "a given and a missing option")
        self.equal(seen["empty"], ["[]"], "an empty option")
        for text in ("plain words", "  two  blanks ", "a=b c", "ünïkit", "-- x"):
            machine = self.boot("say " + text)
            machine.wait(_TIMEOUT)
            self.equal(machine.console.text, f"argument say {text}\n", "the argument string")

    def check_memory(self) -> None:
        sizes = {}
        for size in (1 << 20, 4 << 20, 9 << 20):
            seen = self.lines("memory", memory=size)
            sizes[size] = heap = int(seen["heap"][0])
            self.expect(size // 2 <= heap < size, f"{heap} bytes of heap with {size} in all")
            self.equal(seen["aligned"], ["1", "1"], "page alignment of the heap")
            self.equal(seen["dirty"], ["0"], "pages that are not zeroed")
            self.equal(seen["end"], ["1"], "what was written into the last byte")
        self.expect(sorted(sizes.values()) == list(sizes.values()), "more memory is not more heap")

    def check_too_little_memory(self) -> None:
        try:
            self.boot("exit 0", memory=8192)
        except ImageError as error:
            self.expect("8192" in str(error) or "8 K" in str(error) or "memory" in str(error),
                        f"the message does not speak of memory: {error}")
        else:
            self.expect(False, "8192 bytes of memory were accepted")

    def check_foreign_image(self) -> None:
        image = self.image
        other = BootImage(image.path, image.segments, {"elsewhere": 0x100000}, image.plan)
        try:
            self.boot("exit 0", image=other)
        except ImageError:
            self.expect(True, "")
        else:
            self.expect(False, "an image without this platform's entry was booted")

    def check_clock(self) -> None:
        before = time.time_ns()
        seen = self.lines("clocks")
        wall = int(seen["wall"][0])
        self.expect(wall == 0 or abs(wall - before) < 10 * 10**9,
                    f"wall clock is {(wall - before) / 1e9:+.3f} s off the host's")
        self.equal(seen["backward"], ["0"], "steps backward of the clock")

    def check_wait_deadline(self) -> None:
        seen = self.lines("clocks")
        self.equal(seen["woken"], ["0"], "what ended a wait for nothing")
        self.expect(0 <= int(seen["late"][0]) < 10**9, f"a wait ended {seen['late'][0]} ns late")
        self.expect(int(seen["past"][0]) < 10**9, "a wait for the past slept")

    def check_pages(self) -> None:
        seen = self.lines("pages")
        code = int(seen["release"][0])
        self.expect(code in (0, _ENOTSUP), f"page_release returned {code}")
        if code == 0:
            self.equal(seen["release"][1:], ["0", "2"], "a released page and the next one")
        self.expect(set(seen["odd"]) <= {str(_EINVAL), str(_ENOTSUP)}, "partial pages not refused")
        self.expect(set(seen["outside"]) <= {str(_EINVAL), str(_ENOTSUP)},
                    "pages outside of the heap not refused")
        self.expect(int(seen["executable"][0]) in (_EINVAL, _ENOTSUP),
                    "executable pages not refused")
        self.equal(seen["writable"][1], "7", "a page made writable again")
        if int(seen["protect"][0]) == 0:
            for kind in ("write", "none"):
                end = self.ends(f"pages {kind}")
                self.equal(end and end.reason, "fault", f"end after {kind} on a protected page")

    def check_panic(self) -> None:
        end = self.ends("panic")
        if end is None:
            return
        self.equal((end.reason, end.code), ("panic", PANICKED), "reason and code of a panic")
        self.expect("the panic that was asked for" in str(end), f"no panic text in {str(end)!r}")
        self.expect(end.registers.get("rip", 0) >= 0x100000, "no rip in the registers")
        self.expect(end.backtrace, "no backtrace")

    def check_faults(self) -> None:
        for kind in ("null", "code", "constants", "data", "heap", "invalid", "privileged"):
            end = self.ends(f"fault {kind}")
            if end is not None:
                self.equal((end.reason, end.code), ("fault", FAULTED), f"end of fault {kind}")
                self.expect(end.registers.get("rip"), f"no rip after fault {kind}")

    def check_console_output(self) -> None:
        got: list[bytes] = []
        machine = self.boot("flood", sink=got.append)
        self.equal(machine.wait(_TIMEOUT), 0, "exit code")
        wanted = "".join(f"{number:07d}\n" for number in range(12_500)) + "argument flood\n"
        self.expect(machine.console.text == wanted,
                    f"100000 bytes of output did not arrive as written "
                    f"({len(machine.console.text)} bytes did)")
        self.expect(b"".join(got).decode() == wanted, "the sink did not get all output")

    def check_failing_sink(self) -> None:
        def broken(_data: bytes) -> None:
            raise BrokenPipeError("the suite's own")

        machine = self.boot("say something", sink=broken)
        self.equal(machine.wait(_TIMEOUT), 0, "exit code with a sink that raises")
        self.expect("something" in machine.console.text, "output is lost when a sink raises")

    def check_console_input(self) -> None:
        machine = self.boot("echo")
        machine.console.expect("ready", _TIMEOUT)
        for text in ("one\n", "two words\n", "x" * 300 + "\n"):
            self.equal(machine.console.write(text), len(text), "bytes of input taken")
            machine.console.expect(text, _TIMEOUT)
        machine.console.write(".\n")
        self.equal(machine.wait(_TIMEOUT), 0, "exit code")
        try:
            machine.console.expect("never printed", _TIMEOUT)
        except TimedOut as error:
            self.expect("ended" in str(error), "expect() does not say that the machine ended")

    def check_stop(self) -> None:
        for command in ("idle", "spin"):
            machine = self.boot(command)
            machine.console.expect("ready", _TIMEOUT)
            self.expect(machine.running, f"{command} is not running")
            try:
                machine.wait(0.01)
                self.expect(False, f"wait() for {command} did not time out")
            except TimedOut:
                self.expect(True, "")
            began = time.monotonic()
            machine.stop()
            self.expect(time.monotonic() - began < 2, f"stopping {command} took seconds")
            machine.stop()
            self.expect(not machine.running, f"{command} runs after stop()")
            self.equal(machine.wait(_TIMEOUT), STOPPED, "exit code of what was stopped")
        machine = self.boot("exit 5")
        machine.wait(_TIMEOUT)
        machine.stop()
        self.equal(machine.wait(_TIMEOUT), 5, "exit code after a late stop()")

    def check_statistics(self) -> None:
        machine = self.boot("idle")
        machine.console.expect("ready", _TIMEOUT)
        running = machine.stats()
        machine.stop()
        for stats in (running, machine.stats()):
            self.expect(stats and all(isinstance(name, str) for name in stats), "no statistics")
            wrong = [name for name, value in stats.items()
                     if not isinstance(value, int | float | str)]
            self.expect(not wrong, f"statistics that are neither number nor text: {wrong}")

    def check_names(self) -> None:
        self.equal(self.boot("exit 0", name="mine").name, "mine", "the name that was given")
        first, second = self.boot("exit 0"), self.boot("exit 0")
        self.expect(first.name and first.name != second.name, "made-up names are not unique")

    def check_many_at_once(self) -> None:
        machines = [self.boot(f"say {number}") for number in range(5)]
        for number, machine in enumerate(machines):
            self.equal(machine.wait(_TIMEOUT), 0, "exit code")
            self.equal(machine.console.text, f"argument say {number}\n", "output of one of five")

    def check_nothing_is_left(self) -> None:
        def world() -> tuple[int, int]:
            return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

        with self.platform.boot(self.image, memory=MEMORY, options={"": "exit"}) as machine:
            machine.wait(_TIMEOUT)
        before = world()
        for command in ("exit", "panic", "idle", "spin"):
            machine = self.platform.boot(self.image, memory=MEMORY, options={"": command})
            machine.close()
            machine.close()
        files, threads = world()
        self.expect(files <= before[0], f"{files - before[0]} descriptors stay open")
        self.expect(threads <= before[1], f"{threads - before[1]} threads stay")

    def check_network(self) -> None:
        from unikit.net.netif.host import socket_pair
        image = self._load("conformance-net", "mini")
        inner, outer = socket_pair(mtu=1400)
        with inner, outer:
            machine = self.boot("frames", image=image, netif=inner)
            machine.console.expect("ready", _TIMEOUT)
            seen = {line.split(" ")[0]: line.split(" ")[1:] for line in machine.console.lines()}
            self.equal(seen["mac"], [inner.mac.hex(), "mtu", "1400"], "MAC address and MTU")
            self.equal(seen["configure"], ["0", str(_EINVAL)], "results of configure")
            self.equal(seen["sizes"], [str(_EMSGSIZE)] * 2, "results for 13 and mtu + 15 bytes")
            self.equal(seen["none"], ["0"], "receive_packet without a frame")
            while outer.receive() is not None:
                continue  # what the stack said when it came up
            frames = [_frame(inner.mac, size, number) for number, size in
                      enumerate((14, 15, 60, 64, 1000, 1413, 1414, *([100] * 50)))]
            for frame in frames:
                outer.send(frame)
            got = list(_receive(outer, len(frames)))
            self.expect(got == frames, f"{len(frames)} frames did not come back as sent: "
                                       f"{len(got)} came")
            machine.close()
            self.expect(inner.mac, "the interface was closed with the machine")


def _frame(mac: bytes, size: int, number: int) -> bytes:
    """Return a frame of an experimental EtherType (IEEE 802, 0x88b5) that no stack answers."""
    return (mac + b"\x02\1\1\1\1\1\x88\xb5" + bytes([number]) * 1500)[:size]


def _receive(interface: Any, count: int) -> Iterator[bytes]:
    end = time.monotonic() + _TIMEOUT
    while count and time.monotonic() < end:
        frame = interface.receive()
        if frame is None:
            time.sleep(0.001)
        elif frame[12:14] == b"\x88\xb5" or len(frame) < 14:
            count -= 1
            yield frame


__all__ = ["check_platform"]
