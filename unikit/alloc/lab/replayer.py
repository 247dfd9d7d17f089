"""Replay a trace against an allocator: how long, how much memory, how bad the worst operation."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from unikit import registry
from unikit.alloc.lab import build
from unikit.alloc.lab.trace import _FORMATS, _TYPES, Op, Trace
from unikit.component import parse_size
from unikit.errors import InvalidArgument, ToolchainError
from unikit.ffi import load

if TYPE_CHECKING:
    from unikit.alloc.api import Allocator

Touch = Literal["none", "first", "pages", "all"]
TOUCHES: dict[str, int] = {"none": 0, "first": 1, "pages": 2, "all": 3}
PAGES = {"small": 0, "huge": 1}


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """How long single operations took, in cycles of the time stamp counter.

    Each operation counts with its least over all rounds, measuring itself included.

    :ivar count: operations.
    """

    count: int
    p50: int
    p90: int
    p99: int
    p999: int
    p9999: int
    max: int


class Sample(NamedTuple):
    """The heap after some operations.

    :ivar done: how many.
    :ivar requested: bytes asked for and not freed.
    :ivar used: bytes of the heap taken, as the allocator says.
    :ivar touched: bytes of the region that the kernel had to back with memory.
    """

    done: int
    requested: int
    used: int
    touched: int


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a replay showed. A number that a place cannot tell is 0.

    :ivar allocator: id, or ids from the outside in: ``alloc.tlsf``, ``alloc.guard,alloc.tlsf``;
        with a preload library its name.
    :ivar where: ``process``, ``image`` or ``preload``.
    :ivar operations: carried out in one replay; equal on every allocator and in every place.
    :ivar allocations: of these, new blocks.
    :ivar reallocations: changes of size.
    :ivar frees: blocks given back.
    :ivar failures: requests that were refused.
    :ivar ns: least duration of a replay on memory that was never touched.
    :ivar warm_ns: the same on memory whose pages are there.
    :ivar warm_cycles: the same in cycles.
    :ivar give: latency of what gives memory: alloc, zeroed, realloc.
    :ivar take: latency of free.
    :ivar empty: cycles of measuring nothing, part of every latency.
    :ivar peak_requested: most bytes asked for and not freed.
    :ivar peak_used: most bytes the allocator had given out, rounding and padding included.
    :ivar peak_touched: most bytes the kernel had to back; preload: peak resident size.
    :ivar region: bytes the allocator had at its disposal.
    :ivar threads: threads of the trace.
    :ivar parallel: whether they were real threads.
    :ivar samples: the heap over time.
    """

    allocator: str
    where: str
    operations: int
    allocations: int
    reallocations: int
    frees: int
    failures: int
    ns: int
    warm_ns: int
    warm_cycles: int
    give: Latency
    take: Latency
    empty: int
    peak_requested: int
    peak_used: int
    peak_touched: int
    region: int
    threads: int
    parallel: bool
    samples: tuple[Sample, ...] = ()

    @property
    def ns_per_operation(self) -> float:
        """Duration on fresh memory per operation."""
        return self.ns / self.operations if self.operations else 0.0

    @property
    def overhead(self) -> float:
        """Peak memory touched as a multiple of the peak requested; 0: unknown."""
        return self.peak_touched / self.peak_requested if self.peak_requested else 0.0

    def fragmentation(self) -> list[tuple[int, float]]:
        """Return (operations done, part of the memory taken that holds no requested byte).

        Taken is what the allocator has given out or what the kernel had to back, the larger.
        """
        return [(each.done, 1 - each.requested / (max(each.used, each.touched) or 1))
                for each in self.samples if each.requested]


class Program(NamedTuple):
    """A trace made ready for replaying: operations of 16 bytes, as in ``replay.h``."""

    ops: Any
    operations: int
    slots: int
    starts: Any


def program(trace: Trace, *, parallel: bool = False) -> Program:
    """Make a trace ready: in one order, or per thread."""
    ffi, lib = load.extension("unikit.alloc.lab._lab")
    ops = ffi.new("struct kit_replay_op[]", len(trace) or 1)
    threads = max(1, len(trace.threads))
    starts = ffi.new("uint64_t[]", threads + 1) if parallel else ffi.NULL
    slots = ffi.new("uint32_t *")
    form = f"{_TYPES[_FORMATS['align']]}[]"
    with trace._pinned() as columns, ffi.from_buffer(form, trace.columns.align) as align:
        count = load.check(lib.kit_replay_compile(columns, align, threads, ops, starts, slots),
                           "making a trace ready")
    return Program(ops, count, int(slots[0]), starts)


