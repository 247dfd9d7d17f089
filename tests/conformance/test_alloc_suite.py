"""The allocator suite in both hosted harnesses, and proof that it notices broken allocators."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from compiled import HERE, ROOT, VARIANTS, build, conforms, panic_of, run

from unikit import registry

OPTIONS = {"buddy": [1], "bump": [], "firstfit": [256], "halffit": [], "slab": [0],
           "tlsf": [0]}
EXAMPLE = "tests/plugin/stack2/unikit_stack2/stack2.c"
SUITE = [HERE / "main_alloc.c", *sorted((ROOT / "unikit/testing").glob("suite_alloc*.c"))]

# (component, right, wrong): each a mistake somebody could make.
MUTATIONS = [
    ("tlsf", "if (after->tag & FREE) {", "if (0) {"),  # no joining with the block behind
    ("tlsf", "if (block->tag & PREVIOUS_FREE) {", "if (0) {"),  # nor with the one before
    ("tlsf", "after->before = size;", ";"),  # no size at the border
    ("tlsf", "target->tag = room + before;", "target->tag = room;"),
    ("tlsf", "memmove(tlsf_payload(target), tlsf_payload(block), old_size);", ";"),
    ("tlsf", "t->words &= ~(UINT64_C(1) << (index / 64));", ";"),
    ("tlsf", "&& tlsf_size(t->heads[index]) >= size)", ")"),  # first of the class, fit or not
    ("tlsf", "return gap && gap < BLOCK_MIN ? gap + align : gap;", "return gap;"),
    ("tlsf", "t->used -= tlsf_size(block) - TAG;", "t->used -= tlsf_size(block);"),
    ("tlsf", "heads[index]->link = &heads[index];", ";"),  # lists still point to the old table
    ("tlsf", "if (t->peak < t->used)", "if (0)"),
    ("tlsf", "t->failures++;", ";"),
    ("tlsf", "size <= REQUEST_MAX && align <= UNIT", "align <= UNIT"),  # sizes overflow
    ("tlsf", "need > room + before ||", "need > room + before + 16 ||"),
    ("tlsf", "(align > UNIT && (uintptr_t)tlsf_payload(target) & (align - 1))", "false"),
    ("firstfit", "if (index > 0 && firstfit_may_join(ff, index - 1)) {", "if (0) {"),
    ("firstfit", "block[1] = (struct block){block->start + size, rest};", ";"),
    ("firstfit", "size_t gap = (0 - block->start) & (align - 1);", "size_t gap = 0;"),
    ("firstfit", "ff->frees++;", ";"),
    ("firstfit", "size > firstfit_size(block) - gap)", "size > firstfit_size(block))"),
    ("firstfit", "memcpy(fresh, block, old_size);", ";"),
    ("bump", "return units ? units : 1;", "return units;"),
    ("bump", "units > bump->limit - first", "units > bump->limit"),
    ("bump", "bump->top = top;", ";"),
    ("bump", "if (units <= bump_units(old_size))", "if (1)"),
    ("bump", "if (first + bump_units(size) == bump->top)", "if (1)"),
]

# The same for optional features.
FEATURE_MUTATIONS = [
    ("slab", "if (after != end && after->kind == FREE) {", "if (0) {"),
    ("slab", "if (run > h->map && run[-1].kind == FREE) {", "if (0) {"),
    ("slab", "if (after == end)\n        h->frontier =", "if (0)\n        h->frontier ="),
    ("slab", "slab[i].back = (uint32_t)i;", ";"),
    ("slab", "cache_list(cache, slab); /* it was full */", ";"),
    ("slab", "if (--slab->used == 0) {", "if (--slab->used == 60000) {"),
    ("slab", "void *block = slab_drain(h) ?", "void *block = 0 ?"),
    ("slab", "return slab_object_any(", "return 0; slab_object_any("),
    ("slab", "if (gap)\n            runs_put(h, run, gap);\n        run += gap;\n    } else",
     "run += gap;\n    } else"),
    ("slab", "h->caches[run->kind].live--;", ";"),
    ("halffit", "if (after->tag & FREE) {", "if (0) {"),
    ("halffit", "if (block->tag & PREVIOUS_FREE) {", "if (0) {"),
    ("halffit", "h->orders &= ~(UINT64_C(1) << index);", ";"),
    ("halffit", "return gap && gap < BLOCK_MIN ? gap + align : gap;", "return gap;"),
    ("halffit", "kit_fls64(size - 1) + 1;", "kit_fls64(size);"),  # half a block is enough
    ("halffit", "halffit_find(h, need + align + UNIT);", "NULL;"),
    ("halffit", "block->tag += room - size;", ";"),
    ("halffit", "size_t need = kit_align_up(size + TAG, UNIT);", "size_t need = size + TAG;"),
    ("halffit", "if (need > room)", "if (need > room + 64)"),
    ("buddy", "*buddy_word(b, block.end) = (struct word){0, 0};", ";"),  # garbage in the map
    ("buddy", "*buddy_word(b, start) = (struct word){0, 0};", ";"),
    ("buddy", "if (fresh && mid_stretch(end))", "if (0)"),
    ("buddy", "fresh = slot->order >= STRETCH_BITS;", "fresh = true;"),
    ("buddy", "!same_stretch(end, old_end) && ", ""),  # wipes out what follows
    ("buddy", "other > address && other == b->frontier", "0"),
    ("buddy", "if (order >= ORDERS || below > address || !buddy_has(b, below, order))", "if (1)"),
    ("buddy", "b->orders &= ~(UINT64_C(1) << slot->order);", ";"),
    ("buddy", "order_of(size > align ? size : align)", "order_of(size)"),
    ("buddy", "return end <= b->limit ? end : 0;", "return end;"),
    ("buddy", "|| block.start & (((size_t)1 << order_of(end - block.start)) - 1)", ""),
    ("tlsf", "{kit_align_up((uintptr_t)block + HEADER, page),", "{(uintptr_t)block & ~(page - 1),"),
    ("tlsf", "kit_align_down((uintptr_t)t->end, t->pages->page)};", "(uintptr_t)t->end};"),
    ("tlsf", "t->touched = span.start - HEADER;", ";"),
    ("tlsf", "if (KIT_UNLIKELY(end > t->high))", "if (0)"),  # used memory taken for zero
    ("tlsf", "spare > keep ? spare - keep : 0", "spare"),
    ("tlsf", "!may_move || ", ""),
    ("tlsf", "old_size = tlsf_size(block) - TAG;", "old_size = 8;"),
    ("tlsf", "return new_size <= REQUEST_MAX &&", "return"),
    ("firstfit", "size != KIT_ALLOC_UNKNOWN && ", ""),
    ("firstfit", "old_size = firstfit_size(&ff->table[index]);", "old_size = 16;"),
    ("firstfit", "if (new_size > size + firstfit_room_after(ff, index))", "if (0)"),
    ("bump", "return units <= bump_units(old_size);", "return true;"),
    ("bump", "return units <= bump->limit - first && bump_extend", "return bump_extend"),
]


def sources(name: str) -> list[Path]:
    """Return the C files of a component."""
    return list(registry.find(f"alloc.{name}").source_files())


@pytest.mark.parametrize("variant", [pytest.param(each, marks=pytest.mark.fast)
                                     if each == "optimised" else each for each in VARIANTS])
@pytest.mark.parametrize("name", OPTIONS)
def test_conforms(name: str, variant: str) -> None:
    """One source must behave alike under sanitizers and as a release."""
    program = build([*SUITE, *sources(name)], variant=variant,
                    defines={"COMPONENT": f"kit_alloc_{name}"})
    conforms(program, *OPTIONS[name])


@pytest.mark.parametrize("large", [0, 4096, 1 << 40])
def test_the_example_of_the_documentation_conforms(large: int) -> None:
    """What the how-to shows is what people start from."""
    program = build([*SUITE, EXAMPLE], defines={"COMPONENT": "kit_alloc_stack2"},
                    flags=["-Wconversion", "-Wshadow"])
    conforms(program, large)


@pytest.mark.parametrize("number", range(len(MUTATIONS + FEATURE_MUTATIONS)),
                         ids=[f"{name}-{number}" for number, (name, *_) in
                              enumerate(MUTATIONS + FEATURE_MUTATIONS)])
def test_a_broken_allocator_is_noticed(number: int, tmp_path: Path) -> None:
    """A suite that passes everything is worth nothing: each of these mistakes must be found."""
    name, right, wrong = (MUTATIONS + FEATURE_MUTATIONS)[number]
    files = []
    for source in sources(name):
        text = source.read_text()
        if right in text:
            source = tmp_path / source.name
            source.write_text(text.replace(right, wrong))
        files.append(source)
    assert files != sources(name), "the mutation no longer fits the source"
    suite = build(SUITE, variant="optimised", whole=False,
                  defines={"COMPONENT": f"kit_alloc_{name}"})
    program = build([suite, *files], variant="optimised", flags=["-Wno-error"])
    try:
        done = run(program, *OPTIONS[name], timeout=10)
    except subprocess.TimeoutExpired:
        return
    assert done.returncode not in (0, 2), f"passed without noticing: {right} -> {wrong}"


PANICS = {
    "buddy": {case: "alloc.buddy: not a block in use" for case in (1, 2, 3, 4, 6)},
    "bump": {1: "alloc.bump: a block that is not in use",
             3: "alloc.bump: a block that is not in use",
             6: "alloc.bump: a block that is not in use"},
    "firstfit": {1: "alloc.firstfit: not a block in use",
                 2: "alloc.firstfit: not a block in use",
                 3: "alloc.firstfit: not a block in use",
                 4: "alloc.firstfit: not a block in use",
                 5: "alloc.firstfit: a size larger than the block",
                 6: "alloc.firstfit: not a block in use"},
    "halffit": {case: "alloc.halffit: not a block in use" for case in (1, 2, 6)},
    "slab": {3: "alloc.slab: not a block in use"},
    "tlsf": {1: "alloc.tlsf: not a block in use",
             2: "alloc.tlsf: not a block in use",
             6: "alloc.tlsf: not a block in use"},
}


@pytest.mark.fast
@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in PANICS.items()
                                            for case in cases])
def test_misuse_panics(name: str, case: int) -> None:
    """What an allocator can notice for nothing it must not let pass, in exactly these words."""
    program = build([HERE / "misuse_alloc.c", *sources(name)], variant="optimised",
                    defines={"COMPONENT": f"kit_alloc_{name}"})
    assert panic_of(program, case, *OPTIONS[name]) == PANICS[name][case]
