"""Replays inside an image, on any platform."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unikit import cache
from unikit.alloc.lab import build
from unikit.alloc.lab.replayer import (
    TOUCHES,
    Latency,
    Result,
    Touch,
    _record,
    program,
    region_size,
)
from unikit.alloc.lab.trace import Op, Trace
from unikit.errors import Malformed, PlatformError
from unikit.ffi import load

if TYPE_CHECKING:
    from unikit.alloc.api import Allocator

_NOTHING = Latency(0, 0, 0, 0, 0, 0, 0)


def _pack(trace: Trace, path: Path) -> tuple[int, int]:
    """Write a trace made ready for replaying; return how many operations and slots it has."""
    ffi, _ = load.extension("unikit.alloc.lab._lab")
    ready = program(trace)
    head = ffi.new("struct kit_replay_program *", {
        "magic": 0x4C50524B, "slots": ready.slots, "count": ready.operations})
    body = ffi.buffer(ready.ops, ready.operations * ffi.sizeof("struct kit_replay_op"))
    cache.write(path, ffi.buffer(head)[:] + body[:])
    return ready.operations, ready.slots


def replay_in_image(trace: Trace, allocator: Allocator | str, *, platform: str = "linux",
                    rounds: int = 3, latency_rounds: int = 5, touch: Touch = "first",
                    memory: int | str = 0, timeout: float = 600.0) -> Result:
    """Replay a trace inside an image that has this allocator, in the recorded order.

    The trace is packed into the image; its heap is all memory that is left. A round begins when
    everything of the one before is freed; the first one is that on fresh memory.

    :param platform: ``linux``, ``kvm`` ...
    :param memory: bytes for the heap; 0: as for :func:`unikit.alloc.lab.replay`.
    :param timeout: seconds until the image is given up.
    :raises PlatformError: the image did not come to its end; the message has its last lines.
    """
    from unikit.image import Image
    record = _record(allocator)
    region = region_size(trace, memory)
    with tempfile.TemporaryDirectory() as name:
        count, slots = _pack(trace, Path(name) / "trace")
        flags = [f"-DKIT_GUEST_{key}={value}" for key, value in {
            "SLOTS": max(slots, 1), "OPS": max(count, 1), "ROUNDS": rounds,
            "LATENCY": latency_rounds, "TOUCH": TOUCHES[touch]}.items()]
        image = Image("replay", sources=[build.HERE / "guest.c"], alloc=record, files=name,
                      platforms=[platform], events=False, flags=flags)
        tables = 16 * count + 16 * slots + 4 * count + (1 << 20)
        with image.boot(platform, memory=region + tables + (4 << 20)) as machine:
            code = machine.wait(timeout)
            text = machine.console.text
    if code != 0 or "replay.end" not in text:
        raise PlatformError(f"the replay in an image on {platform} ended with {code}: "
                            f"{text[-300:].strip() or 'it said nothing'}")
    layers = ",".join(each.id for each in record.layers())
    return _parse(text, trace, layers, f"image on {platform}", region)


def _parse(text: str, trace: Trace, allocator: str, where: str, region: int) -> Result:
    """Return what the image said on its console."""
    rows: dict[str, list[list[int]]] = {}
    for line in text.splitlines():
        at = line.find("replay.")
        if at >= 0:
            key, *words = line[at + 7:].split()
            rows.setdefault(key, []).append([int(word) for word in words])
    try:
        done = {op: number for op, number in rows["count"]}
        cold, warm, cycles = rows["time"][0]
        used, capacity = rows["memory"][0]
        return Result(
            allocator=allocator, where=where, operations=sum(done.values()),
            allocations=done[Op.ALLOC] + done[Op.ZEROED], reallocations=done[Op.REALLOC],
            frees=done[Op.FREE] + done[Op.SIZED_FREE], failures=rows["failures"][0][0], ns=cold,
            warm_ns=warm, warm_cycles=cycles, give=_latency(rows, "give"),
            take=_latency(rows, "take"), empty=rows.get("empty", [[0]])[0][0],
            peak_requested=trace.summary().peak_bytes, peak_used=used,
            peak_touched=0, region=capacity,
            threads=max(1, len(trace.threads)), parallel=False)
    except (KeyError, ValueError, IndexError) as error:
        raise Malformed(f"the replay in an {where} said something else: {text[-200:]!r}") from error


def _latency(rows: dict[str, Any], name: str) -> Latency:
    return Latency(*rows[name][0]) if name in rows else _NOTHING