def replay(trace: Trace, allocator: Allocator | str, *, rounds: int = 3, latency_rounds: int = 5,
           samples: int = 200, touch: Touch = "first", parallel: bool = False,
           memory: int | str = 0, pages: Literal["small", "huge"] = "small",
           direct: bool = True) -> Result:
    """Replay a trace in this process.

    The loop is in C and bound to the component at compile time where there is a compiler. The
    calling thread is busy until the end; other Python threads run.

    :param allocator: a record (``Tlsf()``, ``Guard(Tlsf())``) or names from the outside in.
    :param rounds: timed replays on fresh memory, and again as many on used memory; the least
        counts.
    :param latency_rounds: replays in which each operation is timed; 0: no latencies.
    :param samples: how often to look at the heap, in a replay of its own; 0: never.
    :param touch: what is written into a new block: ``none``, ``first`` (a byte), ``pages`` (a byte
        in each) or ``all``.
    :param parallel: real threads, waiting for each other's blocks, instead of the recorded order;
        no latencies and samples then.
    :param memory: bytes of the region; 0: four times what the program needed, and 64 MiB.
    :param pages: of the region: small ones, or huge ones where the kernel has some.
    :param direct: compile a replayer for this component; ``False``: call through its table.
    :raises Panic: the allocator found a broken contract.
    :raises OutOfMemory: the region is too small for the allocator, or there is no such region.
    :raises NotFound: it has no C source; see :func:`unikit.alloc.lab.simulate`.
    """
    record = _record(allocator)
    if touch not in TOUCHES or pages not in PAGES or rounds < 1:
        raise InvalidArgument(f"replaying with touch={touch!r}, pages={pages!r}, rounds={rounds}: "
                              f"touch is one of {', '.join(TOUCHES)}, pages one of "
                              f"{', '.join(PAGES)}, rounds above 0")
    ffi, lib = load.extension("unikit.alloc.lab._lab")
    ready = program(trace, parallel=parallel)
    layers = record.layers()
    choices, held = load.choices(layers)
    region = region_size(trace, memory)
    threads = max(1, len(trace.threads))
    setup = ffi.new("struct kit_replay_setup *", {
        "choices": choices, "choice_count": len(layers), "ops": ready.ops,
        "op_count": ready.operations, "starts": ready.starts, "slots": ready.slots,
        "threads": threads, "memory": region, "features": _bits(record),
        "touch": TOUCHES[touch], "huge": PAGES[pages], "rounds": rounds,
        "latency_rounds": latency_rounds, "samples": samples})
    kind: Any = type(record)
    moments = ffi.new("struct kit_replay_sample[]", samples or 1)
    out = ffi.new("struct kit_replay_outcome *")
    run = _direct(kind) if direct and len(layers) == 1 else lib.kit_replay_run
    code = run(setup, moments, out)
    del held
    load.check(code, f"replaying {len(trace)} events on {layers[out.refused].id} in {region} bytes")
    return Result(
        allocator=",".join(each.id for each in layers), where="process", **_counts(out.counts),
        ns=out.cold_ns, warm_ns=out.warm_ns, warm_cycles=out.warm_ticks,
        give=_latency(out.give), take=_latency(out.take), empty=out.empty,
        peak_requested=out.peak_requested or trace.summary().peak_bytes,
        peak_used=out.peak_used, peak_touched=out.peak_touched, region=region, threads=threads,
        parallel=parallel,
        samples=tuple(Sample(each.index, each.requested, each.used, each.touched)
                      for each in moments[0:out.sampled]))


def region_size(trace: Trace, memory: int | str = 0) -> int:
    """Return how many bytes a replay gives its allocator, whole pages.

    :raises InvalidArgument: ``memory`` is no size.
    """
    try:
        wanted = parse_size(memory)
    except ValueError as error:
        raise InvalidArgument(f"replaying in {memory}: {error}") from None
    if not wanted:
        wanted = 4 * trace.summary().peak_bytes + (64 << 20)
    return -(-wanted // 4096) * 4096


def _record(allocator: Allocator | str) -> Allocator:
    if not isinstance(allocator, str):
        return allocator
    made: Any = None
    for name in reversed(allocator.split(",")):
        kind = registry.find(name, "alloc")
        made = kind() if made is None else kind(made)
    record: Allocator = made
    return record


def _bits(record: Allocator) -> int:
    """Return a record's features as the bits of ``alloc.h``."""
    bits = 0
    for name in record.features:
        bits |= int(getattr(load.abi()[1], f"KIT_ALLOC_{name.upper()}", 0))
    return bits


def _counts(counts: Any) -> dict[str, int]:
    done = [int(each) for each in counts.operations]
    return {"operations": sum(done), "allocations": done[Op.ALLOC] + done[Op.ZEROED],
            "reallocations": done[Op.REALLOC], "frees": done[Op.FREE] + done[Op.SIZED_FREE],
            "failures": int(counts.failures)}


def _latency(found: Any) -> Latency:
    return Latency(*(int(getattr(found, field.name)) for field in dataclasses.fields(Latency)))


@cache
def _direct(kind: Any) -> Any:
    """Return ``kit_replay_run`` bound to one component, or through the table without a compiler."""
    import ctypes
    import logging
    ffi, lib = load.extension("unikit.alloc.lab._lab")
    root = Path(build.HERE).parents[2]
    try:
        path = build.library(
            f"replay-{kind.stem()}",
            [build.HERE / "host_replay.c", *kind.source_files(), root / "unikit/rt/host.c"],
            defines=[f"KIT_SOLE_ALLOC={kind.symbol()}"], includes=[kind.folder()],
            flags=("-flto", "-Wl,-Bsymbolic"))
    except ToolchainError as error:
        logging.getLogger(__name__).warning("replaying %s through its table: %s", kind.id, error)
        return lib.kit_replay_run
    library = ctypes.CDLL(str(path))
    address = ctypes.cast(library.kit_replay_run, ctypes.c_void_p).value
    bind = ctypes.cast(library.kit_replay_bind, ctypes.c_void_p).value
    ffi.cast("void(*)(const void *)", bind)(load.abi()[1].kit_abi_hooks())
    return ffi.cast("int(*)(const struct kit_replay_setup *, struct kit_replay_sample *, "
                    "struct kit_replay_outcome *)", address)
