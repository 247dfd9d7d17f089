"""``unikit alloc run``: another allocator in a program, its status passed on, clear refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unikit.cli.alloc import loading
from unikit.errors import NotSupported
from unikit.image import preload

ROOT = Path(__file__).resolve().parents[2]


def alloc_run(*words: object, allocator: str = "tlsf", cwd: Path | None = None, **variables: str
              ) -> subprocess.CompletedProcess[str]:
    """Run ``unikit alloc run --allocator NAME`` with further words."""
    return subprocess.run(
        [sys.executable, "-m", "unikit", "alloc", "run", "--allocator", allocator,
         *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables)


@pytest.fixture(scope="module", autouse=True)
def _made() -> None:
    """Have the library in the cache; the command says so when it has to make it."""
    preload.library(preload.choose("tlsf"))


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_is_the_programs(status: int) -> None:
    """A script must be able to put the command in front of any other."""
    done = alloc_run("--", "bash", "-c", f"exit {status}")
    assert (done.returncode, done.stderr) == (status, "")


def test_the_program_is_the_process(tmp_path: Path) -> None:
    """A signal to the command reaches the program, and its death by one is seen outside."""
    note = tmp_path / "note"
    process = subprocess.Popen(
        [sys.executable, "-m", "unikit", "alloc", "run", "--allocator", "tlsf", "--", "bash", "-c",
         f"trap 'echo trapped > {note}; kill -KILL $$' TERM; echo ready; while :; do :; done"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    guard = threading.Timer(30, process.kill)
    guard.start()
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGKILL
    guard.cancel()
    assert note.read_text() == "trapped\n"


def test_it_is_really_in_the_program_and_its_children() -> None:
    """The mappings are the evidence; the linker only warns about what it does not load."""
    done = alloc_run("--", "bash", "-c", "cat /proc/$$/maps; echo; cat /proc/self/maps")
    mine, childs = done.stdout.split("\n\n")
    assert "libunikit-tlsf.so" in mine and "libunikit-tlsf.so" in childs


def test_words_after_the_dashes_are_the_programs_own() -> None:
    """``--``, ``--help`` and ``--stats`` behind the program belong to it."""
    done = alloc_run("--", "/bin/echo", "--", "--stats", "--help")
    assert done.stdout == "-- --stats --help\n"
    assert alloc_run("/bin/echo", "--stats").stdout == "--stats\n"


def test_statistics_on_request(tmp_path: Path) -> None:
    """Text for people on standard error, JSON for programs in a file."""
    done = alloc_run("--stats", "--", "ls", "/")
    assert "unikit: alloc.tlsf in ls (process" in done.stderr
    done = alloc_run("--json", "out.json", "--", "ls", "/", cwd=tmp_path)
    assert json.loads((tmp_path / "out.json").read_text())["allocations"] > 0


def test_options_reach_the_component() -> None:
    """A table of sixteen blocks is too small for any program."""
    small = alloc_run("--set", "alloc.firstfit.blocks=16", "--", "ls", "/", allocator="firstfit")
    assert small.returncode != 0
    assert alloc_run("--", "ls", "/", allocator="firstfit").returncode == 0


@pytest.mark.parametrize(("words", "allocator", "said"), [
    (["--", "ls"], "nosuch", "there is no component 'alloc.nosuch'; known: "),
    (["--", "ls"], "tlsf,bump", "alloc.tlsf: is no layer"),
    (["--set", "alloc.tlsf.color=red", "--", "ls"], "tlsf", "alloc.tlsf.color: no allocator"),
    (["--set", "pool=3", "--", "ls"], "tlsf", "write ID.OPTION=VALUE"),
    (["--reserve", "much", "--", "ls"], "tlsf", "--reserve: 'much' is not a size"),
    (["--json", "/nosuch/x", "--", "ls"], "tlsf", "there is no folder /nosuch"),
    (["--", "no-such-program"], "tlsf", "no-such-program: there is no such program"),
    (["--", "/etc"], "tlsf", "/etc: it is a folder, not a program"),
    (["--", "/etc/passwd"], "tlsf", "/etc/passwd: it may not be executed"),
    (["--", "ls"], "guard+tlsf:pool=1M", "write --allocator guard,tlsf --set alloc.tlsf.pool=1M"),
    (["--", "ls"], "./my.so", "LD_PRELOAD takes its library as it is"),
    (["--"], "tlsf", "say what to run after --"),
])
def test_mistakes_are_one_clear_line(words: list[str], allocator: str, said: str) -> None:
    """Whoever mistypes is told what is wrong and what there is."""
    done = alloc_run(*words, allocator=allocator)
    assert done.returncode == 1 and done.stdout == ""
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_a_static_program_is_refused(tmp_path: Path) -> None:
    """Its allocator is built in; running it would measure something else."""
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-static", "main.c", "-o", "fixed"], cwd=tmp_path, check=True)
    done = alloc_run("--", tmp_path / "fixed")
    assert done.returncode == 1 and "linked statically" in done.stderr


def test_a_setuid_program_is_refused(tmp_path: Path, root: None) -> None:
    """The dynamic linker ignores LD_PRELOAD there without a word."""
    program = tmp_path / "id"
    shutil.copy(shutil.which("id") or "", program)
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    done = alloc_run("--", program)
    assert done.returncode == 1 and "setuid" in done.stderr


def test_a_32_bit_program_is_refused(tmp_path: Path) -> None:
    """The library is for 64-bit programs."""
    program = tmp_path / "old"
    header = bytearray(Path("/bin/true").read_bytes()[:64])
    header[4] = 1
    program.write_bytes(header + bytes(1000))
    program.chmod(0o755)
    done = alloc_run("--", program)
    assert done.returncode == 1 and "32-bit" in done.stderr


def test_a_library_that_does_not_load_is_noticed(tmp_path: Path) -> None:
    """The program would run with glibc's allocator, and every figure would be a lie."""
    broken = tmp_path / "libunikit-broken.so"
    broken.write_bytes(b"no library" * 1000)
    with pytest.raises(NotSupported, match="will not load libunikit-broken.so: .*preloaded"):
        loading.verify(Path("/bin/true").resolve(), broken, loading.environment(broken))
    good = preload.library(preload.choose("tlsf"))
    loading.verify(Path("/bin/true").resolve(), good, loading.environment(good))


