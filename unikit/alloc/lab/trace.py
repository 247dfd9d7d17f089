"""Allocation traces: what a program asked of its allocator, when, from which thread and where.

The format is described in ``trace.h`` and in the documentation («The trace format»).
"""

from __future__ import annotations

import dataclasses
import enum
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unikit.alloc.lab import symbols
from unikit.errors import InvalidArgument, Malformed, NotFound, OutOfMemory
from unikit.ffi import load

NO_BLOCK = 0xFFFFFFFF
"""The block of an event that has none."""

_HEADER = struct.Struct("<8sIIIIQQQQQIIII")
_CHUNK = struct.Struct("<IIIIIIQ")
_PAGE, _TEXT, _MAGIC = 4096, 3968, 0x4B48434B
_BLOCKS, _ATTACHED, _CUT = 1, 2, 4
_MODULES, _SYMBOLS, _END = 2, 3, 4
_FIXED = ("pid", "start_wall_ns", "cpus", "page", "attached", "cut")


class Op(enum.IntEnum):
    """What an event is."""

    ALLOC = 1
    ZEROED = 2
    REALLOC = 3
    FREE = 4
    SIZED_FREE = 5
    FAILED = 6
    START = 7
    EXIT = 8


class Event(NamedTuple):
    """One event of a trace.

    :ivar op: what happened.
    :ivar time: ns since the trace began.
    :ivar thread: number of the thread that did it, from 0.
    :ivar block: number of the block, in the order of births; :data:`NO_BLOCK`: none.
    :ivar size: bytes of the block from now on, or, for a free, until now; FAILED: what was asked
        for; START: the thread's id in the system.
    :ivar align: alignment that was asked for in bytes; 0: none.
    :ivar site: index into :attr:`Trace.sites`; 0: unknown.
    """

    op: int
    time: int = 0
    thread: int = 0
    block: int = 0
    size: int = 0
    align: int = 0
    site: int = 0


class Thread(NamedTuple):
    """A thread of the recorded program.

    :ivar number: in events.
    :ivar id: in the system; 0: unknown.
    :ivar started: ns since the trace began.
    :ivar ended: the same; ``None``: it was alive at the end.
    """

    number: int
    id: int
    started: int
    ended: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """The events of a trace column by column, as typed memoryviews (``numpy.asarray`` them).

    :ivar time: ns (``Q``).
    :ivar size: bytes (``Q``).
    :ivar block: number (``I``).
    :ivar site: index (``I``).
    :ivar thread: number (``H``).
    :ivar op: an :class:`Op` (``B``).
    :ivar align: logarithm to base 2 of the alignment; 0: none was asked for (``B``).
    """

    time: memoryview
    size: memoryview
    block: memoryview
    site: memoryview
    thread: memoryview
    op: memoryview
    align: memoryview


_FORMATS: dict[str, Literal["Q", "I", "H", "B"]] = {
    "time": "Q", "size": "Q", "block": "I", "site": "I", "thread": "H", "op": "B", "align": "B"}
_TYPES = {"Q": "uint64_t", "I": "uint32_t", "H": "uint16_t", "B": "uint8_t"}


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """A trace in numbers.

    :ivar events: all of them.
    :ivar operations: those an allocator has to carry out: without thread starts, ends, failures.
    :ivar allocations: requests for new blocks that were granted.
    :ivar reallocations: changes of a block's size.
    :ivar frees: blocks given back.
    :ivar failures: requests that were refused.
    :ivar remote_frees: frees by another thread than the one that asked last.
    :ivar threads: number of threads.
    :ivar sites: number of call sites.
    :ivar requested: bytes of all requests together.
    :ivar largest: bytes of the largest request.
    :ivar peak_bytes: most that was requested and not freed at one time.
    :ivar peak_blocks: most blocks at one time.
    :ivar live_bytes: at the end.
    :ivar live_blocks: at the end.
    :ivar duration_ns: from the first event to the last.
    :ivar foreign: frees of blocks the trace does not know (older than it): left out.
    :ivar lost: blocks whose free was not seen, known by their address being given out again.
    :ivar damaged: bytes of the file that could not be read.
    :ivar complete: whether the file has its end marker.
    """

    events: int
    operations: int
    allocations: int
    reallocations: int
    frees: int
    failures: int
    remote_frees: int
    threads: int
    sites: int
    requested: int
    largest: int
    peak_bytes: int
    peak_blocks: int
    live_bytes: int
    live_blocks: int
    duration_ns: int
    foreign: int
    lost: int
    damaged: int
    complete: bool


