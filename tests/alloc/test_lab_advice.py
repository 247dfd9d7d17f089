"""Advice: weights, noise, and what is said."""

from __future__ import annotations

import pytest

from unikit.alloc.lab.advice import WEIGHTS, advise, rows
from unikit.alloc.lab.comparison import Comparison, Row, Run
from unikit.errors import InvalidArgument

pytestmark = pytest.mark.fast


def made(**given: tuple[str, float, float, float, float]) -> Comparison:
    """Return a comparison of allocators with kind, time, spread of time, memory and worst case."""
    table = []
    for name, (kind, time, noise, memory, worst) in {
            "glibc": ("baseline", 1.0, 0.0, 1.0, 1000.0), **given}.items():
        runs = [Run(at, time * (1 + noise * (at - 3) / 3), time, int(memory * 10**7))
                for at in range(7)]
        found = {"p50": 10.0, "p99.99": worst / 2, "max": worst}
        table.append(Row(name, kind, "", runs, operations={"malloc": found, "free": None}))
    return Comparison({"kind": "trace", "trace": "t"}, {}, {"rounds": 7}, table)


CHOICE = {"quick": ("component", 0.5, 0.01, 2.0, 4000.0),
          "lean": ("component", 1.1, 0.01, 0.5, 900.0),
          "steady": ("component", 0.98, 0.01, 1.0, 50.0)}


@pytest.mark.parametrize(("aim", "best"), [("speed", "quick"), ("memory", "lean"),
                                           ("latency", "steady")])
def test_the_aim_decides(aim: str, best: str) -> None:
    """What is best depends on what for."""
    given = advise(made(**CHOICE), aim)
    assert given.best is not None and given.best.row.name == best
    assert given.change
    assert given.text()[0].startswith(f"Use {best}:")


def test_weights_add_up_to_one() -> None:
    """A score is a mean."""
    assert all(sum(weights.values()) == pytest.approx(1) for weights in WEIGHTS.values())
    assert all(set(weights) == {"time", "memory", "tail", "worst"} for weights in WEIGHTS.values())


def test_a_score_is_the_weighted_mean() -> None:
    """Computed by hand: 0.5 ** 0.8 * 2 ** 0.2."""
    given = advise(made(quick=("component", 0.5, 0.0, 2.0, 1000.0)), "speed")
    assert given.best is not None
    assert given.best.score.median == pytest.approx(0.5 ** 0.8 * 2 ** 0.2)


def test_a_difference_within_the_noise_is_none() -> None:
    """It is said so, and staying is offered."""
    given = advise(made(noisy=("component", 0.98, 0.3, 1.0, 1000.0)), "speed")
    assert not given.change
    assert "within the noise" in given.text()[0]


def test_worse_is_not_advised() -> None:
    """The best component may be worse than what is there."""
    given = advise(made(slow=("component", 2.0, 0.01, 1.0, 1000.0)), "speed")
    assert not given.change
    assert given.text()[0].startswith("Stay with glibc: the best component, slow, is worse")


def test_a_better_allocator_of_others_is_named() -> None:
    """Advice that hides a competitor is none."""
    given = advise(made(ours=("component", 0.9, 0.01, 1.0, 1000.0),
                        theirs=("installed", 0.5, 0.01, 1.0, 1000.0)), "speed")
    assert given.rival is not None and given.rival.row.name == "theirs"
    assert any(line.startswith("theirs, which is no component") for line in given.text())


def test_what_cannot_be_told_apart_is_named() -> None:
    """Two that overlap are both named."""
    given = advise(made(one=("component", 0.50, 0.1, 1.0, 1000.0),
                        two=("component", 0.51, 0.1, 1.0, 1000.0)), "speed")
    assert [each.row.name for each in given.near] == ["two"]
    assert "Not distinguishable from it: two." in given.text()


def test_the_share_of_the_program_puts_it_into_proportion() -> None:
    """Half of one per cent is not worth a change, and that is said."""
    given = advise(made(**CHOICE), "speed", duration=100.0)
    assert given.share == pytest.approx(0.01)
    assert given.gain == pytest.approx(0.005)
    assert "hardly noticeable" in given.text()[-1]
    assert "hardly" not in advise(made(**CHOICE), "speed", duration=2.0).text()[-1]


def test_failed_allocators_are_no_candidates() -> None:
    """A crash is a loss; without any component left, staying is the advice."""
    found = made(ours=("component", 0.5, 0.01, 1.0, 1000.0))
    found.rows[1].failures.append("SIGSEGV")
    given = advise(found)
    assert given.best is None and not given.change
    assert given.text() == ["No component got through the trace; stay with what you have."]
    assert given.to_json()["best"] is None


def test_evidence_has_a_row_for_each() -> None:
    """Scores ascending, the baseline among them."""
    given = advise(made(**CHOICE), "balance")
    names = [row[0][0] for row in rows(given)]
    assert sorted(names) == ["glibc", "lean", "quick", "steady"]
    medians = [each.score.median for each in given.scores]
    assert medians == sorted(medians)


def test_an_unknown_aim_is_refused() -> None:
    """With what there is."""
    with pytest.raises(InvalidArgument, match="balance, speed, memory, latency"):
        advise(made(), "beauty")
