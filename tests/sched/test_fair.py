"""sched.fair: the record. Shares and their bounds are in the conformance suite."""

from __future__ import annotations

import pytest

from unikit.errors import CompositionError
from unikit.sched import Fair
from unikit.testing import check_scheduler

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("record", [Fair(stack="32K"), Fair(stack="32K", slice="100us")],
                         ids=["default", "short slices"])
def test_conforms_in_this_process(record: Fair) -> None:
    """The record and its C side agree, and the whole suite passes through cffi."""
    assert check_scheduler(record, "24M").checks > 10_000


@pytest.mark.parametrize("slice", ["10ns", "11s", "soon"])
def test_a_slice_out_of_range_is_refused(slice: str) -> None:
    """A slice below a microsecond is all switching; above ten seconds nobody is served."""
    with pytest.raises(CompositionError, match="slice"):
        Fair(slice=slice)
