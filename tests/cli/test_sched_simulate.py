"""``unikit sched simulate`` and ``list``: task sets from files, in words, as JSON and pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unikit.cli import main
from unikit.cli.sched.simulate import MISSED

pytestmark = pytest.mark.fast

SET = {"tasks": {"a": {"run": 2000, "timer": {"period": 5000}},
                 "b": {"run": 4000, "timer": {"period": 7000}}}}


@pytest.fixture
def taskset(tmp_path: Path) -> Path:
    """Write Liu and Layland's kind of example: EDF meets what rate-monotonic priorities miss."""
    path = tmp_path / "set.json"
    path.write_text(json.dumps(SET))
    return path


def outcomes(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Simulate; the outcomes by scheduler."""
    assert main(["sched", "simulate", *words, "--json"]) == 0
    return {each["scheduler"]: each for each in json.loads(capsys.readouterr().out)["outcomes"]}


def test_simulation_stands_beside_theory(taskset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both say the same of a set for which the answer is known."""
    assert main(["sched", "simulate", str(taskset), "--sched", "edf,prio", "--set",
                 "sched.edf.limit=100", "--priorities", "rate"]) == 0
    edf, prio = capsys.readouterr().out.split("\n\n")[1:]
    assert "edf: 0 of 24 deadlines missed" in edf
    assert "processor demand: every deadline is met" in edf
    assert "simulation and theory agree: the simulation missed none" in edf
    assert "response-time analysis: a deadline can be missed" in prio
    assert "simulation and theory agree: the simulation missed" in prio


def test_json_has_the_schedule(taskset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get who ran from when to when, and every job."""
    found = outcomes(capsys, str(taskset), "--sched", "edf:limit=100", "--until", "14ms")
    edf = found["edf:limit=100"]
    assert [(each["start"] // 10**6, each["end"] // 10**6, "ab"[each["task"]])
            for each in edf["segments"]] == [
        (0, 2, "a"), (2, 6, "b"), (6, 8, "a"), (8, 12, "b"), (12, 14, "a")]
    assert edf["tasks"][0]["response_ns"]["most"] == 4_000_000
    assert edf["tests"][0]["schedulable"] is True


def test_every_scheduler_with_stacks_is_asked(taskset: Path, capsys: pytest.CaptureFixture[str]
                                              ) -> None:
    """Without --sched; one that refuses the set is said to, and the others go on."""
    found = outcomes(capsys, str(taskset), "--until", "70ms")
    assert {"coop", "edf", "fair", "prio"} <= set(found)
    assert "not admitted" in found["edf"]["refused"]  # 0.97 against a limit of 0.95
    assert "missed" in found["fair"]


def test_switching_costs_show(taskset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What theory does not know of makes a full processor miss, and the words say so."""
    found = outcomes(capsys, str(taskset), "--sched", "edf:limit=100", "--switch", "100us")
    assert found["edf:limit=100"]["overhead_ns"] > 0
    assert main(["sched", "simulate", str(taskset), "--sched", "edf:limit=100", "--switch",
                 "100us"]) == 0
    assert "theory promises every deadline, the simulation missed" in capsys.readouterr().out


def test_check_makes_a_miss_an_exit_status(taskset: Path, capsys: pytest.CaptureFixture[str]
                                           ) -> None:
    """So that a build can depend on it."""
    words = ["sched", "simulate", str(taskset), "--check", "--sched"]
    assert main([*words, "edf:limit=100"]) == 0
    assert main([*words, "coop"]) == MISSED
    assert main([*words, "edf"]) == MISSED  # refused


def test_pictures_are_drawn(taskset: Path, tmp_path: Path) -> None:
    """One per scheduler."""
    assert main(["sched", "simulate", str(taskset), "--sched", "prio,fair:slice=1ms", "--gantt",
                 str(tmp_path / "out.svg")]) == 0
    assert "<svg" in (tmp_path / "out-prio.svg").read_text()
    assert (tmp_path / "out-fair-slice=1ms.svg").exists()


def test_a_set_comes_from_standard_input() -> None:
    """With -, as in a pipe; the duration of the file counts."""
    done = subprocess.run([sys.executable, "-m", "unikit", "sched", "simulate", "-", "--sched",
                           "prio"], input=json.dumps(SET | {"global": {"duration": 2}}),
                          capture_output=True, text=True, check=True)
    assert "2 s of virtual time" in done.stdout


@pytest.mark.parametrize(("words", "said"), [
    (["--sched", "nice"], "known: coop, edf"),
    (["--sched", "loop"], "callbacks that run to completion"),
    (["--sched", "fair:slice"], "OPTION=VALUE"),
    (["--sched", "fair:slice=soon"], "give a time"),
    (["--sched", "edf", "--set", "sched.edf.limits=3"], "did you mean sched.edf.limit?"),
    (["--sched", "edf", "--set", "sched.fair.slice=3ms"], "no scheduler chosen has that option"),
    (["--until", "0s"], "more than 0"), (["--until", "long"], "--until"),
    (["--switch=-1us"], "--switch"), (["--gantt", "x.gif"], ".svg or .png"),
    (["--gantt", "/nowhere/x.svg"], "no folder /nowhere"),
])
def test_mistakes_are_named(taskset: Path, capsys: pytest.CaptureFixture[str], words: list[str],
                            said: str) -> None:
    """One line with cause and remedy, exit status 1."""
    assert main(["sched", "simulate", str(taskset), *words]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("text", "said"), [
    ("", "no JSON"), ("[]", "JSON object"), ("{}", "no \"tasks\""), ('{"tasks": {"x": 3}}', "'x'"),
    ('{"tasks": {"x": {"run": "1"}}}', "run is '1'"),
    ('{"tasks": {"x": {"run": 1e99}}}', "microseconds"),
    ('{"tasks": {"x": {"run": 10, "instance": "2"}}}', "instance"),
    ('{"tasks": {"x": {"run": 10, "instance": 0}}}', "nothing to run"),
    ('{"tasks": {"x": {"run": 10, "priority": "high"}}}', "priority"),
    ('{"tasks": {"x": {"run": 10, "policy": "SCHED_OTHER", "priority": 20}}}', "-20 to 19"),
    ('{"tasks": {"x": {"phases": {"p": 1}}}}', "first phase"),
])
def test_broken_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str,
                                said: str) -> None:
    """The task and the key, not a traceback."""
    path = tmp_path / "set.json"
    path.write_text(text)
    assert main(["sched", "simulate", str(path)]) == 1
    assert said in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason."""
    assert main(["sched", "simulate", "/nowhere.json"]) == 1
    assert "/nowhere.json: No such file" in capsys.readouterr().err


def test_nice_values_become_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on Linux: five levels are a third of the processor."""
    path = tmp_path / "set.json"
    path.write_text(json.dumps({"tasks": {
        name: {"run": 10**7, "policy": "SCHED_OTHER", "priority": nice}
        for name, nice in (("plain", 0), ("nice", 5))}}))
    found = outcomes(capsys, str(path), "--sched", "fair", "--until", "2s")["fair"]
    used = [sum(each["end"] - each["start"] for each in found["segments"] if each["task"] == task)
            for task in (0, 1)]
    assert used[0] / used[1] == pytest.approx(1.25**5, rel=0.02)


def test_list_says_what_each_knows(capsys: pytest.CaptureFixture[str]) -> None:
    """In words and as JSON."""
    assert main(["sched", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(row.startswith("edf ") and "reservations" in row for row in rows)
    assert any(row.startswith("loop ") and "callbacks only" in row for row in rows)
    assert main(["sched", "list", "--json"]) == 0
    assert {"sched.edf", "sched.fair"} <= {each["id"] for each in
                                           json.loads(capsys.readouterr().out)}


def test_a_policy_of_a_file_is_simulated(taskset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An idea in Python beside the components in C."""
    shortest = Path(__file__).resolve().parents[1] / "sched/example/shortest.py"
    found = outcomes(capsys, str(taskset), "--sched", f"{shortest}:Shortest,coop")
    assert found["Shortest"]["id"] == "sched.shortest"
    assert found["Shortest"]["switches"] > 0


@pytest.mark.parametrize(("text", "name", "said"), [
    ("", "X", "it has none"), ("1/0", "X", "ZeroDivisionError"), (None, "X", "no such file")])
def test_a_broken_policy_file_is_named(tmp_path: Path, taskset: Path, text: str | None, name: str,
                                       said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the file, in one line."""
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    assert main(["sched", "simulate", str(taskset), "--sched", f"{path}:{name}"]) == 1
    error = capsys.readouterr().err
    assert said in error and str(path) in error and "Traceback" not in error
