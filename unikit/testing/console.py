"""``check_console()``: the conformance suite of the console interface, in this process."""

from __future__ import annotations

import contextlib
from typing import Any

from unikit.alloc import Tlsf, region
from unikit.ffi import load
from unikit.net import Loopback, Mini
from unikit.platform.console.api import ConsoleComponent
from unikit.testing.report import Failure, Outcome, Report
from unikit.testing.virtual import VirtualEnvironment

MEMORY = "64M"
"""What the console may take of its allocator; untouched memory costs nothing."""


def check_console(component: ConsoleComponent | type[ConsoleComponent],
                  memory: int | str = MEMORY) -> Outcome:
    """Check that a console keeps the contract of ``console.h`` and of the environment's consoles.

    It runs on a virtual environment, an allocator, a stack over a loopback, and two inner consoles.

    :param component: a record with the options to test, or its class for the defaults.
    :param memory: bytes it may take; it is opened several times.
    :returns: how much was checked.
    :raises NotConforming: with each behaviour that failed.
    :raises Panic: the component panicked.

    >>> from unikit.platform.console import Buffer
    >>> from unikit.testing import check_console
    >>> check_console(Buffer(size=256)).checks > 100
    True
    """
    record = component() if isinstance(component, type) else component
    report = Report()
    pointer = load.component(record)
    with contextlib.ExitStack() as parts:
        env = parts.enter_context(VirtualEnvironment())
        arena = parts.enter_context(region(memory, hugepages="never"))
        heap = parts.enter_context(Tlsf().open(arena))
        loop = parts.enter_context(Loopback().open())
        stack = parts.enter_context(Mini(address="127.0.0.2/8").open(loop, heap=heap, env=env))
        console = env.ptr.console
        given = report.ffi.new("struct kit_console_parts *", {
            "env": env.ptr, "alloc": heap._ptr, "net": stack._ptr, "inner": [console, console],
            "inner_count": 2})
        report.run(report.lib.kit_suite_console, pointer, load.options(record), given,
                   doing=f"checking {record.id}")
    _check_words(record, pointer, report)
    return report.outcome(record.id)


def _check_words(record: ConsoleComponent, pointer: Any, report: Report) -> None:
    """Compare what the record says with what the C side says."""
    name = report.ffi.string(pointer.id).decode()
    for what, here, there in (("id", record.id, name), ("abi", record.abi, pointer.abi)):
        if here != there:
            report.failures.append(Failure("the record says what the C side says", __file__, 0,
                                           f"{what}: {here} in Python, {there} in C"))
