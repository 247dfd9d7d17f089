"""Worst cases: the bad programs that are known never need more than an allocator promises."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from unikit.alloc import Allocator, Buddy, Halffit, Shard, Tlsf
from unikit.errors import NotSupported

ROOT = Path(__file__).resolve().parents[2]
OVERHEAD = {"alloc.tlsf": 8, "alloc.halffit": 8}
"""Bytes that a block has beside its size: so that the adversary can ask for whole powers of two."""
RECORDS = [Tlsf(), Halffit(), Buddy(exact=False), Shard()]
records = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.id)


def adversary(record: Allocator, folder: Path) -> Path:
    """Compile the adversary with a component, optimised as an image is."""
    program = folder / record.stem()
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-static", f"-I{ROOT}",
                    f"-DCOMPONENT={record.symbol()}",
                    ROOT / "tests/conformance/adversary.c", ROOT / "unikit/rt/host.c",
                    *record.source_files(), "-o", program], check=True)
    return program


def play(record: Allocator, folder: Path, mode: str, *numbers: int) -> dict[str, tuple[int, int]]:
    """Run it; what was found and what is promised, by sequence."""
    done = subprocess.run([adversary(record, folder), mode, *map(str, numbers),
                           *map(str, record.encoded())], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: (int(found), int(promised)) for name, found, promised in
            re.findall(r"^(.+): (\d+) of (\d+)$", done.stdout, re.MULTILINE)}


@records
@pytest.mark.parametrize(("live", "largest"), [(1 << 16, 1016), (1 << 18, 4088), (1 << 18, 65_528)])
def test_memory_never_exceeds_the_promise(record: Allocator, live: int, largest: int,
                                          tmp_path: Path) -> None:
    """In a region of the promised size nothing is refused, and the promise is not met by luck."""
    found = play(record, tmp_path, "memory", live, largest, OVERHEAD.get(record.id, 0))
    assert len(found) == 7
    assert all(extent <= promised for extent, promised in found.values())
    assert max(extent for extent, _ in found.values()) > 2.5 * live  # the adversary does its work


@records
def test_instructions_never_exceed_the_promise(record: Allocator, tmp_path: Path) -> None:
    """Counted by single steps, over random and extreme operations, in a small and a large heap."""
    for operations, size in ((2000, 1 << 20), (50, 1 << 30)):
        found = play(record, tmp_path, "count", operations, size)
        assert all(0 < steps <= promised for steps, promised in found.values()), found


@records
def test_promises_grow_with_the_limits(record: Allocator) -> None:
    """More memory in use, or larger requests, never need less."""
    live = [record.worst_memory(bytes_, 4096) for bytes_ in (1 << 14, 1 << 16, "1M")]
    largest = [record.worst_memory("1M", bytes_) for bytes_ in (16, 100, 4096, "64K")]
    assert live == sorted(live)
    assert largest == sorted(largest)
    assert record.bounds(1 << 20, 4096).memory == record.worst_memory("1M", "4K")
    with pytest.raises(NotSupported):
        record.worst_memory(1 << 60, 1 << 50)


def worst_half_fit(live: int, largest: int) -> int:
    """Find the least memory that refuses no sequence at all, by exploring every state.

    Units of the smallest block; requests of powers of two, from any hole of the lowest list: the
    adversary chooses which. A state is a tuple of (size, used).
    """
    for memory in range(live, 4 * live):
        if not refused(memory, live, largest):
            return memory
    raise AssertionError("no memory is enough")


def refused(memory: int, live: int, largest: int) -> bool:
    """Whether some sequence of requests is refused in so much memory."""
    start = ((memory, False),)
    seen, agenda = {start}, [start]
    while agenda:
        state = agenda.pop()
        used = sum(size for size, taken in state if taken)
        following = [freed(state, index) for index, (_, taken) in enumerate(state) if taken]
        request = 1
        while request <= largest:
            if used + request <= live:
                bins = Counter(size.bit_length() for size, taken in state
                               if not taken and size >= request)
                if not bins:
                    return True
                following += [given(state, index, request)
                              for index, (size, taken) in enumerate(state)
                              if not taken and size >= request and size.bit_length() == min(bins)]
            request *= 2
        agenda += [each for each in following if each not in seen]
        seen.update(following)
    return False


def given(state: tuple[tuple[int, bool], ...], index: int,
          request: int) -> tuple[tuple[int, bool], ...]:
    """Return the state after a hole served a request."""
    rest = state[index][0] - request
    middle: tuple[tuple[int, bool], ...] = ((request, True),)
    return state[:index] + middle + (((rest, False),) if rest else ()) + state[index + 1:]


def freed(state: tuple[tuple[int, bool], ...], index: int) -> tuple[tuple[int, bool], ...]:
    """Return the state after a block was freed and joined with its neighbours."""
    first, last = index, index + 1
    if first > 0 and not state[first - 1][1]:
        first -= 1
    if last < len(state) and not state[last][1]:
        last += 1
    size = sum(size for size, _ in state[first:last])
    return (*state[:first], (size, False), *state[last:])


@pytest.mark.parametrize(("live", "largest", "exact"), [(4, 2, 6), (6, 2, 9), (8, 2, 13), (5, 4, 8),
                                                        (6, 4, 12)])
def test_half_fit_s_formula_holds_where_all_programs_can_be_tried(live: int, largest: int,
                                                                  exact: int) -> None:
    """M (1 + log2 n) against the true worst case of small heaps."""
    assert worst_half_fit(live, largest) == exact <= live * largest.bit_length()
