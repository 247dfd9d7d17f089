"""Many random task sets on a scheduler: what a claim about all task sets is tested with."""

from __future__ import annotations

import dataclasses
import math
import random
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from unikit.alloc import Tlsf
from unikit.component import parse_duration
from unikit.errors import InvalidArgument
from unikit.ffi import load
from unikit.sched.lab.taskset import SimTask, Time

if TYPE_CHECKING:
    from unikit.sched.api import Scheduler

_US, _MS = 1_000, 1_000_000
PERIODS = tuple(each * _MS for each in (1, 2, 4, 5, 8, 10, 20, 40))
"""Divisors of 40 ms: all of a set's releases come about within one short hyperperiod."""
_CHUNK, _SEGMENTS, _ENDLESS = 500, 4096, 1 << 60
_REFUSED, _MISSED, _BROKEN = 1, 2, 3


@dataclasses.dataclass(frozen=True, slots=True)
class Sweep:
    """What came of many task sets.

    :ivar policy: id of the scheduler.
    :ivar sets: that were admitted and simulated.
    :ivar refused: that were not admitted; others took their place.
    :ivar failed: sets with a deadline missed or a lag beyond the bound; the first ones, at most 10.
    :ivar failures: how many these were.
    :ivar jobs: in all.
    :ivar switches: in all.
    :ivar simulated: time of all simulations, ns.
    :ivar overhead: of that, in switches and in the scheduler, ns.
    :ivar most_lag: largest lag of any task at any time, ns; 0 where deadlines were judged.
    """

    policy: str
    sets: int
    refused: int
    failed: tuple[tuple[SimTask, ...], ...]
    failures: int
    jobs: int
    switches: int
    simulated: int
    overhead: int
    most_lag: int


