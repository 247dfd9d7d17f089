"""``unikit alloc show``: what people see of a trace."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from html_check import check_page

from unikit.alloc import lab
from unikit.cli import main


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Save a small trace with call sites; where it is."""
    events = [lab.Event(lab.Op.ALLOC, at * 1000, 0, at, 10 + at, site=1 + at % 2)
              for at in range(200)]
    events += [lab.Event(lab.Op.REALLOC, 200_000, 0, 3, 100_000, site=2)]
    events += [lab.Event(lab.Op.FREE, 300_000 + at, at % 2, at) for at in range(150)]
    made = lab.Trace.of(events, ["parse<row>", "cache"], command="app <x> & y")
    made.save(tmp_path / "app.trace")
    return tmp_path / "app.trace"


def test_a_trace_is_told_in_words(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, sizes, lifetimes, the peak, and who asked."""
    assert main(["alloc", "show", str(trace)]) == 0
    text = capsys.readouterr().out
    for part in ("app <x> & y", "201 for", "1 grew, 0 shrank", "150, 75 by another thread",
                 "largest 97.7 KiB", "in 50 blocks", "parse<row>", "cache"):
        assert part in text


def test_a_trace_as_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part is there for a program to read."""
    assert main(["alloc", "show", str(trace), "--json", "--allocator", "tlsf"]) == 0
    form = json.loads(capsys.readouterr().out)
    assert form["summary"]["allocations"] == 200
    assert sum(each["requests"] for each in form["sizes"]) == 201
    assert sum(form["lives"]) == 150
    assert {each["site"]["name"] for each in form["sites"]} == {"parse<row>", "cache"}
    assert form["replays"]["tlsf"]["operations"] == 351


def test_the_page_of_a_trace_stands_alone(trace: Path, tmp_path: Path) -> None:
    """Well formed, escaped, with fragmentation although no allocator was named."""
    assert main(["alloc", "show", str(trace), "--report", str(tmp_path / "x.html")]) == 0
    text = (tmp_path / "x.html").read_text()
    check_page(text)
    assert "parse&lt;row&gt;" in text and "Replayed on tlsf" in text


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_picture_of_a_trace(trace: Path, tmp_path: Path, ending: str) -> None:
    """SVG by ourselves, PNG by matplotlib."""
    if ending == "png" and importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed (extra: plot)")
    place = tmp_path / f"x.{ending}"
    assert main(["alloc", "show", str(trace), "--picture", str(place)]) == 0
    if ending == "svg":
        ElementTree.fromstring(place.read_text())
    else:
        assert place.read_bytes().startswith(b"\x89PNG")


def test_an_empty_trace_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that asks for nothing has nothing to show, and no error."""
    lab.Trace.of([]).save(tmp_path / "empty.trace")
    assert main(["alloc", "show", str(tmp_path / "empty.trace"), "--report",
                 str(tmp_path / "x.html")]) == 0
    assert "0 for 0 B" in capsys.readouterr().out
    check_page((tmp_path / "x.html").read_text())


def test_damaged_traces_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what is wrong with which file."""
    (tmp_path / "x.trace").write_bytes(b"nonsense" * 1000)
    assert main(["alloc", "show", str(tmp_path / "x.trace")]) == 1
    assert main(["alloc", "show", str(tmp_path / "none.trace")]) == 1
    assert main(["alloc", "show", str(tmp_path / "x.trace"), "--allocator", "vax"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all("x.trace" in line or "none.trace" in line for line in lines)
