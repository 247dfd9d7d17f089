"""Which allocator suits a trace: scores with stated weights, and how sure they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from unikit.alloc.lab import units
from unikit.alloc.lab.comparison import Comparison, Row, Spread
from unikit.errors import InvalidArgument

WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "balance": {"time": 0.5, "memory": 0.3, "tail": 0.1, "worst": 0.1},
    "speed": {"time": 0.8, "memory": 0.2, "tail": 0.0, "worst": 0.0},
    "memory": {"time": 0.2, "memory": 0.8, "tail": 0.0, "worst": 0.0},
    "latency": {"time": 0.2, "memory": 0.1, "tail": 0.4, "worst": 0.3},
}
"""What counts how much, by what it is for. Each is a ratio to the baseline: ``time`` and ``memory``
of the replay, ``tail`` and ``worst`` of single operations (the larger of malloc and free at
99.99 % and at most)."""

_NOTICEABLE = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """How one allocator fares: a weighted geometric mean of ratios; 1 is the baseline, less better.

    :ivar parts: the ratios that went in.
    """

    row: Row
    score: Spread
    parts: dict[str, Spread]


@dataclasses.dataclass(frozen=True, slots=True)
class Advice:
    """What to use, and why.

    :ivar aim: a key of :data:`WEIGHTS`.
    :ivar best: the best component; ``None``: no component got through.
    :ivar change: whether it is better than the baseline by more than the noise.
    :ivar near: others that cannot be told from it.
    :ivar rival: an allocator that is no component and better by more than the noise.
    :ivar share: the part of the recorded time that the allocator's work is; ``None``: unknown.
    :ivar scores: of all that got through, the best first.
    """

    aim: str
    best: Score | None
    change: bool
    near: tuple[Score, ...]
    rival: Score | None
    share: float | None
    scores: tuple[Score, ...]

    @property
    def gain(self) -> float | None:
        """The part of the recorded time that the best saves; negative: it costs."""
        if self.share is None or self.best is None:
            return None
        return self.share * (1 - self.best.parts["time"].median)

    def text(self) -> list[str]:
        """Return the advice in sentences."""
        if self.best is None:
            return ["No component got through the trace; stay with what you have."]
        name, score = self.best.row.name, self.best.score
        if self.change:
            said = [f"Use {name}: {_better(self.best)} than glibc, score {units.ratio(score)} "
                    f"for {self.aim}."]
        elif score.certain:
            said = [f"Stay with glibc: the best component, {name}, is worse for {self.aim}, "
                    f"score {units.ratio(score)}."]
        else:
            said = [f"Stay with glibc, or take {name}: the difference is within the noise, score "
                    f"{units.ratio(score)} for {self.aim}."]
        if self.near:
            names = ", ".join(each.row.name for each in self.near)
            said.append(f"Not distinguishable from it: {names}.")
        if self.rival is not None:
            said.append(f"{self.rival.row.name}, which is no component of unikit, is better here: "
                        f"score {units.ratio(self.rival.score)}.")
        if self.share is not None and self.gain is not None:
            said.append(f"The allocator's work is about {units.percent(self.share)} of the "
                        f"recorded time, so the whole program would take about "
                        f"{units.percent(abs(self.gain))} {'less' if self.gain >= 0 else 'more'}"
                        + (": hardly noticeable." if abs(self.gain) < _NOTICEABLE else "."))
        return said

    def to_json(self) -> dict[str, Any]:
        """Return a form for ``json.dump``."""
        def form(each: Score) -> dict[str, Any]:
            return {"name": each.row.name, "kind": each.row.kind,
                    "score": dataclasses.asdict(each.score),
                    "parts": {key: dataclasses.asdict(part) for key, part in each.parts.items()}}
        return {"aim": self.aim, "weights": dict(WEIGHTS[self.aim]), "change": self.change,
                "best": None if self.best is None else self.best.row.name,
                "near": [each.row.name for each in self.near],
                "rival": None if self.rival is None else self.rival.row.name,
                "share": self.share, "gain": self.gain, "text": self.text(),
                "scores": [form(each) for each in self.scores]}


def advise(found: Comparison, aim: str = "balance", duration: float | None = None) -> Advice:
    """Weigh a comparison of replays.

    :param aim: a key of :data:`WEIGHTS`.
    :param duration: seconds that the trace was recorded for.
    :raises InvalidArgument: there is no such aim.
    """
    if aim not in WEIGHTS:
        raise InvalidArgument(f"advice for {aim!r}: give one of {', '.join(WEIGHTS)}")
    scores = [score for row in found.rows if not row.lost
              and (score := _score(found, row, WEIGHTS[aim])) is not None]
    scores.sort(key=lambda each: each.score.median)
    ours = [each for each in scores if each.row.kind == "component"]
    best = ours[0] if ours else None
    others = [each for each in scores if each is not best and each.row.kind != "baseline"]
    near = tuple(each for each in others if best is not None
                 and each.score.low <= best.score.high and best.score.low <= each.score.high)
    rival = next((each for each in others if best is not None and each.row.kind != "component"
                  and each.score.high < best.score.low), None)
    base = found.baseline.median("cpu")
    share = min(1.0, base / duration) if base is not None and duration else None
    change = best is not None and best.score.certain and best.score.median < 1
    return Advice(aim, best, change, near, rival, share, tuple(scores))


def _score(found: Comparison, row: Row, weights: Mapping[str, float]) -> Score | None:
    parts = {}
    for name, what in (("time", "cpu"), ("memory", "peak")):
        ratio = found.ratio(row, what)
        if ratio is None or ratio.low <= 0:
            return None
        parts[name] = Spread(1.0, 1.0, 1.0, ratio.count) if row is found.baseline else ratio
    for name, what in (("tail", "p99.99"), ("worst", "max")):
        mine, base = _slowest(row, what), _slowest(found.baseline, what)
        if mine and base:
            parts[name] = Spread(mine / base, mine / base, mine / base, parts["time"].count)
    total = sum(weights[name] for name in parts)

    def mean(edge: str) -> float:
        return math.exp(sum(weights[name] * math.log(getattr(part, edge))
                            for name, part in parts.items()) / total)

    return Score(row, Spread(mean("median"), mean("low"), mean("high"), parts["time"].count), parts)


def _slowest(row: Row, what: str) -> float | None:
    """Return the larger of malloc and free at a percentile; what is not measurable counts 1 ns."""
    found = row.operations or {}
    values = [max(1.0, float(found[name][what])) for name in ("malloc", "free") if found.get(name)]
    return max(values) if values else None


def _better(score: Score) -> str:
    """Say which parts are better and which worse."""
    said = []
    for name, less, more in (("time", "faster", "slower"), ("memory", "smaller", "larger")):
        part = score.parts[name]
        if part.certain:
            word = less if part.median < 1 else more
            said.append(f"{abs(1 - part.median):.0%} {word}")
    return " and ".join(said) or "better"


HEADERS = ("allocator", "score", "time", "memory", "tail", "worst")


def rows(advice: Advice) -> list[list[tuple[str, str]]]:
    """Return the evidence as cells of text and class; see :data:`HEADERS`."""
    made = []
    for each in advice.scores:
        base = each.row.kind == "baseline"
        kind = "dim" if not each.score.certain else "good" if each.score.median < 1 else "bad"
        cells = [(each.row.name, ""), ("1", "dim") if base else (units.ratio(each.score), kind)]
        for name in ("time", "memory", "tail", "worst"):
            part = each.parts.get(name)
            text = "n/a" if part is None else f"{part.median:.2f}"
            cells.append((text, "dim" if part is None or base else ""))
        made.append(cells)
    return made
