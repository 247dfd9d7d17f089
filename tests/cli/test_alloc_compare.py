"""``unikit alloc compare``: programs and servers under several allocators."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from unikit.alloc import lab
from unikit.alloc.lab import advice, pictures
from unikit.alloc.lab.comparison import Comparison, Row, Run
from unikit.cli.alloc import references, rounds
from unikit.cli.alloc.process import Launch, descendants
from unikit.cli.alloc.programs import examine
from unikit.cli.alloc.server import throughput
from unikit.errors import CompositionError, NotFound

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = r"""
#include <stdlib.h>
#include <string.h>
int main(int count, char **words)
{
    static char *kept[1000];
    unsigned seed = 1;
    for (long i = 0; i < (count > 1 ? atol(words[1]) : 100000); i++) {
        seed = seed * 1664525 + 1013904223;
        char **slot = &kept[(seed >> 8) % 1000];
        free(*slot);
        size_t size = (seed >> 16) % 1000 + 1;
        *slot = malloc(size);
        memset(*slot, 1, size);
    }
    return 0;
}
"""
STEADY = r"""
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void __libc_free(void *);
void *malloc(size_t size) { return __libc_malloc(size * 2); }
void *calloc(size_t count, size_t size) { return __libc_calloc(count, size); }
void *realloc(void *block, size_t size) { return __libc_realloc(block, size); }
void free(void *block) { __libc_free(block); }
"""
BROKEN = r"""
#include <stddef.h>
extern void *__libc_malloc(size_t);
static int calls;
void *malloc(size_t size) { return calls++ < 50 ? __libc_malloc(size) : (void *)1; }
"""
OTHER = "int unrelated(void) { return 1; }"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile a program and libraries that behave well, badly and not at all; where they are."""
    folder = tmp_path_factory.mktemp("compare")
    for name, text, flags in (
            ("work", PROGRAM, ["-fno-builtin"]), ("static", PROGRAM, ["-static"]),
            ("libsteady.so", STEADY, ["-shared", "-fPIC", "-fno-builtin"]),
            ("libbroken.so", BROKEN, ["-shared", "-fPIC", "-fno-builtin"]),
            ("libother.so", OTHER, ["-shared", "-fPIC"])):
        source = folder / f"{name}.c"
        source.write_text(text)
        done = subprocess.run(["gcc", "-O1", "-w", source, *flags, "-o", folder / name],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def unikit(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "unikit", "alloc", *map(str, words)],
                          capture_output=True, text=True, check=False, cwd=cwd,
                          stdin=subprocess.DEVNULL, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})


def compared(*words: str | Path, cwd: Path | None = None) -> dict[str, Any]:
    done = unikit("compare", "--json", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_library_by_its_path_is_compared(built: Path) -> None:
    """Whoever writes an allocator gives its file; the table has a row for it."""
    found = compared("--rounds", "3", "--allocator", built / "libsteady.so", "--", built / "work")
    base, row = found["rows"]
    assert (base["name"], base["kind"]) == ("glibc", "baseline")
    assert (row["name"], row["kind"], row["failures"]) == ("libsteady", "file", [])
    assert len(row["runs"]) == len(base["runs"]) == 3
    assert row["ratio"]["peak"]["median"] > 1.1  # it asks for twice as much
    assert all(run["cpu"] > 0 and run["faults"] > 0 for run in row["runs"])


def test_a_crashing_allocator_is_a_loss_and_shown(built: Path) -> None:
    """Failures are not dropped: the row is there, last, with the signal."""
    done = unikit("compare", "--rounds", "2", "--allocator",
                  f"{built / 'libbroken.so'},{built / 'libsteady.so'}", "--", built / "work")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("lib", "glibc  "))]
    assert rows[-1].startswith("libbroken")
    assert "FAILED: SIGSEGV (2 of 2 runs)" in rows[-1]
    assert "failed: libbroken" in done.stdout


def test_a_library_without_malloc_is_found_out(built: Path) -> None:
    """It loads, but the program goes on using glibc's: its figures would be glibc's."""
    row = compared("--rounds", "1", "--allocator", built / "libother.so", "--",
                   built / "work")["rows"][1]
    assert row["runs"] == []
    assert row["failures"][0].startswith("not used: malloc comes from libc.so")