def test_a_path_that_the_linker_cannot_take_is_refused(tmp_path: Path) -> None:
    """LD_PRELOAD has no quoting: a space or a colon ends a path."""
    done = alloc_run("--", "ls", UNIKIT_CACHE=str(tmp_path / "my cache"))
    assert done.returncode == 1 and "set UNIKIT_CACHE" in done.stderr


def test_what_is_preloaded_already_stays(tmp_path: Path) -> None:
    """A person's own preloaded libraries go on working behind ours."""
    found = loading.environment(Path("/x/ours.so"), {"LD_PRELOAD": "/y/theirs.so"})
    assert found == {"LD_PRELOAD": "/x/ours.so:/y/theirs.so"}


def test_leaks_are_listed_where_call_sites_are_kept(tmp_path: Path) -> None:
    """What was never freed, by who asked for it; refused where nobody could know."""
    (tmp_path / "main.c").write_text("""
        #include <stdlib.h>
        void *kept[7];
        void forget(void) { for (int i = 0; i < 7; i++) kept[i] = malloc(1000); }
        int main(void) { forget(); free(kept[0]); return 0; }
    """)
    subprocess.run(["gcc", "-rdynamic", "-fno-inline", "main.c", "-o", "main"], cwd=tmp_path,
                   check=True)
    done = alloc_run("--leaks", "--", tmp_path / "main", allocator="guard,tlsf")
    assert done.returncode == 0
    assert "6 blocks, 6000 bytes, allocated by 0x" in done.stderr and "(forget+0x" in done.stderr
    done = alloc_run("--leaks", "--", tmp_path / "main")
    assert done.returncode == 1 and "--allocator guard,tlsf" in done.stderr
