"""Schedulability tests: what theory says of a task set, to be put beside what a simulation shows.

All of them are about independent periodic tasks on one processor that are preempted at no cost.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from unikit.sched.lab.taskset import SimTask


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a test says.

    :ivar test: its name.
    :ivar schedulable: ``True``: every deadline is met; ``False``: one can be missed; ``None``: the
        test, which is only sufficient, cannot tell.
    :ivar value: what was computed, and ``bound`` what it is compared with.
    :ivar source: where the test is from.
    """

    test: str
    schedulable: bool | None
    value: float
    bound: float
    source: str


def utilisation(tasks: Sequence[SimTask]) -> float:
    """Return the part of the processor that the periodic tasks need at most."""
    return sum(task.utilisation for task in tasks)


def liu_layland(tasks: Sequence[SimTask]) -> Verdict:
    """Compare the utilisation with the bound for rate-monotonic priorities, n(2^(1/n) - 1)."""
    count = sum(1 for task in tasks if task.period)
    bound = count * (2 ** (1 / count) - 1) if count else 1.0
    value = utilisation(tasks)
    sure = value <= bound and _implicit(tasks)
    return Verdict("utilisation bound", True if sure else False if value > 1 else None, value,
                   bound, "C. L. Liu, J. W. Layland, JACM 20(1), 1973, theorem 5")


def hyperbolic(tasks: Sequence[SimTask]) -> Verdict:
    """Compare the product of (u + 1) with 2, for rate-monotonic priorities."""
    value = math.prod(task.utilisation + 1 for task in tasks if task.period)
    sure = value <= 2 and _implicit(tasks)
    return Verdict("hyperbolic bound", True if sure else False if utilisation(tasks) > 1 else None,
                   value, 2.0, "E. Bini, G. Buttazzo, ECRTS 2001, theorem 1")


def response_times(tasks: Sequence[SimTask]) -> list[int | None]:
    """Return the worst response time of each task under fixed priorities, ns.

    Exact for deadlines up to the period, tasks of one priority taken as higher for each other.
    ``None``: it is longer than the deadline, or the task has no period.

    Source: M. Joseph, P. Pandya, The Computer Journal 29(5), 1986; N. Audsley et al., 1993.
    """
    found: list[int | None] = []
    for number, task in enumerate(tasks):
        if not task.period:
            found.append(None)
            continue
        above = [other for n, other in enumerate(tasks)
                 if n != number and other.period and other.priority >= task.priority]
        limit, time = task.limit_ns, task.wcet_ns
        while time <= limit:
            demand = task.wcet_ns + sum(
                -(-time // other.period_ns) * other.wcet_ns
                for other in above)
            if demand == time:
                break
            time = demand
        found.append(time if time <= limit else None)
    return found


def fixed_priorities(tasks: Sequence[SimTask]) -> Verdict:
    """Say by response-time analysis whether fixed priorities meet all deadlines; exact."""
    periodic = [(task, time) for task, time in zip(tasks, response_times(tasks), strict=True)
                if task.period]
    worst = max((math.inf if time is None else time / task.limit_ns
                 for task, time in periodic), default=0.0)
    return Verdict("response-time analysis", worst <= 1, worst, 1.0,
                   "M. Joseph, P. Pandya, The Computer Journal 29(5), 1986")


def demand(tasks: Sequence[SimTask], time_ns: int) -> int:
    """Return the work that must be done within any stretch of that length (demand bound), ns."""
    return sum(max(0, (time_ns - task.limit_ns)
                   // task.period_ns + 1) * task.wcet_ns
               for task in tasks if task.period)


def deadlines(tasks: Sequence[SimTask]) -> Verdict:
    """Say by the processor demand criterion whether EDF meets all deadlines; exact.

    Only stretches up to the point of no return are looked at, from the end backwards.

    Source: S. Baruah, L. Rosier, R. Howell, Real-Time Systems 2, 1990; F. Zhang, A. Burns, IEEE
    Transactions on Computers 58(9), 2009 (quick processor-demand analysis).
    """
    source = "F. Zhang, A. Burns, IEEE Transactions on Computers 58(9), 2009"
    periodic = [task for task in tasks if task.period]
    total = utilisation(periodic)
    if total > 1 + 1e-12:
        return Verdict("processor demand", False, total, 1.0, source)
    if not periodic or _implicit(periodic):
        return Verdict("processor demand", True, total, 1.0, source)
    limit = _horizon(periodic, total)
    least = min(task.limit_ns for task in periodic)
    time, worst = _deadline_before(periodic, limit), 0.0
    while time >= least:
        need = demand(periodic, time)
        worst = max(worst, need / time)
        if need > time:
            return Verdict("processor demand", False, need / time, 1.0, source)
        time = need if need < time else _deadline_before(periodic, time)
    return Verdict("processor demand", True, worst, 1.0, source)


def schedulable(tasks: Sequence[SimTask], policy: str) -> list[Verdict]:
    """Return the tests that speak of a policy, by its name or id; none for one without a theory."""
    name = policy.rpartition(".")[2]
    if name == "prio":
        return [liu_layland(tasks), hyperbolic(tasks), fixed_priorities(tasks)]
    return [deadlines(tasks)] if name == "edf" else []


def _implicit(tasks: Sequence[SimTask]) -> bool:
    return all(not task.period or task.limit_ns >= task.period_ns
               for task in tasks)


def _deadline_before(tasks: Sequence[SimTask], limit: int) -> int:
    """Return the last absolute deadline before a time, of tasks released together; 0: none."""
    latest = 0
    for task in tasks:
        first, period = task.limit_ns, task.period_ns
        if first < limit:
            latest = max(latest, first + (limit - 1 - first) // period * period)
    return latest


def _horizon(tasks: Sequence[SimTask], total: float) -> int:
    """Return a time beyond which no stretch can be the first to fail."""
    busy = sum(task.wcet_ns for task in tasks)
    while True:  # length of the synchronous busy period; ends for a utilisation up to 1
        longer = sum(-(-busy // task.period_ns) * task.wcet_ns for task in tasks)
        if longer == busy or longer > 1 << 62:
            break
        busy = longer
    if total >= 1:
        return busy + 1
    slack = sum((task.period_ns - task.limit_ns) * task.utilisation for task in tasks)
    longest = max(task.limit_ns for task in tasks)
    return min(busy, max(longest, math.ceil(slack / (1 - total)))) + 1
