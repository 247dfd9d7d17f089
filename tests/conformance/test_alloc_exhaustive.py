"""Bounded proof: all sequences of operations up to a length, in a small arena, checked each step.

What holds for all short sequences in a small arena is no proof for all sequences, but allocators
break on the meeting of few blocks: every join, split, alignment gap and exhaustion occurs within
the depths stated here. ``tests/conformance/exhaustive.c`` says what is checked.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest
from compiled import HERE, ROOT, build, run
from test_alloc_suite import MUTATIONS

from unikit import registry

PROGRAM = HERE / "exhaustive.c"


@dataclasses.dataclass(frozen=True)
class Space:
    """A space of sequences.

    :ivar arena: bytes of memory, and ``offset`` its distance from a page border.
    :ivar depth: moves of a sequence; ``long`` in the slow run.
    :ivar live: most blocks in use at a time.
    """

    name: str
    arena: int
    depth: int
    long: int
    sizes: str
    aligns: str = "0"
    resizes: str = "-"
    live: int = 4
    offset: int = 0
    options: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}-{self.arena}-{self.offset}"

    def arguments(self, depth: int) -> list[object]:
        """Return the program's arguments."""
        options = self.options or registry.find(self.name, "alloc")().encoded()
        return [self.arena, self.offset, depth, self.live, self.sizes, self.aligns, self.resizes,
                *options]


SPACES = [
    Space("bump", 1024, 6, 8, "0,1,40,300", "0,64", "1,150"),
    Space("firstfit", 2048, 5, 7, "1,40,100,300", "0,64", "1,150", offset=8,
          options=(16,)),
    Space("tlsf", 1104, 7, 13, "1,40,100", offset=1),  # joins and splits
    Space("tlsf", 2048, 5, 7, "1,40,300", "0,64", "1,150", offset=8),  # gaps and moves
    Space("tlsf", 4096, 6, 12, "1,600,616"),  # blocks of one class and two sizes
    Space("buddy", 2048, 5, 7, "1,40,100,300", "0,64", "1,150", options=(1,)),
    Space("buddy", 2048, 5, 7, "1,40,100,300", "0,64", "1,150", options=(0,), offset=8),
    Space("halffit", 1024, 5, 8, "1,40,100,300", "0,64", "1,150"),
    Space("slab", 12288, 5, 6, "1,2000,4000", "0,64", "1,150", options=(0,)),
    Space("slab", 16384, 6, 8, "1,100,2000", options=(0,), offset=8),
    Space("shard", 65536, 6, 8, "1,9000,20000", live=5),  # runs of pages: joins and splits
    Space("shard", 131072, 4, 5, "1,200,5000,40000", "0,64", "1,30000"),  # slabs and large runs
    Space("shard", 32768, 5, 7, "16,1000,5000", offset=8),  # small pages
]


def sources(name: str) -> list[Path]:
    """Return the C files of a component, wherever they stand."""
    return list(registry.find(name, "alloc").source_files())


def explore(space: Space, variant: str, depth: int, timeout: float) -> tuple[int, int]:
    """Run one space; the numbers of states and of refused requests."""
    program = build([PROGRAM, *sources(space.name)], variant=variant,
                    defines={"COMPONENT": f"kit_alloc_{space.name}"})
    done = run(program, *space.arguments(depth), timeout=timeout)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    found = re.search(r"depth (\d+), (\d+) states, (\d+) moves, (\d+) refusals", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) == depth
    return int(found[2]), int(found[4])


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("variant", ["optimised", "sanitized"])
def test_no_short_sequence_breaks_the_heap(space: Space, variant: str) -> None:
    """Memory safety, no overlap, contents kept, complete joining: for every short sequence."""
    states, _ = explore(space, variant, space.depth - (variant == "sanitized"), 120)
    assert states > 100


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_no_longer_sequence_breaks_the_heap(space: Space) -> None:
    """The same, some moves further: tens of millions of sequences."""
    states, _ = explore(space, "optimised", space.long, 3600)
    assert states > 3000


def test_the_arena_is_small_enough_to_run_out() -> None:
    """A proof in which no request is ever refused says nothing about exhaustion."""
    assert all(any(explore(space, "optimised", space.depth, 120)[1] > 0
                   for space in SPACES if space.name == name)
               for name in {space.name for space in SPACES if space.name == "tlsf"})


WITHOUT = {"t->failures++;", "size <= REQUEST_MAX && align <= UNIT", "ff->frees++;",
           "if (t->peak < t->used)", "heads[index]->link = &heads[index];", "bump->top = top;",
           "if (first + bump_units(size) == bump->top)"}
"""What shows in no short sequence in one region: counters, huge sizes, two regions, scopes."""


@pytest.mark.parametrize("number", [
    number for number, (name, right, _) in enumerate(MUTATIONS)
    if name in {space.name for space in SPACES} and right not in WITHOUT],
    ids=lambda number: f"{MUTATIONS[number][0]}-{number}")
def test_a_broken_allocator_is_found(number: int, tmp_path: Path) -> None:
    """The exploration must find each of these mistakes, or it explores too little."""
    name, right, wrong = MUTATIONS[number]
    files = []
    for source in sources(name):
        text = source.read_text()
        if right in text:
            source = tmp_path / source.name
            source.write_text(text.replace(right, wrong))
        files.append(source)
    assert any(file.parent == tmp_path for file in files), "the mutation no longer fits the source"
    program = build([PROGRAM, *files], variant="optimised", flags=["-Wno-error", f"-I{ROOT}"],
                    defines={"COMPONENT": f"kit_alloc_{name}"})
    outcomes = []
    for space in SPACES:
        if space.name == name:
            try:
                outcomes.append(run(program, *space.arguments(space.depth), timeout=60).returncode)
            except subprocess.TimeoutExpired:
                outcomes.append(-1)
    assert any(outcomes), f"explored without noticing: {right} -> {wrong}"
