"""What runs of one program under several allocators say: medians, paired ratios, verdicts.

Pure arithmetic over what was measured; nothing is started here. A *round* runs every allocator
once; ratios are taken within a round, so that what changes slowly on the machine changes both.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from unikit.errors import Malformed

VERSION = 1
"""Of the JSON form; grows when a reader of the old one could be misled."""


_FEWEST = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run of the program.

    :ivar round: its number, from 0; runs of one round belong together.
    :ivar cpu: seconds of CPU time, user and system, all processes.
    :ivar wall: seconds from start to end; of a server: while it was loaded.
    :ivar peak: bytes of memory of the largest process at its largest.
    :ivar faults: page faults.
    :ivar settled: bytes of memory of all processes once the load was over; servers only.
    :ivar throughput: what the load reported, in units per second; servers only.
    :ivar user: seconds of CPU time outside the kernel.
    :ivar switches: context switches.
    :ivar cost: seconds of CPU time per unit of the load; servers whose throughput is known. Under
        a load of fixed length the quicker server does more, so its CPU time says nothing.
    """

    round: int
    cpu: float
    wall: float
    peak: int
    faults: int = 0
    settled: int | None = None
    throughput: float | None = None
    user: float = 0.0
    switches: int = 0
    cost: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """A median with an interval that it lies in with about 95 %.

    :ivar low: below 6 values simply the smallest; the interval is then that of fewer per cent.
    :ivar count: of values.
    """

    median: float
    low: float
    high: float
    count: int = 0

    @property
    def certain(self) -> bool:
        """Of a ratio: whether it differs from 1 by more than the noise.

        Fewer than 5 values are never certain: chance puts all on one side too often.
        """
        return self.count >= _FEWEST and not self.low <= 1 <= self.high


def spread(values: Sequence[float]) -> Spread | None:
    """Return median and interval by order statistics (the sign test); ``None`` of nothing.

    Source: any textbook on nonparametric statistics; no distribution is assumed.
    """
    if not values:
        return None
    ordered = sorted(values)
    count = len(ordered)
    rank, tail = 0, 0.5 ** count
    while 2 * (tail + math.comb(count, rank + 1) * 0.5 ** count) <= 0.05:
        rank += 1
        tail += math.comb(count, rank) * 0.5 ** count
    return Spread(statistics.median(ordered), ordered[rank], ordered[count - 1 - rank], count)


@dataclasses.dataclass(slots=True)
class Row:
    """One allocator: what it is, its runs, and how it failed.

    :ivar kind: as of a candidate: ``baseline``, ``component``, ``installed``, ``file``, ``own``.
    :ivar failures: one text per failed run: ``SIGSEGV``, ``exit 1``, ``timeout``.
    :ivar notes: what a reader must know.
    :ivar operations: latency and fragmentation of a replay, where one was made.
    """

    name: str
    kind: str
    version: str = ""
    runs: list[Run] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    operations: dict[str, Any] | None = None

    @property
    def lost(self) -> bool:
        """Whether any run failed; such an allocator is placed behind all others."""
        return bool(self.failures) or not self.runs

    def median(self, what: str) -> float | None:
        """Return the median of a field of its runs, ``None`` where it was not measured."""
        values = [value for run in self.runs if (value := getattr(run, what)) is not None]
        return statistics.median(values) if values else None


