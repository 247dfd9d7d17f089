"""Allocation policies as Python classes: tried on real traces before any C is written.

A policy decides over addresses; there is no memory behind them. The simulator watches every
decision: a block outside the region, at a wrong alignment or over another block ends the run.
"""

from __future__ import annotations

import abc
import bisect
import dataclasses
from collections.abc import Callable, Iterator

from unikit.alloc.lab.replayer import Latency, Result, Sample, region_size
from unikit.alloc.lab.trace import NO_BLOCK, Op, Trace
from unikit.errors import Corrupt, InvalidArgument

PAGE = 4096
"""Bytes of a page; memory counts as touched page by page."""

_NOTHING = Latency(0, 0, 0, 0, 0, 0, 0)


class Policy(abc.ABC):
    """How to place blocks in ``size`` bytes of addresses, beginning with 0.

    A policy that would keep something in the memory itself (headers, links in free blocks) leaves
    room for it, for instance by rounding sizes up; the simulator counts what it says is used.

    >>> class Never(Policy):
    ...     def alloc(self, size: int, align: int) -> int | None:
    ...         return None
    ...     def free(self, address: int, size: int, align: int) -> None:
    ...         pass
    >>> Never(4096).alloc(1, 16) is None
    True
    """

    def __init__(self, size: int) -> None:
        self.size = size

    @abc.abstractmethod
    def alloc(self, size: int, align: int) -> int | None:
        """Return where to put a new block, or ``None``: there is no room.

        :param size: bytes, >= 0; a block of 0 bytes has an address of its own.
        :param align: a power of two, 16 at least.
        """

    @abc.abstractmethod
    def free(self, address: int, size: int, align: int) -> None:
        """Take a block back; ``size`` and ``align`` are those of the request."""

    def realloc(self, address: int, old: int, new: int, align: int) -> int | None:
        """Return where the block is with its new size; ``None``: no room, and it stays as it is.

        Unless a policy knows better: a new block, a copy, and the old one is free.
        """
        found = self.alloc(new, align)
        if found is not None:
            self.free(address, old, align)
        return found

    def used(self) -> int | None:
        """Return the bytes given out, rounding included; ``None``: as many as were asked for."""
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Simulated(Result):
    """What a policy did with a trace: a :class:`Result` without times, and more.

    :ivar copied: bytes that reallocations moved.
    :ivar extent: behind the highest byte that a block ever had.
    """

    copied: int = 0
    extent: int = 0


def simulate(trace: Trace, policy: type[Policy] | Callable[[int], Policy], *,
             memory: int | str = 0, samples: int = 200) -> Simulated:
    """Run a policy against a trace, in the recorded order.

    A block counts as touched in full. Some 300,000 operations a second and the policy's own time.

    :param policy: a class, or a function of the region's size.
    :param memory: bytes of the region; 0: four times what the program needed, and 64 MiB.
    :param samples: how often to look at the heap; 0: never.
    :raises Corrupt: the policy made a decision that no allocator may make; the message says which
        operation, and what is wrong with its answer.
    """
    if samples < 0:
        raise InvalidArgument(f"simulating with {samples} samples: at least 0")
    size = region_size(trace, memory)
    run = _Run(policy(size), size)
    every = trace.summary().operations // samples + 1 if samples else 0
    done = 0
    for done, (op, thread, block, wanted, align) in enumerate(_operations(trace), 1):
        del thread
        run.step(done, op, block, wanted, 1 << align if align > 4 else 16)
        if every and done % every == 0:
            run.sample(done)
    run.sample(done)
    counts = run.counts
    return Simulated(
        allocator=type(run.policy).__name__, where="policy", operations=done,
        allocations=counts[Op.ALLOC] + counts[Op.ZEROED], reallocations=counts[Op.REALLOC],
        frees=counts[Op.FREE] + counts[Op.SIZED_FREE], failures=run.failures, ns=0, warm_ns=0,
        warm_cycles=0, give=_NOTHING, take=_NOTHING, empty=0, peak_requested=run.peak_requested,
        peak_used=run.peak_used, peak_touched=run.pages.count(1) * PAGE, region=size,
        threads=max(1, len(trace.threads)), parallel=False, samples=tuple(run.samples),
        copied=run.copied, extent=run.extent)


def _operations(trace: Trace) -> Iterator[tuple[int, int, int, int, int]]:
    columns = trace.columns
    for row in zip(columns.op, columns.thread, columns.block, columns.size, columns.align,
                   strict=True):
        if row[0] <= Op.SIZED_FREE:
            yield row


