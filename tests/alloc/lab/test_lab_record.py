"""The recorder: every call of every thread is in the trace, and the program does not notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from unikit.alloc import lab
from unikit.alloc.lab import Op
from unikit.cli import main

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program whose every call is known."""
    target = tmp_path_factory.mktemp("record-programs") / "family"
    subprocess.run(["gcc", "-O1", "-g", "-w", "-fno-builtin", HERE / "programs/family.c", "-o",
                    target, "-pthread"], check=True)
    return target


def record(folder: Path, *words: object) -> tuple[int, dict[str, lab.Trace]]:
    """Record a program; its status, and the traces by the ending of their names."""
    target = folder / "app.trace"
    status = main(["alloc", "record", "-o", str(target), "--", *map(str, words)])
    found = {path.name.removeprefix("app.trace"): lab.Trace.load(path)
             for path in folder.glob("app.trace*")}
    return status, found


def by_size(trace: lab.Trace) -> Counter[tuple[Op, int, int]]:
    """Count (operation, size, alignment), sizes from 7000 on: nobody else asks for these."""
    return Counter((Op(event.op), event.size, event.align) for event in trace
                   if event.op is not Op.START and 7000 <= event.size < 71_000)


def test_every_function_of_the_family_is_seen(family: Path, tmp_path: Path) -> None:
    """A call that is missing makes statistics and replays of another program."""
    status, traces = record(tmp_path, family)
    trace = traces[""]
    assert status == 0 and trace.complete and list(traces) == [""]
    seen = by_size(trace)
    for op, size, align in [(Op.ALLOC, 7001, 0), (Op.ZEROED, 7007, 0), (Op.ALLOC, 7014, 0),
                            (Op.ALLOC, 7040, 64), (Op.ALLOC, 7009, 128), (Op.ALLOC, 7010, 4096),
                            (Op.ALLOC, 8192, 4096), (Op.ALLOC, 7012, 256),
                            (Op.REALLOC, 70130, 0)]:
        assert seen[op, size, align] == 1, (op, size, align)
        assert seen[Op.FREE, size, align] == 1, (size, align)
    assert trace.summary().failures == 1
    assert (trace.foreign, trace.lost, trace.damaged) == (0, 0, 0)
    assert trace.facts["program"] == str(family)
    assert trace.facts["ended"] == "exit 0"
    assert "libc" in trace.facts["allocator"]


def test_threads_are_told_apart(family: Path, tmp_path: Path) -> None:
    """Blocks that one thread makes and another frees are what makes allocators slow."""
    _, traces = record(tmp_path, family)
    trace = traces[""]
    assert len(trace.threads) == 2
    made = [event for event in trace if event.op is Op.ALLOC and event.thread == 1
            and 1000 <= event.size < 2000]
    assert len(made) == 1000
    assert trace.summary().remote_frees == 1000
    assert trace.threads[0].id != trace.threads[1].id
    assert trace.threads[1].ended is not None
    assert {trace.sites[event.site].name.partition("+")[0] for event in made} == {"giver"}
    assert {Path(trace.sites[event.site].place).name.partition(":")[0] for event in made} \
        == {"family.c"}


@pytest.mark.parametrize(("how", "status"), [("kill", 137), ("exit", 3)])
def test_what_was_done_before_a_sudden_end_is_kept(family: Path, tmp_path: Path, how: str,
                                                   status: int) -> None:
    """No exit handler runs at _exit and SIGKILL: the events must be in the file already."""
    ended, traces = record(tmp_path, family, how)
    assert ended == status
    assert traces[""].summary().remote_frees == 1000
    assert traces[""].facts["ended"] == ("SIGKILL" if how == "kill" else "exit 3")


def test_a_forked_child_has_a_trace_of_its_own(family: Path, tmp_path: Path) -> None:
    """Two processes that write into one file would make it worthless."""
    status, traces = record(tmp_path, family, "fork")
    assert status == 0
    parent, child = traces.pop(""), traces.popitem()[1]
    assert by_size(parent)[Op.FREE, 7100, 0] == 1
    assert by_size(child) == Counter({(Op.ALLOC, 7101, 0): 1, (Op.FREE, 7101, 0): 1})
    assert child.foreign == 1
    assert child.facts["parent"] == str(parent.facts["pid"])