class Trace:
    """A whole trace in memory: a sequence of events, with threads, call sites and facts.

    :ivar columns: the events by column.
    :ivar facts: what is known about program and machine: ``program``, ``command``, ``allocator``,
        ``pid``, ``start_wall_ns``, ``cpus``, ``page``, ``cpu``, ``kernel``, ``attached``,
        ``cut`` (there was no room for more) ...
    :ivar complete: whether the file was ended in good order; otherwise what there was, is here.
    :ivar blocks: how many blocks there are.
    :ivar foreign: see :class:`Summary`; so are ``lost`` and ``damaged``.
    """

    def __init__(self, columns: Columns, facts: Mapping[str, Any], totals: Any,
                 addresses: list[int], texts: Mapping[int, str]) -> None:
        self.columns = columns
        self.facts = dict(facts)
        self.complete = bool(totals.complete)
        self.blocks = int(totals.blocks)
        self.foreign = int(totals.foreign) + int(self.facts.pop("foreign", 0))
        self.lost = int(totals.lost) + int(self.facts.pop("lost", 0))
        self.damaged = int(totals.damaged)
        self._thread_count = int(totals.threads)
        self._addresses = addresses
        self._texts = dict(texts)

    # ---- making ----------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace file.

        A file that ends early gives what it has, with :attr:`complete` false.

        :raises NotFound: there is no such file.
        :raises Malformed: it is no trace, of another version, or damaged; the message says which.
        """
        try:
            with Path(path).open("rb") as stream:
                size = stream.seek(0, 2)
                if size == 0:
                    raise Malformed(f"{path}: it is empty, so it is no trace")
                with mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
                    return cls.loads(data, str(path))
        except FileNotFoundError as error:
            raise NotFound(f"there is no trace {path}") from error

    @classmethod
    def loads(cls, data: Any, name: str = "these bytes") -> Trace:
        """Read a trace from any buffer; see :meth:`load`.

        :param name: for error messages.
        """
        ffi, lib = load.extension("unikit.alloc.lab._lab")
        why = ffi.new("char[128]")
        out = ffi.new("struct kit_trace_reader **")
        with ffi.from_buffer(data) as buffer:
            code = lib.kit_trace_open(buffer, len(buffer), out, why)
            if code == -6:
                raise Malformed(f"{name}: {ffi.string(why).decode()}")
            if code < 0:
                raise OutOfMemory(f"{name}: reading {len(buffer)} bytes of trace takes more memory "
                                  "than there is")
            raw = ffi.buffer(buffer)
            facts, texts = _facts(raw), _texts(raw)
        reader = out[0]
        try:
            totals = ffi.new("struct kit_trace_totals *")
            lib.kit_trace_totals(reader, totals)
            columns, pointers = _columns(ffi, totals.events)
            lib.kit_trace_columns(reader, *pointers)
            addresses = ffi.new("uint64_t[]", totals.sites or 1)
            lib.kit_trace_addresses(reader, addresses)
            return cls(columns, facts, totals, list(addresses[0:totals.sites]), texts)
        finally:
            lib.kit_trace_close(reader)

    @classmethod
    def of(cls, events: Iterable[Event], sites: Iterable[str | int] = (), **facts: Any) -> Trace:
        """Make a trace from events, in the order given.

        Blocks are renumbered in the order of their births; a free of a block that is not alive is
        left out and counted as foreign; sizes of frees are filled in.

        :param sites: names, or addresses, of the call sites, number 1 first.
        :param facts: ``program=...`` and whatever else is known.
        :raises InvalidArgument: a number does not fit, or an operation does not exist.
        """
        said = {address: name for address, name in enumerate(sites, 1)}
        addresses = [name if isinstance(name, int) else address for address, name in said.items()]
        names = "".join(f"{address:x}\t{name}\t\n" for address, name in said.items()
                        if isinstance(name, str))
        columns = _columns_of(list(events), len(addresses))
        return cls.loads(_write(columns, addresses, facts, {_SYMBOLS: names}), "the events")

    # ---- looking ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.columns.op)

    def __getitem__(self, index: int) -> Event:
        c = self.columns
        align = c.align[index]
        return Event(Op(c.op[index]), c.time[index], c.thread[index], c.block[index],
                     c.size[index], 1 << align if align else 0, c.site[index])

    def __iter__(self) -> Iterator[Event]:
        c, ops = self.columns, {int(op): op for op in Op}
        for op, time, thread, block, size, align, site in zip(
                c.op, c.time, c.thread, c.block, c.size, c.align, c.site, strict=True):
            yield Event(ops[op], time, thread, block, size, 1 << align if align else 0, site)

    def __repr__(self) -> str:
        return (f"<Trace of {self.facts.get('program') or 'no program'}: {len(self)} events, "
                f"{self.blocks} blocks{'' if self.complete else ', incomplete'}>")

    @cached_property
    def threads(self) -> list[Thread]:
        """The program's threads by number."""
        ids, starts = [0] * self._thread_count, [0] * self._thread_count
        ends: list[int | None] = [None] * self._thread_count
        c = self.columns
        marks = bytes(c.op)
        for op in (Op.START, Op.EXIT):
            at = marks.find(bytes([op]))
            while at >= 0:
                if op is Op.START:
                    ids[c.thread[at]], starts[c.thread[at]] = c.size[at], c.time[at]
                else:
                    ends[c.thread[at]] = c.time[at]
                at = marks.find(bytes([op]), at + 1)
        return [Thread(*each) for each in zip(range(len(ids)), ids, starts, ends, strict=True)]

    @cached_property
    def sites(self) -> list[symbols.Site]:
        """The call sites; number 0 is the unknown one. Their names are looked up when asked."""
        modules = symbols.parse_maps(self._texts.get(_MODULES, ""))
        said = {}
        for line in self._texts.get(_SYMBOLS, "").splitlines():
            address, name, place = line.split("\t")
            said[int(address, 16)] = (name, place)
        return [symbols.Site(0), *(symbols.site(each, modules, said) for each in self._addresses)]

    def summary(self) -> Summary:
        """Return the trace in numbers; O(events)."""
        return self._summary

    @cached_property
    def _summary(self) -> Summary:
        ffi, lib = load.extension("unikit.alloc.lab._lab")
        out = ffi.new("struct kit_stats_survey *")
        with self._pinned() as columns:
            load.check(lib.kit_stats_survey(columns, out), "looking through a trace")
        count = {op: int(out.operations[op]) for op in Op}
        times = self.columns.time
        return Summary(
            events=len(self), operations=sum(count[op] for op in Op if op <= Op.SIZED_FREE),
            allocations=count[Op.ALLOC] + count[Op.ZEROED], reallocations=count[Op.REALLOC],
            frees=count[Op.FREE] + count[Op.SIZED_FREE], failures=count[Op.FAILED],
            remote_frees=int(out.remote), threads=self._thread_count, sites=len(self._addresses),
            requested=int(out.requested), largest=int(out.largest),
            peak_bytes=int(out.peak_bytes), peak_blocks=int(out.peak_blocks),
            live_bytes=int(out.live_bytes), live_blocks=int(out.live_blocks),
            duration_ns=times[-1] - times[0] if len(times) else 0, foreign=self.foreign,
            lost=self.lost, damaged=self.damaged, complete=self.complete)

    def _pinned(self) -> _Pinned:
        """Return a context in which C sees the columns as ``struct kit_stats_columns``."""
        return _Pinned(self)

    # ---- keeping ---------------------------------------------------------------------------

    def dumps(self, *, names: bool = False) -> bytes:
        """Return the trace as the bytes of a file.

        :param names: put the names of all call sites in, so that the trace can be read where the
            program is not installed.
        """
        texts = dict(self._texts)
        if names:
            known = self.sites[1:]
            texts[_SYMBOLS] = "".join(
                f"{each.address:x}\t{_word(each.name)}\t{_word(place)}\n"
                for each, place in zip(known, symbols.places(known), strict=True))
        facts = {**self.facts, "foreign": self.foreign, "lost": self.lost}
        return _write(self.columns, self._addresses, facts, texts)

    def save(self, path: str | Path, *, names: bool = False) -> None:
        """Write the trace to a file, in one order and with its end marker; see :meth:`dumps`."""
        from unikit import cache
        cache.write(Path(path), self.dumps(names=names))