def test_a_file_that_is_no_library_is_found_out(built: Path, tmp_path: Path) -> None:
    """The dynamic linker only warns; taking glibc's figures for it would be wrong."""
    fake = tmp_path / "libfake.so"
    fake.write_text("not a library")
    row = compared("--rounds", "1", "--allocator", fake, "--", built / "work")["rows"][1]
    assert row["failures"] == ["not used: malloc comes from libc.so.6"] or \
        row["failures"] == ["not loaded"]


def test_a_static_program_cannot_be_compared(built: Path) -> None:
    """The reason is said, instead of rows that are all the same."""
    done = unikit("compare", "--", built / "static")
    assert done.returncode == 1
    assert "linked statically" in done.stderr


def test_a_program_that_fails_anyway_is_refused() -> None:
    """Its own words are shown."""
    done = unikit("compare", "--", "sh", "-c", "echo broken pipe dream >&2; exit 3")
    assert done.returncode == 1
    assert "exit 3" in done.stderr and "broken pipe dream" in done.stderr
    assert "would mean nothing" in done.stderr


@pytest.mark.parametrize(("words", "expected"), [
    (["--", "no-such-program-here"], "there is no such program"),
    ([], "say what to run"),
    (["--allocator", "vax", "--", "true"], "found here: glibc"),
    (["--allocator", "./none.so", "--", "true"], "there is no such file"),
    (["--allocator", "tlsf:nosuch=1", "--", "true"], "known: alloc.tlsf.pool"),
    (["--rounds", "0", "--", "true"], "at least one"),
    (["--pin", "9999", "--", "true"], "give one of the CPUs"),
    (["--port", "80", "--", "true"], "give their load with --load"),
    (["--load", "true", "--metric", "(", "--", "true"], "no regular expression"),
    (["--load", "true", "--metric", "[0-9]+", "--", "true"], "one pair of parentheses"),
    (["/etc/passwd"], "and it is no trace"),
])
def test_mistakes_are_one_line_with_the_remedy(words: list[str], expected: str) -> None:
    """Nothing is run, nothing is traced back."""
    done = unikit("compare", *words)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_peak_memory_is_not_that_of_this_process() -> None:
    """A child's count begins at its fork: without a launcher it would be at least ours."""
    ballast = bytearray(64 << 20)
    with Launch(["true"]) as launch:
        cost = launch.wait(10)
    assert cost is not None and cost.status == 0
    assert cost.peak < len(ballast) // 8


def test_descendants_count_and_do_not_survive(tmp_path: Path) -> None:
    """Times include children; what outlives the program is killed, even in a session of its own."""
    note = tmp_path / "pid"
    script = (f"setsid sh -c 'echo $$ > {note}; exec sleep 60' & "
              f"while ! [ -s {note} ]; do sleep 0.01; done")
    with Launch(["sh", "-c", script]) as launch:
        cost = launch.wait(20)
    assert cost is not None and cost.left == 1
    assert not Path(f"/proc/{note.read_text().strip()}").exists()


