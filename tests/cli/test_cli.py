"""The command line: grammar, messages and exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unikit.cli import main
from unikit.cli.images import settings
from unikit.cli.machines import prometheus
from unikit.cli.run import _attached
from unikit.errors import CompositionError

ROOT = Path(__file__).resolve().parents[2]


def unikit(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "unikit", *words], capture_output=True, text=True,
                          check=False, cwd=cwd, stdin=subprocess.DEVNULL, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_list_names_components_and_applications(capsys: pytest.CaptureFixture[str]) -> None:
    """What can be composed is one command away."""
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("alloc.tlsf", "sched.loop", "net.mini", "platform.kvm", "app.http"):
        assert name in text


def test_list_as_json_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads ids, options and what is allowed."""
    assert main(["list", "alloc", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["components"]
    assert {"alloc.bump", "alloc.firstfit", "alloc.tlsf"} <= {row["id"] for row in rows}
    assert all(row["summary"] for row in rows)


def test_an_unknown_domain_is_told_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the remedy."""
    assert main(["list", "vax"]) == 1
    assert "domains: alloc" in capsys.readouterr().err


def test_build_plan_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    """The plan is shown without a compiler being there."""
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.chdir(tmp_path)
    assert main(["build", "hello", "--plan", "--alloc", "firstfit"]) == 0
    assert "alloc.firstfit" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_every_problem_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Composition errors come all at once, each with its remedy."""
    assert main(["build", "hello", "--plan", "--alloc", "nosuch", "--for", "vax",
                 "--set", "alloc.x.y=1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("unikit: ") for line in lines)


def test_build_writes_image_and_symbols(tmp_path: Path) -> None:
    """The file the README names is there."""
    done = unikit("build", "hello", "-o", "hello.elf", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"hello.elf", "hello.elf.debug"}
    shown = unikit("inspect", "hello.elf", "--json", cwd=tmp_path)
    facts = json.loads(shown.stdout)
    assert facts["plan"]["name"] == "hello"
    assert facts["components_bytes"]["alloc.tlsf"] > 0


def test_a_finished_image_cannot_be_recomposed(tmp_path: Path) -> None:
    """An option that would have no effect is refused, not ignored."""
    (tmp_path / "x.elf").write_bytes(b"")
    done = unikit("run", "x.elf", "--alloc", "bump", cwd=tmp_path)
    assert done.returncode == 1
    assert "finished image" in done.stderr


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    """One line, no traceback."""
    (tmp_path / "x.elf").write_text("#!/bin/sh\n")
    done = unikit("run", "x.elf", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "not an ELF file" in done.stderr


def test_new_writes_an_application_that_builds(tmp_path: Path) -> None:
    """The first program of one's own works before a line is changed."""
    assert unikit("new", "blog", cwd=tmp_path).returncode == 0
    done = unikit("build", "./blog", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = unikit("new", "blog", cwd=tmp_path)
    assert again.returncode == 1 and "exists" in again.stderr
    assert unikit("new", "Bad Name", cwd=tmp_path).returncode == 1


def test_doctor_answers_every_point(capsys: pytest.CaptureFixture[str]) -> None:
    """Each check is fine or has a reason."""
    main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    names = {each["name"] for each in checks}
    assert {"compiler", "platform.kvm", "platform.linux", "tap"} <= names
    assert all(each["ok"] or each["reason"] for each in checks)


def test_unknown_machines_are_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    """stop, logs and stats of something that does not run."""
    for words in (["stop", "nosuch"], ["logs", "nosuch"], ["stats", "nosuch"]):
        assert main(words) == 1
        assert "no machine called 'nosuch'" in capsys.readouterr().err


def test_set_words_are_checked_all_at_once() -> None:
    """A missing = is told with an example."""
    assert settings(["a.b.c=1", "a.b.d=x=y"]) == {"a.b.c": "1", "a.b.d": "x=y"}
    with pytest.raises(CompositionError) as caught:
        settings(["nonsense", "a=1"])
    assert len(caught.value.problems) == 2


def test_prometheus_text_is_well_formed() -> None:
    """Numbers become samples, words do not."""
    text = prometheus('a"b', {"frames_in": 7, "cpu_s": 0.5, "platform": "kvm"})
    assert 'unikit_frames_in{machine="a\\"b"} 7\n' in text
    assert 'unikit_cpu_s{machine="a\\"b"} 0.5\n' in text
    assert "kvm" not in text


def test_detaching_keeps_the_arguments_of_the_application() -> None:
    """Only words before -- are ours."""
    assert _attached(["run", "x", "--detach", "--name", "n", "--", "--detach", "--name"]) == [
        "run", "x", "--", "--detach", "--name"]


def test_a_remembered_command_sees_every_change(tmp_path: Path) -> None:
    """The second run resolves nothing, the run after an edit builds anew."""
    (tmp_path / "app").mkdir()
    main_c = tmp_path / "app" / "main.c"
    text = '#include <unikit/app.h>\nint init_application(void) {{ kit_exit({}); }}\n'
    for code in (3, 3, 4):
        main_c.write_text(text.format(code))
        done = unikit("run", "./app", "--platform", "linux", cwd=tmp_path)
        assert done.returncode == code, done.stderr
    other = unikit("run", "./app", "--platform", "linux", "--alloc", "nosuch", cwd=tmp_path)
    assert other.returncode == 1 and "alloc.nosuch" in other.stderr
