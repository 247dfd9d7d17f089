"""``check_netif()`` and ``check_stack()``: the conformance suites of the networking interfaces."""

from __future__ import annotations

from typing import Any

from unikit.component import Component
from unikit.ffi import load
from unikit.net.api import Interface
from unikit.testing.report import Failure, Outcome, Report

_NETIF_WORDS = {"lossless": 1}


def check_netif(component: Interface | type[Interface]) -> Outcome:
    """Check that an interface component keeps the contract of ``netif.h``, in this process.

    :param component: a record with the options to test, or its class for the defaults.
    :returns: how much was checked.
    :raises NotConforming: with each behaviour that failed.
    :raises Panic: the component panicked.

    >>> from unikit.net import Pipe
    >>> from unikit.testing import check_netif
    >>> check_netif(Pipe(slots=4)).checks > 1000
    True
    """
    record = component() if isinstance(component, type) else component
    report = Report()
    pointer, options = load.component(record), load.options(record)
    size = max(int(pointer.memory_size(options)), 64) + 4096
    memory = report.ffi.new("uint8_t[]", size + 64)
    start = memory + -int(report.ffi.cast("uintptr_t", memory)) % 64
    report.run(report.lib.kit_suite_netif, pointer, options, start, size,
               doing=f"checking {record.id}")
    _check_words(record, pointer, _NETIF_WORDS, report)
    return report.outcome(record.id)


def _check_words(record: Component, pointer: Any, words: dict[str, int], report: Report) -> None:
    """Compare what the record says with what the C side says."""
    claimed = sorted(word for word, bit in words.items() if pointer.features & bit)
    name = report.ffi.string(pointer.id).decode()
    for what, here, there in (("features", sorted(record.features), claimed),
                              ("id", record.id, name), ("abi", record.abi, pointer.abi)):
        if here != there:
            report.failures.append(Failure("the record says what the C side says", __file__, 0,
                                           f"{what}: {here} in Python, {there} in C"))
