"""A running guest: its console pump, its end and its numbers. The work is done in ``vmm/``."""

from __future__ import annotations

import _thread
import itertools
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from unikit.errors import GuestExit, ImageError, PlatformError, TimedOut
from unikit.ffi import load
from unikit.platform.api import (
    BROKE_DEVICE,
    FAULTED,
    PANICKED,
    STOPPED,
    BootImage,
    Console,
    Machine,
)
from unikit.platform.kvm import explain
from unikit.platform.kvm import report as words
from unikit.platform.stack import overflowed, printable

_CHUNK = 1 << 14
_ECLOSED = -4
_PAGE_FAULT = 14
_REFUSED_IMAGE = 2
_EXITED, _STOPPED, _PANICKED, _FAULTED, _BROKE_DEVICE, _FAILED = range(1, 7)
_numbers = itertools.count(1)
_COUNTERS = {
    "exits_idle": "exits_idle", "exits_kick": "exits_kick", "exits_pages": "exits_pages",
    "exits_interrupted": "exits_interrupted", "exits_slice": "exits_slice",
    "upcalls": "upcalls", "frames_out": "frames_sent", "frames_in": "frames_received",
    "bytes_out": "bytes_sent", "bytes_in": "bytes_received",
    "frames_dropped": "frames_dropped", "console_bytes": "console_bytes",
    "console_bytes_dropped": "console_dropped", "engagements": "engagements",
    "served_turns": "served_turns", "cpu_ns": "cpu_ns", "device_cpu_ns": "device_cpu_ns",
    "resident_bytes": "resident", "cpus": "cpus",
}


