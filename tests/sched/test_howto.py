"""The scheduler of docs/howto/write-a-scheduler.rst does what the page says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from compiled import ROOT, VARIANTS, build, conforms, run

from unikit.sched import Scheduler

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent
SUITE = [ROOT / "tests/conformance/main_sched.c", "unikit/testing/virtual.c", "unikit/sched/sync.c",
         *sorted((ROOT / "unikit/testing").glob("suite_sched*.c"))]


def rank() -> type[Scheduler]:
    """Import the page's record."""
    spec = importlib.util.spec_from_file_location("rank", HERE / "example/rank.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys
    sys.modules["rank"] = module
    spec.loader.exec_module(module)
    record: type[Scheduler] = module.Rank
    return record


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_example_conforms(variant: str) -> None:
    """What people copy must be right."""
    record = rank()(stack="64K")  # type: ignore[call-arg]
    program = build([*SUITE, *record.source_files()], variant=variant,
                    defines={"COMPONENT": record.symbol()}, flags=["-Wconversion", "-Wshadow"])
    conforms(program, *record.encoded())


def test_the_example_runs_the_upper_rank_first() -> None:
    """Each turn: first those with a priority, then the others, in order of arrival."""
    record = rank()()
    program = build([HERE / "program_rank.c", "unikit/testing/virtual.c", *record.source_files()],
                    variant="optimised", defines={"COMPONENT": record.symbol()})
    assert run(program).stdout == "BDace BDace BDace\n"


def test_the_page_shows_the_files_that_are_tested() -> None:
    """All of both files, and not another copy."""
    page = (ROOT / "docs/howto/write-a-scheduler.rst").read_text()
    assert page.count("literalinclude:: ../../tests/sched/example/rank.c") == 2
    assert "literalinclude:: ../../tests/sched/example/rank.py" in page
    assert len((HERE / "example/rank.c").read_text().splitlines()) < 100
    assert "literalinclude:: ../../tests/sched/example/shortest.py" in page
    assert len((HERE / "example/shortest.py").read_text().splitlines()) < 40
