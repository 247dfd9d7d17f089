"""``unikit sched bench``: every kernel on every scheduler, references, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from unikit import registry
from unikit.cli import main
from unikit.cli.sched import bench, contests, loops, native
from unikit.component import Component
from unikit.errors import PlatformError, ToolchainError

SCHEDULERS = [record for record in registry.components("sched") if record.sources]
THREADED = [record for record in SCHEDULERS if "threads" in record.features]
KERNELS = {"yield": ("4", "2000", "0"), "spawn": ("160",), "timers": ("100", "1000"),
           "wakeup": ("3", "20000", "50"), "cyclic": ("2", "200000", "20"), "messages": ("1", "2"),
           "fairness": ("5000000",),
           "deadlines": ("30000000", "500000:5000000", "1000000:10000000")}
EVENTS = ("spawn", "timers")


def said(record: type[Component], *words: str) -> dict[str, float]:
    """Run a kernel on a scheduler; what it reports."""
    program = native.scheduler(record())  # type: ignore[arg-type]
    return bench._run((str(program), *words, "--", *map(str, record().encoded())),
                      dict(os.environ))


@pytest.mark.parametrize("record", SCHEDULERS, ids=lambda record: record.stem())
def test_every_kernel_runs_on_every_scheduler(record: type[Component]) -> None:
    """And what it reports is whole; the program checks the scheduler's invariants at its end."""
    for kernel, words in KERNELS.items():
        if kernel not in EVENTS and "threads" not in record.features:
            continue
        found = said(record, kernel, *words)
        assert found.pop("quiet") in (0, 1)
        if kernel in ("wakeup", "cyclic"):
            values = list(found.values())
            assert values == sorted(values) and values[-1] > 0
            assert set(contests.PERCENTILES) <= set(found)
        elif kernel == "deadlines":
            assert found["jobs"] == 30 / 5 + 30 / 10
            assert 0 <= found["missed"] <= found["jobs"]
        elif kernel == "fairness":
            assert found["error"] <= 100
        else:
            assert next(iter(found.values())) > 0


def test_a_reservation_that_is_refused_is_counted() -> None:
    """Three tasks of 40 % do not fit; the others run on."""
    edf = registry.find("edf", "sched")
    found = said(edf, "deadlines", "20000000", *["2000000:5000000"] * 3)
    assert found["refused"] == 1


@pytest.mark.parametrize("words", [
    ("yield", "4", "1000"), ("switch", "1000"), ("spawn", "32"), ("messages", "1", "1"),
    ("pipes", "1", "1"), ("wakeup", "2", "20000", "20"), ("cyclic", "1", "200000", "10"),
    ("fairness", "3000000"), ("deadlines", "20000000", "500000:5000000")], ids=lambda each: each[0])
def test_threads_do_the_same(words: tuple[str, ...]) -> None:
    """The reference reports the same names."""
    found = bench._run((str(native.threads()), *words), dict(os.environ))
    assert len(found) >= 2
    if words[0] == "deadlines":
        assert found["jobs"] == 4


@pytest.mark.parametrize(("kind", "kernel"), [
    *((kind, kernel) for kind in loops.FIBERS for kernel in ("switch", "spawn")),
    *((kind, kernel) for kind in loops.EVENT_LOOPS
      for kernel in ("yield", "spawn", "messages", "timers"))])
def test_python_does_the_same(kind: str, kernel: str) -> None:
    """What is installed, and ours."""
    if why := loops.lacking(kind):
        pytest.skip(f"{kind}: {why}")
    words = {"switch": ("100",), "spawn": ("32",), "yield": ("4", "100"), "messages": ("1", "1"),
             "timers": ("10", "10")}[kernel]
    found = bench._run((sys.executable, "-m", "unikit.cli.sched.loops", kind, kernel, *words),
                       dict(os.environ))
    assert len(found) == (3 if kernel == "timers" else 2) and min(found.values()) >= 0


