"""``check_allocator()``: the conformance suite of the allocator interface, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from unikit.alloc.api import Allocator
from unikit.alloc.memory import region
from unikit.component import parse_size
from unikit.ffi import load
from unikit.testing.report import Failure, Outcome, Report

SIZES: Sequence[int | str] = ("16K", 20_000, "64K", "1M")
"""Sizes of memory that the suite runs in unless told otherwise."""

WORDS = {"reuses": 1, "bounded": 2, "shared": 4, "owns": 8, "walk": 16, "add_region": 32,
         "scopes": 64, "unsized": 128, "threads": 256, "pages": 512, "resize": 1024, "zeroed": 2048,
         "layer": 4096, "sites": 8192, "fails": 16384, "records": 32768,
         "leaks": 65536}
"""Features of an allocator: the word of a record, and the bit of ``alloc.h``."""

OFFSETS: Sequence[int] = (0, 1, 8, 4095)
"""Distances of the memory from a page border."""


def check_allocator(component: Allocator | type[Allocator], sizes: Sequence[int | str] = SIZES,
                    *, offsets: Sequence[int] = OFFSETS) -> Outcome:
    """Check that an allocator keeps the contract of ``alloc.h`` and has what it claims.

    :param component: a record with the options to test, or its class for the defaults; with layers
        the whole is tested.
    :param sizes: sizes of memory to run in, bytes or ``"64K"``; each must be enough for the
        component to open.
    :param offsets: alignments of the memory to try, as distances from a page border.
    :returns: how much was checked.
    :raises NotConforming: with each behaviour that failed.
    :raises OutOfMemory: the component does not open in one of the sizes.
    :raises Panic: the component panicked.

    >>> from unikit.alloc import Tlsf
    >>> from unikit.testing import check_allocator
    >>> check_allocator(Tlsf(), ["64K"]).checks > 10_000
    True
    """
    record = component() if isinstance(component, type) else component
    report = Report()
    layers = record.layers()
    choices, _options = load.choices(layers)
    features = sum(WORDS[word] for word in record.features)
    for size in map(parse_size, sizes):
        for offset in offsets:
            with (region(size + offset, hugepages="never") as memory,
                  memoryview(memory)[offset:offset + size] as part,
                  report.ffi.from_buffer("char[]", part, require_writable=True) as start):
                report.run(report.lib.kit_suite_alloc_layers, choices, len(layers), features,
                           start, size, doing=f"checking {record.id} in {size} bytes")
    _check_words(record, report)
    return report.outcome(record.id)


def _check_words(record: Allocator, report: Report) -> None:
    """Compare what the record says with what the C side says."""
    component = load.component(record)
    claimed = frozenset(word for word, bit in WORDS.items() if component.features & bit)
    name = report.ffi.string(component.id).decode()
    for what, here, there in (("features", sorted(type(record).features), sorted(claimed)),
                              ("id", record.id, name), ("abi", record.abi, component.abi)):
        if here != there:
            report.failures.append(Failure("the record says what the C side says", __file__, 0,
                                           f"{what}: {here} in Python, {there} in C"))
