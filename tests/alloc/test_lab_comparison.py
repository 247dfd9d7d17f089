"""Medians, paired ratios, verdicts, and the pages and pictures made of them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import statistics
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from html_check import check_page
from hypothesis import given
from hypothesis import strategies as st

from unikit.alloc.lab import charts, pictures, units
from unikit.alloc.lab.comparison import Comparison, Row, Run, spread
from unikit.alloc.lab.page import Page
from unikit.errors import InvalidArgument, Malformed, NotSupported

pytestmark = pytest.mark.fast

def sample(**changes: list[float]) -> Comparison:
    """Return a comparison of made-up runs: glibc, one that is twice as fast, one that crashes."""
    times = {"glibc": [1.0, 1.1, 0.9, 1.0, 1.05, 1.0], "half": [0.5, 0.56, 0.44, 0.5, 0.52, 0.5],
             "same": [1.01, 1.09, 0.91, 0.99, 1.06, 1.0], **changes}
    kinds = {"glibc": "baseline", "half": "component"}
    rows = [Row(name, kinds.get(name, "installed"), "1.0",
                [Run(at, value, value * 2, 10 << 20 if name == "glibc" else 8 << 20, 100)
                 for at, value in enumerate(values)]) for name, values in times.items()]
    rows.append(Row("wild", "file", "", [Run(0, 0.1, 0.1, 1 << 20)], ["SIGSEGV", "SIGSEGV"]))
    rows[1].operations = {"malloc": {"p50": 20, "p99": 40, "p99.99": 100, "max": 3000},
                          "free": None, "fragmentation": 0.125}
    return Comparison({"kind": "program", "words": ["./a <b> & c"], "load": None},
                      {"processor": "a \"chip\"", "load": "0.1"},
                      {"rounds": 6, "seed": 1, "pinned to CPU": None}, rows, ["a <note>"])


@pytest.mark.parametrize(("count", "rank"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2),
                                             (25, 7)])
def test_intervals_follow_the_sign_test(count: int, rank: int) -> None:
    """Ranks as tabulated for the 95 % interval of a median."""
    found = spread([float(value) for value in range(count)])
    assert found is not None
    assert (found.low, found.high) == (rank, count - 1 - rank)
    assert spread([]) is None


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_median_lies_in_its_interval(values: list[float]) -> None:
    """Whatever the values are."""
    found = spread(values)
    assert found is not None
    assert found.low <= found.median <= found.high
    assert found.median == statistics.median(values)


def test_ratios_are_paired_by_round() -> None:
    """A machine that gets slower during the runs slows both, and the ratio stays."""
    slow = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    found = sample(glibc=slow, half=[value / 2 for value in slow])
    ratio = found.ratio(found.rows[1], "cpu")
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == (0.5, 0.5, 0.5)


def test_rounds_that_the_baseline_lacks_do_not_count() -> None:
    """A pair needs two."""
    found = sample()
    found.baseline.runs = found.baseline.runs[:2]
    ratio = found.ratio(found.rows[1], "cpu")
    assert ratio is not None and ratio.high == pytest.approx(0.56 / 1.1)


def test_failures_come_last_however_fast() -> None:
    """Crashing early is no merit."""
    assert [row.name for row in sample().ranked()] == ["half", "glibc", "same", "wild"]


def test_the_verdict_knows_what_is_noise() -> None:
    """Only what lies outside the interval is called faster."""
    assert "half takes 50% less CPU time than glibc" in sample().verdict()
    assert "failed: wild" in sample().verdict()
    only = sample()
    only.rows = [row for row in only.rows if row.name in ("glibc", "same")]
    assert "no allocator makes it measurably faster" in only.verdict()
    slower = sample(half=[2.0] * 6)
    slower.rows = slower.rows[:2]
    assert slower.verdict().startswith("glibc is the fastest")


def test_servers_are_judged_by_request() -> None:
    """Under a load of fixed length the quicker one does more and may take more CPU time for it."""
    found = sample(half=[1.2] * 6)
    found.rows = found.rows[:2]
    for row, rate in zip(found.rows, (1000.0, 2000.0), strict=True):
        row.runs = [dataclasses.replace(run, throughput=rate, cost=run.cpu / rate)
                    for run in row.runs]
    assert found.principal == "cost"
    assert [row.name for row in found.ranked()] == ["half", "glibc"]
    assert "half takes 40% less CPU time per request" in found.verdict()
    check_page(pictures.page(found).html())


def test_json_comes_back_whole() -> None:
    """What one tool writes another one reads."""
    found = sample()
    form = json.loads(json.dumps(found.to_json()))
    assert Comparison.from_json(form).to_json() == found.to_json()
    for broken in ({}, {**form, "version": 99}, {**form, "rows": [{"name": "x"}]},
                   {**form, "format": "else"}):
        with pytest.raises(Malformed):
            Comparison.from_json(broken)


def test_json_has_the_promised_shape() -> None:
    """Names and types that other programs rely on."""
    form = sample().to_json()
    assert set(form) == {"format", "version", "subject", "machine", "method", "verdict", "notes",
                         "rows"}
    for row in form["rows"]:
        assert set(row) == {"name", "kind", "version", "runs", "failures", "notes", "operations",
                            "median", "ratio"}
        assert row["kind"] in ("baseline", "component", "installed", "file", "own")
        for run in row["runs"]:
            assert {"round", "cpu", "wall", "peak", "faults", "settled", "throughput", "user",
                    "switches", "cost"} == set(run)
        for ratio in row["ratio"].values():
            assert ratio is None or set(ratio) == {"median", "low", "high", "count"}


def test_the_page_is_well_formed_and_stands_alone() -> None:
    """Names from outside are escaped; nothing is fetched from anywhere."""
    text = pictures.page(sample()).html()
    check_page(text)
    assert "./a &lt;b&gt;" in text and "<b>" not in text
    assert "prefers-color-scheme:dark" in text
    assert "FAILED: SIGSEGV (2 of 3 runs)" in text


def test_a_picture_without_matplotlib(tmp_path: Path) -> None:
    """SVG needs nothing and is well formed."""
    pictures.draw(sample(), tmp_path / "x.svg")
    root = ElementTree.fromstring((tmp_path / "x.svg").read_text())
    text = " ".join(root.itertext())
    assert "half" in text and "SIGSEGV" in text


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="no matplotlib")
def test_a_picture_by_matplotlib(tmp_path: Path) -> None:
    """PNG is drawn by it."""
    pictures.draw(sample(), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra, and what works without it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NotSupported, match=r"unikit-os\[plot\]"):
        pictures.draw(sample(), tmp_path / "x.png")
    with pytest.raises(InvalidArgument, match="ends in .svg"):
        pictures.draw(sample(), tmp_path / "x.bmp")


@given(st.floats(1e-6, 1e15), st.booleans())
def test_ticks_reach_the_top_and_are_few(top: float, binary: bool) -> None:
    """An axis ends above the largest value and is readable."""
    found = units.ticks(top, binary)
    assert found[0] == 0
    assert found[-1] >= top * 0.999
    assert 2 <= len(found) <= 9


@given(st.lists(st.floats(1e-3, 1e9), max_size=9))
def test_a_span_encloses_what_is_given(values: list[float]) -> None:
    """Points near each other are told apart, and all lie inside."""
    found = units.span(values)
    assert 3 <= len(found) <= 12
    assert all(found[0] <= value <= found[-1] for value in values)


@pytest.mark.parametrize(("value", "text"), [(0.0000000205, "20.5 ns"), (0.00123, "1.23 ms"),
                                             (2.0, "2 s"), (0, "0 s"), (None, "n/a")])
def test_times_are_readable(value: float | None, text: str) -> None:
    """Three digits that count."""
    assert units.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(17, "17 B"), (1536, "1.50 KiB"), (5 << 30, "5 GiB"),
                                             (0, "0 B"), (None, "n/a")])
def test_sizes_are_readable(value: float | None, text: str) -> None:
    """Powers of 1024."""
    assert units.size(value) == text


def test_every_kind_of_chart_survives_nothing_and_extremes() -> None:
    """An empty trace, a single value, a zero: still well formed."""
    plain = units.count
    made = [charts.bars("t", []), charts.bars("t", [charts.Bar("a", 0.0)]),
            charts.bars("t", [charts.Bar("<&>", None, text="x")]),
            charts.scatter("t", [], plain, plain, ("x", "y")),
            charts.scatter("t", [charts.Point("a", 0, 0)] * 3, plain, plain, ("x", "y")),
            charts.lines("t", [], [], plain, plain, ("x", "y")),
            charts.lines("t", [0.0, 1.0, 2.0], [charts.Series("a", [1, None, 3]),
                                                charts.Series("b", [None] * 3)],
                         plain, plain, ("x", "y")),
            charts.columns("t", [], [], plain, ("x", "y")),
            charts.columns("t", ["a", "b"], [0, 10], plain, ("x", "y")),
            charts.heat("t", [], [], [], plain, ("x", "y")),
            charts.heat("t", ["a"], ["b"], [[5.0]], plain, ("x", "y"))]
    for chart in made:
        ElementTree.fromstring(chart.svg())
        assert "nan" not in chart.body
    ElementTree.fromstring(charts.standalone(made, "<all>"))
    page = Page("t")
    page.chart(*made)
    page.table(["a"], [[("b", "")]])
    check_page(page.html())