def measured(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    """Run the command; the tables by name, and what was skipped."""
    assert main(["sched", "bench", "--json", *words]) == status
    found = json.loads(capsys.readouterr().out)
    return {each["name"]: each for each in found["benchmarks"]} | {"skipped": found["skipped"]}


def test_it_measures_in_rounds_against_a_reference(capsys: pytest.CaptureFixture[str]) -> None:
    """Each row has a value per round, and the ratio is that of the rounds."""
    found = measured(capsys, "--only", "yield", "--sched", "coop,loop", "--rounds", "2")["yield"]
    rows = {row["name"]: row for row in found["rows"]}
    assert found["reference"] == "pthreads"
    assert "loop" not in rows  # it has nothing to yield
    assert all(len(row["values"]["yield"]) == 2 for row in rows.values())
    pairs = zip(rows["coop"]["values"]["yield"], rows["pthreads"]["values"]["yield"], strict=True)
    assert rows["coop"]["ratio"] == pytest.approx(sum(one / two for one, two in pairs) / 2)
    assert rows["coop"]["ratio"] < 1


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One row per contestant, with the conditions below."""
    assert main(["sched", "bench", "--only", "switch", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("switch: switch between two stacks")
    assert "\n  unikit " in out and "\n  swapcontext " in out
    assert "medians of 1 interleaved round, all on one processor" in out


def test_options_of_schedulers_can_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """The same policy twice, with two slices; each row is named as it was asked for."""
    found = measured(capsys, "--only", "fairness", "--rounds", "1", "--sched",
                     "fair:slice=200us,fair:slice=10ms")["fairness"]
    assert [row["name"] for row in found["rows"]] == ["fair:slice=200us", "fair:slice=10ms",
                                                      "pthreads"]


def test_without_boost_it_says_so(capsys: pytest.CaptureFixture[str],
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """A line with the package, and another reference."""
    program = native.build.program

    def lacking(name: str, *rest: Any) -> Path:
        if name == "switch-boost":
            raise ToolchainError("gcc failed: cannot find -l:libboost_context.a")
        return program(name, *rest)

    native.switches.cache_clear()
    monkeypatch.setattr(native.build, "program", lacking)
    try:
        found = measured(capsys, "--only", "switch", "--rounds", "1")
    finally:
        native.switches.cache_clear()
    assert "libboost-context-dev" in found["skipped"]["Boost.Context"]
    assert found["switch"]["reference"] == "swapcontext"


def test_a_failure_is_one_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
                              ) -> None:
    """The others are measured, and the exit status tells."""
    monkeypatch.setattr(native, "threads", lambda: Path("/bin/false"))
    found = measured(capsys, "--only", "spawn", "--sched", "coop", "--rounds", "1", status=1)
    rows = {row["name"]: row for row in found["spawn"]["rows"]}
    assert rows["pthreads"]["failure"] == "exit status 1"
    assert rows["coop"]["median"]["spawn"] > 0
    monkeypatch.setattr(bench, "_LIMIT_S", 0.2)
    with pytest.raises(PlatformError, match="no end after"):
        bench._run(("/bin/sleep", "5"), {})
    with pytest.raises(PlatformError, match="SIGKILL"):
        bench._run(("/bin/sh", "-c", "kill -9 $$"), {})


@pytest.mark.parametrize(("words", "said"), [
    (["--only", "speed"], "known are switch, yield"), (["--rounds", "0"], "1 or more"),
    (["--sched", "none"], "there is no component"),
    (["--sched", "coop", "--set", "sched.coop.slice=3ms"], "no scheduler chosen has that option")])
def test_mistakes_are_named(capsys: pytest.CaptureFixture[str], words: list[str], said: str
                            ) -> None:
    """Before anything is compiled."""
    assert main(["sched", "bench", *words]) == 1
    assert said in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_running() -> None:
    """130, no traceback, no process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "unikit", "sched", "bench", "--only", "deadlines", "--sched",
         "coop", "--rounds", "99"], start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    names: list[str] = []
    while time.monotonic() < deadline and not any("bench-coop" in name for name in names):
        time.sleep(0.02)
        names = []
        for pid in children.read_text().split():
            try:
                names.append(Path(f"/proc/{pid}/cmdline").read_text())
            except OSError:
                continue
    assert any("bench-coop" in name for name in names)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in error and out == ""
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
