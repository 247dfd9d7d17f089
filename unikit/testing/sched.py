"""``check_scheduler()``: the conformance suite of the scheduler interface, in this process."""

from __future__ import annotations

from unikit.alloc import Tlsf, region
from unikit.errors import Panic
from unikit.ffi import load
from unikit.sched.api import Scheduler
from unikit.sched.policy import raise_failure
from unikit.testing.report import Failure, Outcome, Report

MEMORY = "160M"
"""What the suite gets; it touches what the most tasks need, some 100 MiB at most."""


def check_scheduler(component: Scheduler | type[Scheduler],
                    memory: int | str = MEMORY) -> Outcome:
    """Check that a scheduler keeps the contract of ``sched.h`` and has what it claims.

    Where it claims threads, the synchronisation of ``sched/sync.h`` is checked on it as well. The
    suite runs on a virtual clock, without guard pages.

    :param component: a record with the options to test, or its class for the defaults; or a
        :class:`~unikit.sched.Policy` in Python.
    :param memory: bytes the suite may use; with little, fewer tasks are made at once.
    :returns: how much was checked.
    :raises NotConforming: with each behaviour that failed.
    :raises Panic: the component panicked.
    :raises CallbackError: a policy in Python raised; the message names the method.
    :raises Corrupt: a policy in Python named a task that it does not have, or lost one.

    >>> from unikit.sched import Loop
    >>> from unikit.testing import check_scheduler
    >>> check_scheduler(Loop()).checks > 10_000
    True
    """
    record = component() if isinstance(component, type) else component
    report = Report()
    clock = report.ffi.new("struct kit_virtual *")
    report.lib.kit_virtual_open(clock, report.ffi.NULL, 0, 1)
    with region(memory, hugepages="never") as arena, Tlsf().open(arena) as heap:
        options = load.options(record)
        try:
            report.run(report.lib.kit_suite_sched, load.component(record), options, heap._live(),
                       clock, doing=f"checking {record.id}")
        except Panic:
            raise_failure(record)
            raise
    _check_words(record, report)
    return report.outcome(record.id)


def _check_words(record: Scheduler, report: Report) -> None:
    """Compare what the record says with what the C side says."""
    component = load.component(record)
    words = {"threads": 1, "priorities": 2, "weights": 4, "reservations": 8, "cpus": 16,
             "preemption": 32}
    claimed = frozenset(word for word, bit in words.items() if component.features & bit)
    name = report.ffi.string(component.id).decode()
    for what, here, there in (("features", sorted(record.features), sorted(claimed)),
                              ("id", record.id, name), ("abi", record.abi, component.abi)):
        if here != there:
            report.failures.append(Failure("the record says what the C side says", __file__, 0,
                                           f"{what}: {here} in Python, {there} in C"))
