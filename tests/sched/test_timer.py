"""The timer wheel against a list."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import ROOT, VARIANTS, build, conforms, run

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent
TIMER = ROOT / "unikit/sched/timer.c"

MUTATIONS = [
    ("timer->previous = last;\n        timer->next = last->next;\n        last->next->previous",
     "timer->previous = last;\n        timer->next = last->next;\n        last->previous"),
    ("if (timer->deadline_ns < slot->first_ns)\n", "if (0)\n"),
    ("queue->now_ns = clock_ns < now_ns ? clock_ns : now_ns;",
     "queue->now_ns = clock_ns < now_ns ? now_ns : now_ns;"),
    ("timer->deadline_ns <= now_ns);", "true);"),
    ("slot->first_ns != 0 ? slot->first_ns : timer_begins(queue, index);\n}", "slot->first_ns;\n}"),
]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_wheel_agrees_with_a_list(variant: str, seed: int) -> None:
    """Order, equal deadlines, the whole range of time, jumps of the clock, changes in a turn."""
    program = build([HERE / "program_timer.c", "unikit/sched/timer.c"], variant=variant)
    conforms(program, seed, 40_000)


@pytest.mark.parametrize("number", range(len(MUTATIONS)))
def test_a_broken_wheel_is_noticed(number: int, tmp_path: Path) -> None:
    """A model that agrees with everything proves nothing."""
    right, wrong = MUTATIONS[number]
    text = TIMER.read_text()
    assert right in text, "the mutation no longer fits the source"
    broken = tmp_path / "timer.c"
    broken.write_text(text.replace(right, wrong))
    program = build([HERE / "program_timer.c", broken], variant="sanitized")
    assert any(run(program, seed, 40_000).returncode for seed in (1, 2, 3))