class _Pinned:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._held: list[Any] = []

    def __enter__(self) -> Any:
        ffi, _ = load.extension("unikit.alloc.lab._lab")
        out = ffi.new("struct kit_stats_columns *")
        out.events, out.blocks = len(self._trace), self._trace.blocks
        for name, form in _FORMATS.items():
            if name != "align":
                held = ffi.from_buffer(f"{_TYPES[form]}[]", getattr(self._trace.columns, name))
                self._held.append(held)
                setattr(out, name, held)
        return out

    def __exit__(self, *exception: object) -> None:
        ffi, _ = load.extension("unikit.alloc.lab._lab")
        while self._held:
            ffi.release(self._held.pop())


def _columns(ffi: Any, events: int) -> tuple[Columns, list[Any]]:
    """Return empty columns and pointers to them, in the order of ``kit_trace_columns``."""
    views, pointers = {}, []
    for name, form in _FORMATS.items():
        memory = bytearray(events * struct.calcsize(form))
        views[name] = memoryview(memory).cast(form)
        pointers.append(ffi.from_buffer(f"{_TYPES[form]}[]", memory))
    return Columns(**views), pointers


def _columns_of(events: list[Event], sites: int) -> Columns:
    import array
    rows: dict[str, list[int]] = {name: [] for name in _FORMATS}
    for number, event in enumerate(events):
        if not 1 <= event.op <= max(Op):
            raise InvalidArgument(f"event {number}: there is no operation {event.op}")
        if not 0 <= event.site <= sites:
            raise InvalidArgument(f"event {number}: call site {event.site} of {sites}")
        if event.align & (event.align - 1):
            raise InvalidArgument(f"event {number}: an alignment of {event.align} is no power of "
                                  "two")
        for name in rows:
            value = getattr(event, name)
            rows[name].append(max(value.bit_length() - 1, 0) if name == "align" else value)
    try:
        return Columns(**{name: memoryview(array.array(_FORMATS[name], values))
                          for name, values in rows.items()})
    except OverflowError as error:
        raise InvalidArgument(f"making a trace: a number does not fit: {error}") from error