@dataclasses.dataclass(slots=True)
class Comparison:
    """Everything one comparison found.

    :ivar subject: what ran: ``words`` and ``kind`` (``program``, ``server``, ``trace``).
    :ivar machine: facts about the machine, as texts.
    :ivar method: how it was measured: rounds, seed, pinning and the like.
    :ivar rows: the baseline first.
    """

    subject: dict[str, Any]
    machine: dict[str, str]
    method: dict[str, Any]
    rows: list[Row]
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def baseline(self) -> Row:
        """The row that ratios refer to."""
        return next(row for row in self.rows if row.kind == "baseline")

    def ratio(self, row: Row, what: str) -> Spread | None:
        """Return a row's ratios to the baseline, paired by rounds; ``None``: cannot be had."""
        base = {run.round: getattr(run, what) for run in self.baseline.runs}
        pairs = [value / base[run.round] for run in row.runs
                 if (value := getattr(run, what)) is not None and base.get(run.round)]
        return spread(pairs)

    @property
    def principal(self) -> str:
        """The measure of speed: CPU time, of a server per unit of its load where that is known."""
        return "cost" if self.baseline.median("cost") is not None else "cpu"

    def ranked(self, what: str | None = None) -> list[Row]:
        """Return the rows, the least first; failures are losses and come last.

        :param what: a key of :data:`MEASURES`; default: :attr:`principal`.
        """
        measure = what or self.principal

        def place(row: Row) -> tuple[bool, float]:
            found = self.ratio(row, measure)
            return row.lost, found.median if found else math.inf
        return sorted(self.rows, key=place)

    def verdict(self) -> str:
        """Say in a sentence or two what came out; differences within the noise are none."""
        good = [row for row in self.ranked() if not row.lost and row is not self.baseline]
        what = self.principal
        sure = [(row, found) for row in good if (found := self.ratio(row, what)) is not None]
        if not sure:
            return "nothing to compare with: no other allocator got through every run"
        best, found = sure[0]
        near = [row.name for row, other in sure[1:] if other.low <= found.high]
        if not found.certain or found.median >= 1:
            text = (f"no allocator makes it measurably faster than {self.baseline.name}"
                    if not found.certain else f"{self.baseline.name} is the fastest")
        else:
            per = " per request" if what == "cost" else ""
            text = f"{best.name} takes {1 - found.median:.0%} less CPU time{per} than " \
                   f"{self.baseline.name}"
            if near:
                text += f" ({_some(near)} not distinguishable from it)"
        lean = [row for row in self.ranked("peak") if not row.lost]
        memory = self.ratio(lean[0], "peak") if lean else None
        if memory is not None and lean[0] is not self.baseline and memory.certain \
                and memory.median < 0.97:
            text += f"; least memory: {lean[0].name}, {1 - memory.median:.0%} less"
        lost = [row.name for row in self.rows if row.lost]
        return text + (f"; failed: {', '.join(lost)}" if lost else "")

    def to_json(self) -> dict[str, Any]:
        """Return a form for ``json.dump``; ratios are included for readers without this class."""
        rows = []
        for row in self.rows:
            form = {"name": row.name, "kind": row.kind, "version": row.version,
                    "runs": [dataclasses.asdict(run) for run in row.runs],
                    "failures": row.failures, "notes": row.notes, "operations": row.operations,
                    "median": {what: row.median(what) for what in MEASURES},
                    "ratio": {what: None if (found := self.ratio(row, what)) is None
                              else dataclasses.asdict(found) for what in MEASURES}}
            rows.append(form)
        return {"format": "unikit alloc compare", "version": VERSION, "subject": self.subject,
                "machine": self.machine, "method": self.method, "verdict": self.verdict(),
                "notes": self.notes, "rows": rows}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Comparison:
        """Return what :meth:`to_json` gave.

        :raises Malformed: it is something else, or of a newer version.
        """
        try:
            if form["format"] != "unikit alloc compare" or form["version"] != VERSION:
                raise Malformed(f"not a comparison of version {VERSION}")
            rows = [Row(row["name"], row["kind"], row["version"],
                        [Run(**run) for run in row["runs"]], list(row["failures"]),
                        list(row["notes"]), row["operations"]) for row in form["rows"]]
            return cls(dict(form["subject"]), dict(form["machine"]), dict(form["method"]), rows,
                       list(form["notes"]))
        except (KeyError, TypeError) as error:
            raise Malformed(f"not a comparison: {error}") from error


MEASURES: Mapping[str, str] = {
    "cpu": "CPU time, s", "cost": "CPU time per unit of the load, s",
    "wall": "elapsed, s", "peak": "peak memory, bytes",
    "faults": "page faults", "settled": "memory after the load, bytes",
    "throughput": "throughput of the load, 1/s",
}
"""Fields of :class:`Run` that are compared, with what they are."""


def _some(names: Sequence[str], most: int = 3) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
