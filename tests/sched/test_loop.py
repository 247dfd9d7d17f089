"""sched.loop: the conformance suite, hosted with and without sanitizers."""

from __future__ import annotations

import pytest
from sched_program import BUILDS, build, run

from unikit.sched import Loop

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("how", BUILDS)
def test_loop_conforms(how: str) -> None:
    """The suite finds nothing; any deviation from sched.h shows here first."""
    status, output = run(build(Loop, "tests/conformance/main_sched.c", how))
    assert status == 0, output
    assert output.endswith(" 0 failures\n")
