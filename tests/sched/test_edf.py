"""sched.edf: the record. Reservations and their guarantee are in the conformance suite."""

from __future__ import annotations

import pytest

from unikit.errors import CompositionError
from unikit.sched import Edf
from unikit.testing import check_scheduler

pytestmark = pytest.mark.fast


def test_conforms_in_this_process() -> None:
    """The record and its C side agree, and the whole suite passes through cffi."""
    assert check_scheduler(Edf(stack="32K"), "24M").checks > 10_000


@pytest.mark.parametrize("limit", [0, 101, "all"])
def test_a_limit_out_of_range_is_refused(limit: object) -> None:
    """More than the whole processor cannot be promised."""
    with pytest.raises(CompositionError, match="limit"):
        Edf(limit=limit)