class _Run:
    """One simulation: the policy, and what it must not get wrong."""

    def __init__(self, policy: Policy, size: int) -> None:
        self.policy, self.size = policy, size
        self.counts = [0] * 16
        self.failures = self.copied = self.extent = 0
        self.requested = self.peak_requested = self.peak_used = 0
        self.pages = bytearray(-(-size // PAGE))
        self.samples: list[Sample] = []
        self._blocks: dict[int, tuple[int, int, int]] = {}  # number to address, size, alignment
        self._starts: list[int] = []  # sorted
        self._ends: dict[int, int] = {}

    def step(self, number: int, op: int, block: int, size: int, align: int) -> None:
        self.counts[op] += 1
        if op >= Op.FREE:
            self._free(block)
        elif op == Op.REALLOC and block in self._blocks:
            self._move(number, block, size)
        else:
            self._alloc(number, block, size, align)
        self.peak_requested = max(self.peak_requested, self.requested)

    def sample(self, done: int) -> None:
        used = self.policy.used()
        used = self.requested if used is None else used
        self.peak_used = max(self.peak_used, used)
        if not self.samples or self.samples[-1].done != done:
            self.samples.append(Sample(done, self.requested, used, self.pages.count(1) * PAGE))

    def _alloc(self, number: int, block: int, size: int, align: int) -> None:
        address = self.policy.alloc(size, align)
        if address is None:
            self.failures += 1
            return
        self._occupy(number, block, address, size, align)

    def _free(self, block: int) -> None:
        found = self._blocks.pop(block, None)
        if found is None:
            return  # it was refused
        self._vacate(*found[:2])
        self.policy.free(*found)

    def _move(self, number: int, block: int, size: int) -> None:
        address, old, align = self._blocks[block]
        moved = self.policy.realloc(address, old, size, align)
        if moved is None:
            self.failures += 1
            return
        # The copy needs both: unless it stays, the new block must not lie over the old one.
        if moved != address:
            self._check_free(number, moved, max(size, 1))
            self.copied += min(old, size)
        del self._blocks[block]
        self._vacate(address, old)
        self._occupy(number, block, moved, size, align)

    def _occupy(self, number: int, block: int, address: int, size: int, align: int) -> None:
        room = max(size, 1)
        if address % align:
            raise Corrupt(f"operation {number}: {size} bytes at {address:#x}, which is no multiple "
                          f"of {align}")
        self._check_free(number, address, room)
        bisect.insort(self._starts, address)
        self._ends[address] = address + room
        self._blocks[block] = (address, size, align)
        self.requested += size
        self.extent = max(self.extent, address + room)
        first, last = address // PAGE, (address + room - 1) // PAGE + 1
        self.pages[first:last] = b"\1" * (last - first)

    def _check_free(self, number: int, address: int, room: int) -> None:
        if address < 0 or address + room > self.size:
            raise Corrupt(f"operation {number}: {room} bytes at {address:#x} do not lie in the "
                          f"region of {self.size} bytes")
        at = bisect.bisect_right(self._starts, address)
        before = self._starts[at - 1] if at else None
        if before is not None and self._ends[before] > address:
            raise Corrupt(f"operation {number}: {room} bytes at {address:#x} lie over the block at "
                          f"{before:#x}")
        if at < len(self._starts) and self._starts[at] < address + room:
            raise Corrupt(f"operation {number}: {room} bytes at {address:#x} reach into the block "
                          f"at {self._starts[at]:#x}")

    def _vacate(self, address: int, size: int) -> None:
        del self._starts[bisect.bisect_left(self._starts, address)]
        del self._ends[address]
        self.requested -= size


def make_random(seed: int, operations: int = 2000, *, live: int = 200) -> Trace:
    """Return a seeded trace of a program without manners: all sizes, alignments and orders."""
    import random

    from unikit.alloc.lab.trace import Event
    chance = random.Random(seed)
    events: list[Event] = []
    alive: list[int] = []
    born = 0
    for number in range(operations):
        size = chance.choice((0, 1, 16, chance.randrange(200), chance.randrange(5000),
                              1 << chance.randrange(17)))
        shrinking = number % 800 > 500
        if alive and (len(alive) >= live or chance.random() < (0.7 if shrinking else 0.3)):
            at = chance.randrange(len(alive)) if chance.random() < 0.8 else -1
            events.append(Event(Op.FREE, number, 0, alive.pop(at)))
        elif alive and chance.random() < 0.15:
            events.append(Event(Op.REALLOC, number, 0, chance.choice(alive), size))
        else:
            align = chance.choice((0, 0, 0, 0, 32, 64, 4096))
            events.append(Event(Op.ALLOC, number, 0, born, size, align))
            alive.append(born)
            born += 1
    return Trace.of(events, program="random")


def check_policy(policy: type[Policy] | Callable[[int], Policy], *, seeds: range = range(12),
                 reuses: bool = True) -> int:
    """Check a policy as the conformance suite checks an allocator; return operations done.

    On seeded traces, in much memory and in too little of it: every answer is looked at. The same
    trace must give the same answers again, and with ``reuses`` memory must come back: what fitted
    into an empty region fits again once everything was freed.

    :raises Corrupt: it made a decision that no allocator may make, does not repeat itself, loses
        memory, or refuses what must fit.
    """
    done = 0
    for seed in seeds:
        trace = make_random(seed)
        for memory in ("64M", "96K"):
            first = simulate(trace, policy, memory=memory, samples=20)
            if simulate(trace, policy, memory=memory, samples=20) != first:
                raise Corrupt(f"seed {seed} in {memory}: two runs of one trace differ")
            if memory == "64M" and first.failures:
                raise Corrupt(f"seed {seed}: {first.failures} requests refused in 64 MiB, of which "
                              f"{first.peak_requested} bytes are needed")
            done += 2 * first.operations
        if reuses:
            _check_reuse(policy, seed)
    return done


def _check_reuse(policy: type[Policy] | Callable[[int], Policy], seed: int) -> None:
    made = policy(1 << 20)
    fits = 1 << 20
    while made.alloc(fits, 16) is None:
        fits //= 2
        if not fits:
            raise Corrupt("an empty region of 1 MiB has no room for one byte")
    made = policy(1 << 20)
    held: dict[int, tuple[int, int]] = {}
    for event in make_random(seed, 600, live=60):
        if event.block in held:
            made.free(*held.pop(event.block), 16)
        elif event.block != NO_BLOCK and event.op is Op.ALLOC:
            address = made.alloc(event.size, 16)
            if address is not None:
                held[event.block] = (address, event.size)
    for address, size in held.values():
        made.free(address, size, 16)
    if made.alloc(fits, 16) is None:
        raise Corrupt(f"seed {seed}: {fits} bytes fit into an empty region, and no longer after "
                      "everything was freed")