class KvmMachine(Machine):
    """A guest on /dev/kvm. Thread safe.

    A thread of the monitor runs each processor; a thread here carries console output to the
    sinks, and learns of the end.
    """

    def __init__(self, image: BootImage, *, memory: int, netif: Any = None,
                 options: Mapping[str, str], name: str = "",
                 sink: Callable[[bytes], object] | None = None, huge_pages: bool = False,
                 cpus: int = 1) -> None:
        if "kvm" not in image.entries:
            raise ImageError(f"{image.path} has no entry for kvm; build it with --for kvm")
        self.image = image
        self.name = name or f"{image.plan.get('name', image.path.stem)}-{next(_numbers)}"
        self.netif = netif
        self.console = Console(self._send)
        if sink is not None:
            self.console.attach(sink)
        self._ffi, self._lib = load.extension("unikit.platform.kvm._vmm")
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pump_thread = 0
        self._began_ns = time.monotonic_ns()
        self._final: dict[str, int | float | str] | None = None
        self._users: list[str] = getattr(netif, "users", [])
        self._boot(memory, options, huge_pages, cpus)
        self._users.append(self.name)

    def _boot(self, memory: int, options: Mapping[str, str], huge_pages: bool, cpus: int) -> None:
        ffi, lib = self._ffi, self._lib
        pieces = [(each.address, ffi.from_buffer("uint8_t[]", each.data), len(each.data),
                   each.size, each.writable | each.executable << 1)
                  for each in self.image.segments]
        segments = ffi.new("struct kit_kvm_segment[]", pieces)
        text = b"".join(f"{key}\0{value}\0".encode() for key, value in options.items())
        packed = ffi.new("char[]", text)
        config = ffi.new("struct kit_kvm_config *", {
            "segments": segments, "segment_count": len(pieces),
            "entry": self.image.entries["kvm"], "memory": memory, "options": packed,
            "options_bytes": len(text), "huge_pages": huge_pages, "cpus": cpus})
        if self.netif is not None:
            config.netif = ffi.cast("struct kit_host_netif *",
                                    int(ffi.cast("uintptr_t", _pointer(self.netif))))
        refused = ffi.new("struct kit_kvm_refused *")
        self._vm = lib.kit_kvm_new()
        if self._vm == ffi.NULL:
            raise MemoryError("no memory for a machine")
        # The reader starts while the machine is made, and waits for output before there is any;
        # a plain thread, because threading.Thread waits for it to be up.
        _thread.start_new_thread(self._pump, ())
        if lib.kit_kvm_boot(self._vm, config, refused) != 0:
            self._ended.wait()
            lib.kit_kvm_close(self._vm)
            self._vm = None
            why = explain(ffi, refused)
            if refused.kind == _REFUSED_IMAGE:
                raise ImageError(f"{self.image.path} does not boot: {why}")
            raise PlatformError(f"cannot boot {self.image.path} on kvm: {why}")

    def _pump(self) -> None:
        """Carry output to the console until the guest has ended and everything is out."""
        self._pump_thread = threading.get_ident()
        buffer = self._ffi.new("char[]", _CHUNK)
        while (count := self._lib.kit_kvm_read(self._vm, buffer, _CHUNK, -1)) >= 0:
            if count:
                self.console.feed(self._ffi.buffer(buffer, count)[:])
        self._report = self._ffi.new("struct kit_kvm_report *")
        self._lib.kit_kvm_report(self._vm, self._report)
        self._run_ns = time.monotonic_ns() - self._began_ns
        self.console.end()
        self._ended.set()

    def _send(self, data: bytes) -> int:
        with self._lock:
            if self._vm is None:
                return 0
            return int(self._lib.kit_kvm_input(self._vm, data, len(data)))

    @property
    def running(self) -> bool:
        """Whether the guest has not ended yet."""
        return not self._ended.is_set()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; see :meth:`unikit.platform.api.Machine.wait`."""
        if not self._ended.wait(timeout):
            raise TimedOut(f"{self.name} still runs after {timeout:g} s")
        report = self._report
        text = printable(self._ffi.string(report.text).decode(errors="replace"), 1000)
        where = words.processor(self.image, report)
        if report.end == _EXITED:
            return int(report.code)
        if report.end == _STOPPED:
            return STOPPED
        if report.end == _PANICKED:
            raise self._failure(f"panicked{where}: {text}", "panic", PANICKED)
        if report.end == _FAULTED:
            said = self._overflow(report) + words.fault(self.image, self._layout(), report)
            place = self.image.symbolise(report.registers[16])
            raise self._failure(f"faulted{where}: {said}, in {place} (vector {report.vector})",
                                "fault", FAULTED)
        if report.end == _BROKE_DEVICE:
            raise self._failure(f"broke a device contract: {text}", "device", BROKE_DEVICE)
        raise self._failure(f"cannot run on: {text}; {os.strerror(report.code)}", "killed", 1)

    def _failure(self, what: str, reason: str, code: int) -> GuestExit:
        report = self._report
        addresses = [int(report.frames[i]) for i in range(report.frame_count)]
        return GuestExit(f"{self.name} {what}", reason=reason, code=code,
                         registers={name: int(report.registers[i])
                                   for i, name in enumerate(words.REGISTERS)}
                         | {"cr2": int(report.cr2), "cpu": int(report.cpu)},
                         backtrace=words.frames(self.image, addresses),
                         console=self.console.lines(20))

    def _overflow(self, report: Any) -> str:
        """Return words for a fault in the guard page of a task's stack, or nothing."""
        layout = self._layout()
        heap_end = layout.heap_base + layout.heap_size
        if report.vector != _PAGE_FAULT or not layout.heap_base <= report.cr2 < heap_end:
            return ""
        task = overflowed(report.cr2, heap_end, self._peek)
        return f"stack overflow in task '{task}': " if task else ""

    def _peek(self, address: int, size: int) -> bytes:
        buffer = self._ffi.new("char[]", size)
        with self._lock:
            if self._vm is None:
                return b""
            got = int(self._lib.kit_kvm_peek(self._vm, address, buffer, size))
        return bytes(self._ffi.buffer(buffer, got))

    def memory(self) -> bytes:
        """Return a copy of the heap; pages that the guest never touched are zeros.

        :raises PlatformError: the machine is closed.
        """
        layout = self._layout()
        base, size = int(layout.heap_base), int(layout.heap_size)
        buffer = self._ffi.new("char[]", size)
        with self._lock:
            if self._vm is None:
                raise PlatformError(f"{self.name} is closed, its memory is gone")
            got = int(self._lib.kit_kvm_dump(self._vm, base, buffer, size))
        if got < size:
            raise PlatformError(f"{self.name}: only {got} of {size} bytes of its heap can be read")
        return bytes(self._ffi.buffer(buffer, size))

    def _layout(self) -> Any:
        if self._final_layout is None:
            layout = self._ffi.new("struct kit_kvm_layout *")
            self._lib.kit_kvm_layout(self._vm, layout)
            self._final_layout = layout
        return self._final_layout

    _final_layout: Any = None

    def stop(self) -> None:
        """End the guest now, wherever it is."""
        with self._lock:
            if self._vm is None or self._ended.is_set():
                return
            self._lib.kit_kvm_stop(self._vm)
        if threading.get_ident() != self._pump_thread:  # a sink may stop its machine
            self._ended.wait()

    def stats(self) -> dict[str, int | float | str]:
        """Return counters: exits by kind, frames, bytes, memory, processor time.

        ``first_output_us``: from the call that made the machine to the first byte of output;
        ``entry_to_image_us`` and ``entry_to_output_us``: from the guest's first instruction, by
        its time stamp counter.
        """
        with self._lock:
            if self._vm is None:
                return dict(self._final or {})
            raw = self._ffi.new("struct kit_kvm_stats *")
            self._lib.kit_kvm_stats(self._vm, raw)
        found: dict[str, int | float | str] = {"platform": "kvm"}
        found["run_ns"] = time.monotonic_ns() - self._began_ns if self.running else self._run_ns
        found |= {name: int(getattr(raw, field)) for name, field in _COUNTERS.items()}
        if raw.first_output_ns:
            found["first_output_us"] = (raw.first_output_ns - raw.boot_ns) / 1000
        if raw.tsc_hz:
            found["entry_to_image_us"] = raw.entry_to_main_tsc * 1e6 / raw.tsc_hz
            found["entry_to_output_us"] = raw.entry_to_output_tsc * 1e6 / raw.tsc_hz
        return found

    def close(self) -> None:
        """Stop the guest and free everything; idempotent.

        :raises PlatformError: called by a sink of this machine, which still runs then.
        """
        if threading.get_ident() == self._pump_thread and self.running:
            raise PlatformError(f"a sink of {self.name} cannot close it; it may stop it")
        self.stop()
        if self._vm is not None:
            self._layout()
            self._final = self.stats()
            with self._lock:
                vm, self._vm = self._vm, None
            self._lib.kit_kvm_close(vm)
            self._users.remove(self.name)
        self.release()

    def __del__(self) -> None:
        if getattr(self, "_vm", None) is not None:
            warnings.warn(f"{self.name} was never closed", ResourceWarning, stacklevel=2)


def _pointer(netif: Any) -> Any:
    """Return the C side of an open host interface.

    :raises PlatformError: it has none.
    """
    find = getattr(netif, "_open", None)
    if find is None:
        raise PlatformError(f"{netif!r} is no open host interface; open a record first: "
                            "Tap(...).open()")
    return find()