def test_after_exec_another_trace_begins(family: Path, tmp_path: Path) -> None:
    """What ends is the program that counts; the one before it is kept beside it."""
    status, traces = record(tmp_path, family, "exec")
    assert status == 0
    assert len(traces) == 2
    assert traces[""].facts["command"].endswith("again")
    assert all(by_size(trace)[Op.ALLOC, 7001, 0] == 1 for trace in traces.values())


def test_cxx_objects_belong_to_who_made_them(tmp_path: Path) -> None:
    """The site of every object would be operator new, if that were not seen itself."""
    target = tmp_path / "objects"
    subprocess.run(["g++", "-O0", "-g", HERE / "programs/objects.cc", "-o", target], check=True)
    status, traces = record(tmp_path, target)
    assert status == 0
    seen = {event.size: event for event in traces[""] if event.op is Op.ALLOC}
    trace = traces[""]
    assert "build_objects" in trace.sites[seen[7201].site].name
    assert seen[192].align == 64
    assert seen[576].align == 64
    assert trace.summary().failures == 0 or trace.summary().failures == 1
    assert 7202 in seen, "nothing was recorded after an exception"
    assert 7301 in seen


@pytest.mark.parametrize("words", [
    [sys.executable, "-c", "import threading as t, json;"
     "[x.start() for x in [t.Thread(target=json.loads, args=('[1]',)) for _ in range(20)]];"
     "print('fine')"],
    ["bash", "-c", "for i in 1 2 3; do x=$(echo fine); done; echo $x"],
    ["sqlite3", ":memory:", "create table t(a); insert into t values(1),(2); select 'fine'"],
    ["lua5.4", "-e", "local t={} for i=1,10000 do t[i]={i} end print('fine')"],
], ids=lambda words: Path(words[0]).name)
def test_real_programs_do_not_notice(words: list[str], tmp_path: Path,
                                     capfd: pytest.CaptureFixture[str]) -> None:
    """Their output and status are their own, and their traces are whole and can be replayed."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    status, traces = record(tmp_path, *words)
    assert status == 0
    assert capfd.readouterr().out.endswith("fine\n")
    trace = traces[""]
    assert (trace.lost, trace.damaged) == (0, 0)
    assert trace.foreign <= 5  # made before the recorder could know where to write
    summary = trace.summary()
    assert summary.allocations > 100
    result = lab.replay(trace, "tlsf", rounds=1, latency_rounds=0)
    assert (result.operations, result.failures) == (summary.operations, 0)


def test_a_trace_that_cannot_be_written_is_said(tmp_path: Path,
                                                capfd: pytest.CaptureFixture[str]) -> None:
    """The folder is looked at before the program runs."""
    assert main(["alloc", "record", "-o", str(tmp_path / "no/app.trace"), "--", "true"]) == 1
    assert "there is no folder" in capfd.readouterr().err
    assert main(["alloc", "record", "-o", str(tmp_path / "a"), "--", "no-such-program"]) == 1
    assert "no such program" in capfd.readouterr().err
    assert main(["alloc", "record", "-o", str(tmp_path / "a")]) == 1
    assert "say what to record" in capfd.readouterr().err
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.root
def test_a_full_disk_ends_the_recording_and_not_the_program(
        tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Writing to a mapped page that has no block behind it would kill the program."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "unikit-test", small],
                      check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        raw = small / "t"
        from unikit.alloc.lab import recorder
        done = subprocess.run(
            [sys.executable, "-c", "x = [[i] for i in range(200000)]; print(len(x))"],
            capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONMALLOC": "malloc", "LD_PRELOAD": str(recorder.library()),
                 recorder.VARIABLE: str(raw)})
        assert done.stdout == "200000\n"
        found, = recorder.recorded(raw)
        trace = recorder.finish(found, tmp_path / "cut.trace", names=False)
    finally:
        subprocess.run(["umount", small], check=True)
    assert len(trace) > 100_000
    assert trace.facts["cut"]
    assert lab.Trace.load(tmp_path / "cut.trace").facts["cut"]
    from unikit.cli.alloc.record import tell
    tell(tmp_path / "cut.trace", trace)
    assert "ended before the program" in capfd.readouterr().err
