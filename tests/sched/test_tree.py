"""The tree that policies keep their tasks in."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import VARIANTS, build, conforms

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_tree_agrees_with_a_list(variant: str, seed: int) -> None:
    """Order, first in first out among equals, the least value: also across the wrap of time."""
    program = build([Path(__file__).resolve().parent / "program_tree.c", "unikit/sched/tree.c"],
                    variant=variant)
    conforms(program, seed, 20_000)
