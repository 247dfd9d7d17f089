"""``check_netif()`` and ``check_stack()``: the conformance suites of the networking interfaces."""

from __future__ import annotations

from typing import Any

from unikit.alloc import Tlsf, region
from unikit.component import Component
from unikit.errors import InvalidArgument
from unikit.ffi import load
from unikit.net.api import Interface, Stack
from unikit.testing.report import Failure, Outcome, Report

_NETIF_WORDS = {"lossless": 1}
_NET_WORDS = {"tcp": 1, "udp": 2, "ipv4": 4, "ipv6": 8, "connect": 16, "sack": 32,
              "timestamps": 64, "ecn": 128}


def check_netif(component: Interface | type[Interface]) -> Outcome:
    """Check that an interface component keeps the contract of ``netif.h``, in this process.

    :param component: a record with the options to test, or its class for the defaults.
    :returns: how much was checked.
    :raises InvalidArgument: it needs more than memory (``build`` in ``netif.h``): a layer.
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
    if pointer.build:
        raise InvalidArgument(f"{record.id} is built over a clock or another interface; the suite "
                              "checks components that need memory alone")
    size = max(int(pointer.memory_size(options)), 64) + 4096
    memory = report.ffi.new("uint8_t[]", size + 64)
    start = memory + -int(report.ffi.cast("uintptr_t", memory)) % 64
    report.run(report.lib.kit_suite_netif, pointer, options, start, size,
               doing=f"checking {record.id}")
    _check_words(record, pointer, _NETIF_WORDS, report)
    return report.outcome(record.id)


def check_stack(component: Stack | type[Stack], memory: int | str = "64M", *,
                connections: int = 10_000) -> Outcome:
    """Check that a TCP/IP stack keeps the contract of ``net.h`` and talks sound TCP.

    Two stacks talk over a cable that loses, doubles, reorders and damages frames, in virtual time;
    their invariants are verified all along and their memory is counted.

    :param component: a record with the options to test (no address, 8 connections at least), or
        its class for the defaults.
    :param memory: bytes the stacks may use.
    :param connections: how many short connections to open one after another.
    :returns: how much was checked.
    :raises NotConforming: with each behaviour that failed.
    :raises Panic: the component panicked.

    >>> from unikit.net import Mini
    >>> from unikit.testing import check_stack
    >>> check_stack(Mini(), connections=100).checks > 10_000
    True
    """
    record = component() if isinstance(component, type) else component
    report = Report()
    clock = report.ffi.new("struct kit_virtual *")
    report.lib.kit_virtual_open(clock, report.ffi.NULL, 0, 1)
    pointer, options = load.component(record), load.options(record)
    with region(memory, hugepages="never") as arena, Tlsf().open(arena) as heap:
        report.run(report.lib.kit_suite_net, pointer, options, heap._ptr, clock, connections,
                   doing=f"checking {record.id}")
        heap.check()
    _check_words(record, pointer, _NET_WORDS, report)
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