def _word(text: str) -> str:
    return text.replace("\t", " ").replace("\n", " ")


def _facts(buffer: Any) -> dict[str, Any]:
    """Return what the header says."""
    head = buffer[0:_PAGE]
    _, _, _, flags, pid, wall, _, _, _, _, cpus, page, _, size = _HEADER.unpack_from(head)
    facts: dict[str, Any] = {"pid": pid, "start_wall_ns": wall, "cpus": cpus, "page": page,
                             "attached": bool(flags & _ATTACHED), "cut": bool(flags & _CUT)}
    for line in head[_PAGE - _TEXT:_PAGE - _TEXT + size].decode(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key:
            facts[key] = value
    return facts


def _texts(buffer: Any) -> dict[int, str]:
    """Return the texts of the file's chunks by kind, joined in order."""
    head = buffer[0:_HEADER.size]
    slot = _HEADER.unpack(head)[2]
    found: dict[int, list[tuple[int, int, bytes]]] = {}
    for at in range(_PAGE, len(buffer) - _CHUNK.size + 1, slot):
        magic, kind, stream, sequence, used, _, _ = _CHUNK.unpack(buffer[at:at + _CHUNK.size])
        if magic == _MAGIC and kind in (_MODULES, _SYMBOLS):
            start = at + _CHUNK.size
            text = buffer[start:min(start + used, len(buffer), at + slot)]
            found.setdefault(kind, []).append((stream, sequence, text))
    return {kind: b"".join(text for _, _, text in sorted(parts)).decode(errors="replace")
            for kind, parts in found.items()}


def _write(columns: Columns, addresses: list[int], facts: Mapping[str, Any],
           texts: Mapping[int, str]) -> bytes:
    """Return the bytes of a finished file."""
    ffi, lib = load.extension("unikit.alloc.lab._lab")
    events = len(columns.op)
    slot = 4096 if events < 4000 else 16384 if events < 100_000 else 65536
    held = [ffi.from_buffer(f"{_TYPES[form]}[]", getattr(columns, name))
            for name, form in _FORMATS.items()]
    room = (events * 56 // slot + 2) * slot * 5 // 4  # of which little is touched
    with mmap.mmap(-1, room) as memory, ffi.from_buffer(memory) as out:
        size = load.check(lib.kit_trace_write(
            *held, events, ffi.new("uint64_t[]", addresses or [0]), slot, out, room),
            "writing a trace")
        payload = ffi.buffer(out, size)[:]
    parts = [_header(facts, slot, columns), payload]
    for kind, text in texts.items():
        parts += _text_chunks(kind, text.encode(), slot, lib, ffi)
    used = sum(_CHUNK.unpack_from(payload, at)[4] for at in range(0, size, slot))
    end = used.to_bytes(8, "little")
    parts.append(_CHUNK.pack(_MAGIC, _END, 0, 0, len(end), lib.kit_trace_check(end, 8), 0) + end)
    return b"".join(parts)


def _header(facts: Mapping[str, Any], slot: int, columns: Columns) -> bytes:
    import zlib
    text = "".join(f"{key}={_word(str(value))}\n" for key, value in facts.items()
                   if key not in _FIXED and value not in (None, "", 0))
    data = text.encode()[:_TEXT]
    last = columns.time[-1] if len(columns.time) else 1

    flags = _BLOCKS
    flags |= _ATTACHED if facts.get("attached") else 0
    flags |= _CUT if facts.get("cut") else 0

    def pack(check: int) -> bytes:
        return _HEADER.pack(
            b"KITTRACE", 1, slot, flags,
            int(facts.get("pid", 0)), int(facts.get("start_wall_ns", 0)), 0, 0, last, last,
            int(facts.get("cpus", 0)), int(facts.get("page", 4096)), check, len(data)
        ).ljust(_PAGE - _TEXT, b"\0") + data.ljust(_TEXT, b"\0")

    return pack(zlib.crc32(pack(0)))


def _text_chunks(kind: int, data: bytes, slot: int, lib: Any, ffi: Any) -> Iterator[bytes]:
    step = slot - _CHUNK.size
    for number, at in enumerate(range(0, len(data), step)):
        part = data[at:at + step]
        head = _CHUNK.pack(_MAGIC, kind, 0, number, len(part),
                           lib.kit_trace_check(part, len(part)), 0)
        yield (head + part).ljust(slot, b"\0")