def sweep(policy: Scheduler, sets: int, *, seed: int = 0, tasks: tuple[int, int] = (2, 10),
          utilisation: tuple[float, float] = (0.05, 1.0), switch: Time = 0, call: Time = 0,
          lag: Time = 0, until: Time = "100ms", tell: Callable[[int], None] | None = None
          ) -> Sweep:
    """Simulate random task sets until so many were admitted.

    Under a policy with reservations each task reserves its work and the switches that it may need,
    and every deadline is judged over the hyperperiod; half of the sets are released together, the
    others at random offsets. Utilisations are UUniFast's, periods :data:`PERIODS`. Under a policy
    with weights each task works without end, and the lag of each is judged whenever one stops.

    :param sets: how many to simulate.
    :param tasks: fewest and most of a set, up to 64.
    :param utilisation: least and most of a set, drawn evenly.
    :param switch: what each change of the running task costs.
    :param call: what the scheduler takes from one of its readings of the clock to the next.
    :param lag: the bound to judge; for policies with weights.
    :param until: end of each simulation, for policies with weights.
    :param tell: called with the number of sets done so far, now and then.
    :raises InvalidArgument: a policy with neither, or one that refuses nearly everything.

    >>> from unikit.sched import Edf
    >>> sweep(Edf(), 20, switch="100ns", call="100ns").failures
    0
    """
    reserves = "reservations" in policy.features
    if not reserves and "weights" not in policy.features:
        raise InvalidArgument(f"sweeping {policy.id}: it promises neither reservations nor weights")
    run = _Sweep(policy, parse_duration(switch), parse_duration(call),
                 0 if reserves else max(parse_duration(lag), 1))
    rng = random.Random(seed)
    draw = _periodic(rng, tasks, utilisation) if reserves else _weighted(
        rng, tasks, parse_duration(until))
    with Tlsf().open("16M") as heap:
        while run.admitted < sets:
            if run.drawn > 100 + 100 * max(run.admitted, sets // 100):
                raise InvalidArgument(f"sweeping {policy.id}: of {run.drawn} sets it refused all "
                                      f"but {run.admitted}; lower the utilisation")
            run.chunk(heap, [next(draw) for _ in range(min(_CHUNK, sets - run.admitted))])
            if tell is not None:
                tell(run.admitted)
    return run.result()


class _Set(NamedTuple):
    end: int
    works: list[int]
    periods: list[int]
    offsets: list[int]
    weights: list[int]


def _periodic(rng: random.Random, tasks: tuple[int, int], utilisation: tuple[float, float]
              ) -> Iterator[_Set]:
    """Draw periodic sets: UUniFast (E. Bini, G. Buttazzo, Real-Time Systems 30, 2005)."""
    uniform = rng.random
    while True:
        count = rng.randint(*tasks)
        left = rng.uniform(*utilisation)
        works, periods, offsets = [], [], []
        together = uniform() < 0.5
        for n in range(count):
            rest = left * uniform() ** (1 / (count - n - 1)) if n + 1 < count else 0.0
            share, left = left - rest, rest
            period = rng.choice(PERIODS)
            works.append(max(_US, int(period * share)))
            periods.append(period)
            offsets.append(0 if together else int(uniform() * period))
        # one more ns: a job that is not done at its deadline, the end, has missed it
        yield _Set(math.lcm(*periods) + max(offsets) + 1, works, periods, offsets, [0] * count)


def _weighted(rng: random.Random, tasks: tuple[int, int], until: int) -> Iterator[_Set]:
    while True:
        count = rng.randint(*tasks)
        weights = [max(1, round(2 ** rng.uniform(4, 14))) for _ in range(count)]
        yield _Set(until, [_ENDLESS] * count, [0] * count, [0] * count, weights)


class _Sweep:
    """The C side, called for some hundred sets at a time."""

    def __init__(self, policy: Scheduler, switch: int, call: int, lag: int) -> None:
        self.ffi, self.lib = load.extension("unikit.sched.lab._lab")
        self.policy = policy
        self.sweep = self.ffi.new("struct kit_sweep *")
        self.sweep.switch_ns, self.sweep.call_ns, self.sweep.lag_ns = switch, call, lag
        self.segments = self.ffi.new("struct kit_sim_segment[]", _SEGMENTS if lag else 1)
        self.sweep.segments, self.sweep.segments_max = self.segments, _SEGMENTS if lag else 0
        self.failed: list[tuple[SimTask, ...]] = []
        self.drawn = 0

    @property
    def admitted(self) -> int:
        """How many were simulated."""
        return int(self.sweep.fine + self.sweep.missed)

    def chunk(self, heap: Any, sets: list[_Set]) -> None:
        """Simulate some sets."""
        self.drawn += len(sets)
        kept = {"counts": array("I", [len(each.works) for each in sets]),
                "ends_ns": array("Q", [each.end for each in sets]),
                "works_ns": array("Q", [work for each in sets for work in each.works]),
                "periods_ns": array("Q", [period for each in sets for period in each.periods]),
                "offsets_ns": array("Q", [offset for each in sets for offset in each.offsets]),
                "weights": array("I", [weight for each in sets for weight in each.weights])}
        views = {name: self.ffi.from_buffer(f"uint{8 * values.itemsize}_t[]", values)
                 for name, values in kept.items()}
        for name, view in views.items():
            setattr(self.sweep, name, view)
        outcomes = self.ffi.new("uint8_t[]", len(sets))
        self.sweep.sets, self.sweep.outcomes = len(sets), outcomes
        load.check(self.lib.kit_sweep_run(self.sweep, load.component(self.policy),
                                          load.options(self.policy), heap._live()),
                   f"simulating {len(sets)} task sets on {self.policy.id}")
        for each, outcome in zip(sets, outcomes, strict=True):
            if outcome == _BROKEN:
                raise InvalidArgument(f"simulating {self._tasks(each)} on {self.policy.id} failed")
            if outcome == _MISSED and len(self.failed) < 10:
                self.failed.append(self._tasks(each))

    def _tasks(self, each: _Set) -> tuple[SimTask, ...]:
        return tuple(SimTask(f"t{n}", work, period, offset=offset, weight=weight)
                     for n, (work, period, offset, weight)
                     in enumerate(zip(*each[1:], strict=True)))

    def result(self) -> Sweep:
        """Return what came of it."""
        found = self.sweep
        return Sweep(self.policy.id, self.admitted, int(found.refused), tuple(self.failed),
                     int(found.missed), int(found.jobs), int(found.switches),
                     int(found.simulated_ns), int(found.overhead_ns), int(found.lag_most_ns))
