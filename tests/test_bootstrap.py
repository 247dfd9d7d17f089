"""The bootstrap script: any place, any working folder, interrupted at any moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "unikit/bootstrap"


def clean() -> dict[str, str]:
    """Return this environment without what would change the script's mind."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith(("UNIKIT_", "VIRTUAL_ENV", "PYTHON"))}


def call(clone: Path, *words: str, cwd: Path | None = None, script: Path | None = None,
         **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the bootstrap script of a clone as /bin/sh runs it."""
    return subprocess.run(
        [script or clone / "unikit/bootstrap", *words], cwd=cwd or clone.parent,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=600,
        env=clean() | environment)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of this tree, nothing built, in a place with spaces in its name."""
    target = tmp_path_factory.mktemp("some where") / "my clone"
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(
        "*.so", ".*", "build", "dist", "__pycache__", "_build", "*.egg-info", "docs", "benchmarks"))
    return target


@pytest.fixture(scope="module")
def installed(clone: Path) -> Path:
    """Return the copy after its first call."""
    done = call(clone, "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unikit ")
    assert "virtual environment" in done.stderr
    return clone


@pytest.mark.fast
def test_it_is_a_posix_script() -> None:
    """No bash on a minimal Debian's /bin/sh; it must be executable, too."""
    assert SCRIPT.read_text().startswith("#!/bin/sh\n")
    assert os.access(SCRIPT, os.X_OK)
    shell = shutil.which("dash") or "/bin/sh"
    assert subprocess.run([shell, "-n", SCRIPT], check=False).returncode == 0


def test_second_call_starts_at_once(installed: Path, tmp_path: Path) -> None:
    """From any folder, through a symbolic link as well, without a word on standard error."""
    link = tmp_path / "linked"
    link.symlink_to(installed / "unikit/bootstrap")
    done = call(installed, "--version", cwd=tmp_path, script=link)
    assert (done.returncode, done.stderr) == (0, "")


def test_changed_c_is_compiled_again(installed: Path) -> None:
    """An editable installation alone would go on with the old object."""
    def built() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns
                for path in (installed / "unikit").rglob("*.so")}

    before = built()
    assert before
    with (installed / "unikit/alloc/alloc.h").open("a") as header:
        header.write("/* changed */\n")
    done = call(installed, "--version")
    assert done.returncode == 0 and "installing" in done.stderr
    after = built()
    assert set(after) == set(before)
    assert all(after[name] > before[name] for name in before)


def test_interrupted_anywhere_the_next_call_mends_it(installed: Path) -> None:
    """Killed while making the environment, then while installing; nothing half-done is used."""
    for delay in (0.3, 3.5):
        shutil.rmtree(installed / ".venv", ignore_errors=True)
        process = subprocess.Popen(
            [installed / "unikit/bootstrap", "--version"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=clean())
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT if delay < 1 else signal.SIGKILL)
        assert process.wait(timeout=60) != 0
    done = call(installed, "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unikit ")


def test_two_calls_at_once_do_not_disturb_each_other(installed: Path) -> None:
    """The second waits for the first instead of installing into the same folder."""
    (installed / ".venv/unikit.stamp").write_text("old\n\n")
    both = [subprocess.Popen([installed / "unikit/bootstrap", "--version"], text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=clean()) for _ in range(2)]
    answers = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("installing" in stderr for _, stderr in answers) == 1


@pytest.mark.fast
def test_an_old_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """The message names the version that is here and the variable that helps."""
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\ncase \"$*\" in\n-V) echo 'Python 3.9.2' ;;\n"
                    "*version_info*) exit 1 ;;\nesac\n")
    fake.chmod(0o755)
    done = call(ROOT, "--version", PYTHON=str(fake), UNIKIT_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "3.11 or later is needed, Python 3.9.2 is here; set PYTHON" in done.stderr


@pytest.mark.root
def test_an_ordinary_user_is_told_the_one_line(tmp_path: Path) -> None:
    """Without Python.h and ensurepip nothing is installed behind his back."""
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\ncase \"$*\" in\n*ensurepip* | *Python.h*) exit 1 ;;\nesac\n"
                    "exec /usr/bin/python3 \"$@\"\n")
    fake.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(
        ["setpriv", "--reuid=12321", "--regid=12321", "--clear-groups", "env", f"PYTHON={fake}",
         "HOME=/nonexistent", f"UNIKIT_VENV={tmp_path}/venv", SCRIPT, "--version"],
        cwd="/", capture_output=True, text=True, check=False)
    if "Permission denied" in done.stderr:
        pytest.skip("this tree cannot be read by an ordinary user")
    assert done.returncode == 1
    line = "sudo apt-get update && sudo apt-get install -y python3-venv python3-dev\n"
    assert line in done.stderr