def test_killing_the_command_leaves_nothing_running(built: Path) -> None:
    """The launcher sees the end of its pipe, however this process ends."""
    command = subprocess.Popen(
        [sys.executable, "-m", "unikit", "alloc", "compare", "--allocator", built / "libsteady.so",
         "--", built / "work", "2000000000"], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    below = _below(command.pid, "work")
    command.send_signal(signal.SIGKILL)
    command.wait()
    assert _gone(below)


def test_interrupting_leaves_nothing_running(built: Path) -> None:
    """Ctrl-C ends the program under test too, and is told by the exit status."""
    command = subprocess.Popen(
        [sys.executable, "-m", "unikit", "alloc", "compare", "--allocator", built / "libsteady.so",
         "--", built / "work", "2000000000"], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    below = _below(command.pid, "work")
    command.send_signal(signal.SIGINT)
    assert command.wait(20) == 130
    assert _gone(below)


def _below(pid: int, name: str) -> list[int]:
    """Wait until a descendant of that name runs; all descendants then."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = descendants(pid)[1:]
        if any(Path(f"/proc/{each}/comm").read_text().strip() == name for each in found
               if Path(f"/proc/{each}").exists()):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{name} never ran")


def _gone(pids: list[int]) -> bool:
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_timeout_is_a_failure() -> None:
    """A program that hangs under an allocator must not hang the comparison."""
    with Launch(["sleep", "60"]) as launch:
        begin = time.monotonic()
        assert launch.wait(0.2) is None
        launch.kill()
        cost = launch.wait(5)
    assert cost is not None and cost.status == -9
    assert time.monotonic() - begin < 10


def test_the_launcher_names_what_it_cannot_start(tmp_path: Path) -> None:
    """Not found and not executable are different mistakes."""
    with pytest.raises(NotFound, match="no such program"):
        Launch([str(tmp_path / "absent")])
    (tmp_path / "text").write_text("hello")
    with pytest.raises(PermissionError, match="cannot be executed"):
        Launch([str(tmp_path / "text")])


def test_a_program_with_an_allocator_of_its_own_is_named(built: Path, tmp_path: Path) -> None:
    """The glibc row then preloads glibc's: otherwise it would be the program's own."""
    source = tmp_path / "own.c"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-w", "-fno-builtin", source, built / "libsteady.so",
                    f"-Wl,-rpath,{built}", "-o", tmp_path / "own"], check=True)
    found = compared("--rounds", "2", "--allocator", built / "libother.so", "--", tmp_path / "own")
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["steady (its own)"]["kind"] == "own"
    assert rows["steady (its own)"]["ratio"]["peak"]["median"] > 1.1
    assert rows["glibc"]["failures"] == []
    waste = {name: row["operations"]["fragmentation"] for name, row in rows.items()
             if row["operations"]}
    assert waste["steady (its own)"] > waste["glibc"]  # replayed on it, too
    assert any("linked to libsteady.so" in note for note in found["notes"])


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_glibc_preloaded_serves_cxx_too(built: Path, tmp_path: Path) -> None:
    """Operators, aligned ones and a failing one: the exception reaches the program."""
    from unikit.cli.alloc import native
    source = tmp_path / "cxx.cc"
    source.write_text("""
#include <cstdlib>
#include <malloc.h>
#include <new>
struct alignas(64) Wide { char bytes[128]; };
int main()
{
    Wide *wide = new Wide[3];
    if (reinterpret_cast<unsigned long>(wide) % 64) return 1;
    delete[] wide;
    void *block = malloc(100);
    if (malloc_usable_size(block) < 100) return 2;
    free(block);
    if (posix_memalign(&block, 3, 8) != 22) return 3;
    volatile size_t huge = ~0ul / 2;
    if (new (std::nothrow) char[huge]) return 4;
    try { delete[] new char[huge]; } catch (const std::bad_alloc &) { return 0; }
    return 5;
}""")
    subprocess.run(["g++", "-std=c++17", "-w", source, "-o", tmp_path / "cxx"], check=True)
    with Launch([str(tmp_path / "cxx")], preload=[native.glibc()]) as launch:
        cost = launch.wait(10)
    assert cost is not None and cost.status == 0


def test_programs_are_examined_by_their_files(built: Path, tmp_path: Path) -> None:
    """A script is what its interpreter is."""
    script = tmp_path / "script"
    interpreter = Path(sys.executable).resolve()  # python3 in PATH may be a shell script
    script.write_text(f"#!/usr/bin/env {interpreter}\n")
    script.chmod(0o755)
    found = examine(str(script))
    assert found is not None and found.path == interpreter and not found.obstacle
    assert examine("no-such-program-here") is None


def test_redis_is_compared_under_load() -> None:
    """A whole server: waited for, loaded, ended; its own jemalloc is named, its rate is read."""
    for tool in ("redis-server", "redis-benchmark"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    port = "16871"
    found = compared("--rounds", "1", "--allocator", "glibc", "--port", port, "--load",
                     f"redis-benchmark -p {port} -n 2000 -q -t set,get", "--", "redis-server",
                     "--port", port)
    for row in found["rows"]:
        assert row["failures"] == []
        assert row["runs"][0]["throughput"] > 100
        assert row["runs"][0]["settled"] > 1 << 20
    linked = examine("redis-server")
    if linked is not None and "jemalloc" in linked.linked:
        assert [row["name"] for row in found["rows"]] == ["glibc", "jemalloc (its own)"]


SERVER = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: {ending})
link = socket.socket()
link.bind(("127.0.0.1", 0))
link.listen()
open("here", "w").close()
time.sleep(60)
"""


def server(built: Path, load: str, ending: str = "sys.exit(0)", *words: str
           ) -> subprocess.CompletedProcess[str]:
    return unikit("compare", "--json", "--rounds", "1", "--allocator", built / "libsteady.so",
                  "--load", load, *words, "--", sys.executable, "-c", SERVER.format(ending=ending),
                  cwd=built)


def test_a_server_runs_in_an_empty_folder(built: Path) -> None:
    """What one run leaves behind must not be found by the next one, nor by the user."""
    done = server(built, "true")
    assert done.returncode == 0, done.stderr
    assert all(len(row["runs"]) == 1 for row in json.loads(done.stdout)["rows"])
    assert not (built / "here").exists()


def test_what_the_load_prints_is_shown_when_asked(built: Path) -> None:
    """For whoever wonders what the figures are of."""
    done = server(built, "echo one; echo speed=40", "sys.exit(0)", "--verbose", "--metric",
                  r"speed=(\d+)")
    assert done.returncode == 0, done.stderr
    assert "one" in done.stderr.splitlines()
    runs = [run for row in json.loads(done.stdout)["rows"] for run in row["runs"]]
    assert all(run["throughput"] == 40 and run["cost"] > 0 for run in runs)


def test_paths_that_cannot_be_preloaded_are_refused(tmp_path: Path) -> None:
    """The dynamic linker splits at spaces and colons, and would merely warn."""
    with pytest.raises(NotImplementedError, match="no path with a space"):
        Launch(["true"], preload=[tmp_path / "my lib.so"])


def test_a_server_that_ignores_sigterm_is_killed_and_said_so(built: Path) -> None:
    """Its costs count; the reader learns that it did not end in good order."""
    done = server(built, "true", "None", "--grace", "0.3")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert all("killed: still there 0.3 s after SIGTERM" in row["notes"] for row in rows)


def test_a_load_that_fails_is_shown(built: Path) -> None:
    """Without load there is nothing to compare."""
    done = server(built, "echo no route to anything; exit 7")
    assert done.returncode == 1
    assert "the load failed: exit 7" in done.stderr and "no route to anything" in done.stderr


def test_a_server_that_never_listens_is_given_up(built: Path) -> None:
    """With what it did open instead."""
    done = server(built, "true", "sys.exit(0)", "--port", "16872", "--timeout", "1.5")
    assert done.returncode == 1
    assert "did not open port 16872" in done.stderr and "it listens on" in done.stderr


@pytest.mark.parametrize(("text", "rate"), [
    ("SET: 40000.00 requests per second, p50=0.2 msec\nGET: 60000.00 requests per second", 48000),
    ("Requests/sec:  12345.67\nTransfer/sec: 1MB", 12345.67),
    ("Requests per second:    250.50 [#/sec] (mean)", 250.5),
    ("tps = 90.5 (without initial connection time)", 90.5),
    ("nothing of that sort", None),
])
def test_throughput_is_read_from_what_loads_print(text: str, rate: float | None) -> None:
    """Lines as the tools print them."""
    assert throughput(text) == (None if rate is None else pytest.approx(rate))


def test_throughput_by_a_pattern_of_ones_own() -> None:
    """Any tool can be read."""
    assert throughput("speed=12 rows", r"speed=(\d+)") == 12


def test_options_of_components_are_part_of_their_names() -> None:
    """``tlsf:pool=1M`` is a choice like any other."""
    record = references.record_of("tlsf:pool=1M")
    assert (record.id, record.changed()) == ("alloc.tlsf", {"pool": 1 << 20})
    with pytest.raises(CompositionError, match="NAME:OPTION=VALUE"):
        references.record_of("tlsf:pool")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a trace of two threads that come and go; where it is."""
    events = []
    for turn in range(3000):
        events.append(lab.Event(lab.Op.ALLOC if turn % 3 else lab.Op.ZEROED, turn, turn % 2, turn,
                                1 + turn % 700, 64 if turn % 50 == 0 else 0))
        if turn % 5 == 0:
            events.append(lab.Event(lab.Op.REALLOC, turn, 0, turn, 5000))
        if turn > 200:
            events.append(lab.Event(lab.Op.FREE, turn, 0, turn - 200))
    place = tmp_path_factory.mktemp("trace") / "app.trace"
    lab.Trace.of(events, command="app").save(place)
    return place


def test_a_trace_is_replayed_on_every_allocator(built: Path, trace: Path) -> None:
    """Time, memory, latency of single operations and fragmentation, for ours and for others."""
    found = compared("--rounds", "3", "--allocator", f"tlsf,{built / 'libsteady.so'}", trace)
    assert [row["name"] for row in found["rows"]] == ["glibc", "tlsf", "libsteady"]
    assert found["subject"]["kind"] == "trace"
    for row in found["rows"]:
        assert row["failures"] == [] and len(row["runs"]) == 3
        operations = row["operations"]
        for what in ("malloc", "free"):
            values = operations[what]
            assert 0 <= values["p50"] <= values["p99"] <= values["p99.99"] <= values["max"]
        assert 0 <= operations["fragmentation"] < 1
        assert len(operations["samples"]) == 200
        assert operations["samples"][-1][0] == found["subject"]["operations"]
    base, _, steady = found["rows"]
    assert steady["operations"]["fragmentation"] > base["operations"]["fragmentation"]
    assert any("2 threads are replayed by one" in note for note in found["notes"])


def test_a_trace_on_a_crashing_allocator(built: Path, trace: Path) -> None:
    """The row is a loss; the others are unharmed."""
    found = compared("--rounds", "1", "--allocator", built / "libbroken.so", trace)
    assert found["rows"][1]["failures"][0].startswith("SIG")
    assert found["rows"][1]["operations"] is None
    assert found["rows"][0]["operations"]["malloc"]


def test_latency_of_a_program_comes_from_a_recorded_run(built: Path) -> None:
    """One run is recorded and replayed; the program's own figures stand beside it."""
    found = compared("--rounds", "1", "--allocator", "tlsf", "--", built / "work",
                     "20000")
    for row in found["rows"]:
        assert row["operations"]["malloc"]["p50"] <= row["operations"]["malloc"]["max"]


def test_a_damaged_trace_is_refused(tmp_path: Path) -> None:
    """One line that says which file and what is wrong."""
    (tmp_path / "bad.trace").write_bytes(b"KITTRACE" + b"\xff" * 5000)
    done = unikit("compare", tmp_path / "bad.trace")
    assert done.returncode == 1
    assert "bad.trace" in done.stderr and len(done.stderr.splitlines()) == 1
    done = unikit("compare", tmp_path / "none.trace")
    assert done.returncode == 1 and "there is no trace" in done.stderr


def test_options_for_programs_do_not_fit_traces(trace: Path) -> None:
    """Asking for the impossible is told, not ignored."""
    done = unikit("compare", "--load", "true", trace)
    assert done.returncode == 1 and "is a trace" in done.stderr


def test_narrow_terminals_get_several_tables() -> None:
    """Each part has the first column; no figure is parted from its ratio."""
    headers = ["allocator", "version", "CPU time", "/ glibc", "peak", "/ glibc", "notes"]
    rows = [[("name", ""), ("1.0", ""), ("1.00 s", ""), ("1.00 [0.99-1.01]", ""), ("10 MiB", ""),
             ("1", ""), ("a long note " * 9, "")]]
    assert pictures.parts(headers, rows, 240) == [[0, 1, 2, 3, 4, 5, 6]]
    assert pictures.parts(headers, rows, 56) == [[0, 1, 2, 3], [0, 4, 5, 6]]
    assert pictures.parts(headers, rows, 10) == [[0, 1], [0, 2, 3], [0, 4, 5], [0, 6]]


def test_advice_names_a_command_and_its_evidence(trace: Path, tmp_path: Path) -> None:
    """What to type, or to stay; scores of all, variations of options among them."""
    done = unikit("advise", "--json", "--rounds", "5", "--for", "memory", "--allocator",
                  "tlsf,buddy", "--report", tmp_path / "x.html", trace)
    assert done.returncode == 0, done.stderr
    form = json.loads(done.stdout)
    names = {each["name"] for each in form["scores"]}
    assert {"glibc", "tlsf", "buddy"} <= names
    assert any(":" in name for name in names)  # an option of buddy changed
    assert form["aim"] == "memory" and form["weights"]["memory"] == 0.8
    assert bool(form["commands"]) == form["change"]
    assert "Scores" in (tmp_path / "x.html").read_text()


def test_advice_on_a_program_records_it_first(built: Path) -> None:
    """One command from a program to what suits it."""
    done = unikit("advise", "--rounds", "2", "--allocator", "tlsf", "--", built / "work", "20000")
    assert done.returncode == 0, done.stderr
    assert "fewer than 5 rounds" in done.stdout
    assert done.stdout.splitlines()[2].startswith("Stay with glibc, or take tlsf")


def test_what_is_advised_can_be_typed() -> None:
    """Layers, options and huge pages in the words of ``unikit alloc run``."""
    from unikit.cli.alloc import advise
    row = Row("guard+tlsf:pool=1M --hugepages", "component",
              runs=[Run(at, 0.5, 0.5, 100) for at in range(6)])
    base = Row("glibc", "baseline", runs=[Run(at, 1.0, 1.0, 100) for at in range(6)])
    found = Comparison({"kind": "trace", "trace": "t", "program": "app"}, {}, {"rounds": 6},
                       [base, row])
    given = advice.advise(found)
    assert advise.commands(given, found, ["app", "a b"])[0] == \
        "unikit alloc run --allocator guard,tlsf --set alloc.tlsf.pool=1M --hugepages -- app 'a b'"


def test_an_allocator_inside_the_program_is_named(tmp_path: Path) -> None:
    """No preloaded library gets in front of the program itself; rows would all be the same."""
    source = tmp_path / "inside.c"
    source.write_text(STEADY + "int main(void) { free(malloc(10)); return 0; }")
    subprocess.run(["gcc", "-w", "-fno-builtin", "-rdynamic", source, "-o", tmp_path / "inside"],
                   check=True)
    done = unikit("compare", "--allocator", "tlsf", "--", tmp_path / "inside")
    assert done.returncode == 1
    assert "an allocator of its own in" in done.stderr and "can replace" in done.stderr


def test_a_program_at_a_fixed_address_has_no_allocator_inside(built: Path, tmp_path: Path) -> None:
    """Debian's python3 is one: its jump stub is the address of ``malloc`` for everybody."""
    source = tmp_path / "fixed.c"
    source.write_text("#include <stdlib.h>\nvoid *(*volatile get)(size_t);\n"
                      "int main(void) { get = malloc; return get(10) == NULL; }")
    subprocess.run(["gcc", "-fno-pie", "-no-pie", source, "-o", tmp_path / "fixed"], check=True)
    found = compared("--rounds", "2", "--allocator", f"tlsf,{built / 'libsteady.so'}", "--",
                     tmp_path / "fixed")
    assert [row["failures"] for row in found["rows"]] == [[]] * 3


def test_two_files_of_one_name_are_two_rows(built: Path, tmp_path: Path) -> None:
    """A new build beside the old one is what people compare most."""
    shutil.copy(built / "libsteady.so", tmp_path / "libsteady.so")
    found = references.named([f"{built / 'libsteady.so'},{tmp_path / 'libsteady.so'}"])
    assert [each.name for each in found] == ["glibc", "libsteady", str(tmp_path / "libsteady.so")]


def test_a_server_without_load_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the command would wait for ever without a word."""
    monkeypatch.setattr(rounds, "_LONG_S", 1.0)
    said: list[str] = []
    code = ("import socket, time; link = socket.socket(); link.bind(('127.0.0.1', 0)); "
            "link.listen(); time.sleep(2)")
    result = rounds.Program([sys.executable, "-c", code], hint=said.append).once((), -1, None, {})
    assert result.run is not None
    assert len(said) == 1 and "compared with --load" in said[0]


@pytest.mark.parametrize(("words", "expected"), [
    (["--report", "/nonexistent/x.html"], "there is no folder /nonexistent"),
    (["--picture", "x.bmp"], "ends in .svg, .png or .pdf")])
def test_outputs_are_checked_beforehand(words: list[str], expected: str) -> None:
    """A mistake in a name must not show after an hour of measuring."""
    begin = time.monotonic()
    done = unikit("compare", *words, "--", "sleep", "30")
    assert done.returncode == 1 and expected in done.stderr
    assert time.monotonic() - begin < 20


def test_python_is_compared_and_its_pools_are_named() -> None:
    """Most of what CPython asks for never reaches any allocator; readers should know."""
    found = compared("--rounds", "1", "--no-latency", "--allocator", "tlsf", "--", sys.executable,
                     "-c", "x = [bytes(1000) for _ in range(1000)]")
    assert all(row["failures"] == [] for row in found["rows"])
    assert any("PYTHONMALLOC=malloc" in note for note in found["notes"])


def test_a_program_that_does_nothing_is_compared() -> None:
    """No time and no request is no reason to fail."""
    found = compared("--rounds", "1", "--allocator", "tlsf", "--", "true")
    assert [len(row["runs"]) for row in found["rows"]] == [1, 1]
