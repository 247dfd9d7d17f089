"""Whole programs under their own tests and benchmarks, with every allocator that can carry them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from preload_harness import GUARDED, NAMES, features, library, run

from unikit.cli.alloc import loading

GENERAL = [name for name in NAMES if name in ("tlsf", "shard")]
"""Those that are made for any program; long tests run under these."""
SHORT = [name for name in NAMES if name not in ("bump", "firstfit")]
"""Those that carry programs which run on; bump never gives back, firstfit searches."""

every = pytest.mark.parametrize("name", [*NAMES, *GUARDED])
general = pytest.mark.parametrize("name", GENERAL)
capable = pytest.mark.parametrize("name", [*SHORT, *GUARDED])


def need(*programs: str) -> None:
    """Skip where a program is not installed."""
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def good(name: str, *command: object, timeout: float = 300, **more: str) -> str:
    """Run a command that must succeed; what it printed."""
    done = run(name, *command, timeout=timeout, **more)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@every
def test_bash(name: str) -> None:
    """Arrays, substitutions, functions, subshells and pipes: forks by the dozen."""
    script = """
        declare -A map; f() { local x=$1; echo "$((x * x))"; }
        for i in $(seq 150); do map[$i]=$(f $i); done
        for i in "${!map[@]}"; do echo "$i ${map[$i]}"; done | sort -n | md5sum
        s=; for i in {1..2000}; do s+="word$i "; done; read -ra words <<<"$s"
        echo "${#words[@]} ${s//word/w}" | wc -c
        cat <(printf '%s\\n' "${words[@]}" | sort -r | head -3) - <<<"end"
    """
    expected = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert good(name, "bash", "-c", script) == expected.stdout


@every
def test_git(name: str, tmp_path: Path) -> None:
    """A repository from nothing to a merge, a repack by several threads and a check of it all."""
    need("git")
    script = """
        set -e; git init -q -b main .; git config user.email a@b; git config user.name a
        for i in $(seq 30); do
            seq $((i * 40)) > file$i; git add .; git commit -qm "number $i"; done
        git checkout -qb side HEAD~10; seq 5000 > other; git add .; git commit -qm side
        git checkout -q main; git merge -q -m merged side
        git -c pack.threads=2 repack -adfq; git gc -q; git fsck --strict; git log --stat | wc -l
        git blame file30 | tail -1 | wc -l; git diff HEAD~20 | wc -l; git status --short | wc -l
    """
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "HOME": str(tmp_path), "GIT_PAGER": "cat"}
    out = []
    for folder, do in (("ours", name), ("theirs", "")):
        (tmp_path / folder).mkdir()
        command = ["bash", "-c", f"cd {tmp_path / folder}; {script}"]
        if do:
            out.append(good(do, *command, **quiet))
        else:
            out.append(subprocess.run(command, capture_output=True, text=True, check=True,
                                      env=os.environ | quiet).stdout)
    assert out[0] == out[1] and out[0].strip()


@every
def test_gcc(name: str, tmp_path: Path) -> None:
    """The driver, the compiler, the assembler and the linker; the same bytes as under glibc."""
    source = Path(__file__).parents[2] / "unikit/rt/format.c"
    root = Path(__file__).parents[2]
    flags = ["-O2", "-c", f"-I{root}", "-frandom-seed=x", source, "-o"]
    good(name, "gcc", *flags, tmp_path / "ours.o")
    subprocess.run(["gcc", *map(str, flags), tmp_path / "theirs.o"], check=True)
    assert (tmp_path / "ours.o").read_bytes() == (tmp_path / "theirs.o").read_bytes()
    (tmp_path / "main.c").write_text("#include <stdio.h>\nint main(void) { puts(\"built\"); }\n")
    good(name, "gcc", "-flto", tmp_path / "main.c", "-o", tmp_path / "main")
    assert good(name, tmp_path / "main") == "built\n"


@capable
def test_gpp(name: str, tmp_path: Path) -> None:
    """The C++ compiler on templates of the standard library, some hundred MiB of trees."""
    need("g++")
    source = tmp_path / "big.cc"
    source.write_text("""
        #include <algorithm>
        #include <iostream>
        #include <map>
        #include <regex>
        #include <string>
        #include <vector>
        int main()
        {
            std::map<std::string, std::vector<int>> map;
            for (int i = 0; i < 1000; i++) map[std::to_string(i % 37)].push_back(i);
            std::regex word("[0-4]+");
            std::cout << std::count_if(map.begin(), map.end(), [&](auto &pair) {
                return std::regex_match(pair.first, word); }) << std::endl;
        }
    """)
    good(name, "g++", "-std=c++17", "-O1", source, "-o", tmp_path / "big")
    plain = subprocess.run([tmp_path / "big"], capture_output=True, text=True, check=True)
    assert good(name, tmp_path / "big") == plain.stdout


@every
def test_perl(name: str) -> None:
    """Hashes, closures, regular expressions, sorting and a fork."""
    need("perl")
    script = """
        my %h; my $n = shift; $h{$_ % 997} .= "x$_," for 1 .. $n;
        my @k = sort { length $h{$a} <=> length $h{$b} or $a <=> $b } keys %h;
        my $s = join '', map { $h{$_} } @k; my $c = () = $s =~ /x(\\d*7),/g;
        my $pid = fork; if (!$pid) { my @big = (1) x 20000; exit(@big == 20000 ? 0 : 1) }
        waitpid $pid, 0; print "$c $? ", length $s, "\\n";
    """
    count = "20000" if name not in ("firstfit",) else "2000"
    expected = subprocess.run(["perl", "-e", script, count], capture_output=True, text=True,
                              check=True)
    assert good(name, "perl", "-e", script, count) == expected.stdout


@every
def test_lua(name: str) -> None:
    """Tables and strings that come and go; every change of size goes through realloc."""
    need("lua5.4")
    script = """
        local n = tonumber(arg[1]); local t = {}
        for i = 1, n do t[i] = string.rep(tostring(i), i % 20) end
        for i = 1, n, 3 do t[i] = nil end
        collectgarbage(); local s = 0; for _, v in pairs(t) do s = s + #v end
        local parts = {}; for i = 1, n // 10 do parts[#parts + 1] = i .. ',' end
        print(s, #table.concat(parts))
    """
    count = "60000" if name not in ("firstfit",) else "2000"
    command = ["lua5.4", "-e", f"arg = {{'{count}'}}", "-e", " ".join(script.split("\n"))]
    expected = subprocess.run(command, capture_output=True, text=True, check=True)
    assert good(name, *command) == expected.stdout


@every
def test_jq(name: str) -> None:
    """A JSON document of some thousand objects, grouped and sorted."""
    need("jq")
    count = 4000 if name not in ("firstfit",) else 300
    program = (f"[range({count}) | {{id: ., name: \"n\\(. % 97)\", list: [range(. % 7)]}}] | "
               "group_by(.name) | map({key: .[0].name, value: map(.list | add) | add}) | "
               "from_entries | to_entries | length")
    assert good(name, "jq", "-n", program).strip() == "97"


@every
def test_sqlite(name: str, tmp_path: Path) -> None:
    """Inserts, an index, a join, a sort larger than its cache, an integrity check."""
    need("sqlite3")
    count = 20000 if name not in ("firstfit",) else 1000
    script = f"""
        PRAGMA journal_mode=off; CREATE TABLE t(a INTEGER, b TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
            INSERT INTO t SELECT (i * 7919) % {count}, 'text ' || i FROM n;
        CREATE INDEX x ON t(a); SELECT count(*) FROM t JOIN t u ON t.a = u.a + 1;
        SELECT b FROM t ORDER BY b DESC LIMIT 2; DELETE FROM t WHERE a % 3 = 0;
        PRAGMA integrity_check; SELECT count(*), sum(length(b)) FROM t;
    """
    expected = subprocess.run(["sqlite3", ":memory:", script], capture_output=True, text=True,
                              check=True)
    assert good(name, "sqlite3", tmp_path / "base", script) == expected.stdout


def _python_tests() -> bool:
    import importlib.util
    return importlib.util.find_spec("test.test_list") is not None


@pytest.mark.parametrize("malloc", ["pymalloc", "malloc"])
@every
def test_python(name: str, malloc: str) -> None:
    """The interpreter with its own allocator above ours, and with ours for every object."""
    script = "import json, re, threading\n" \
             "count = int(__import__('sys').argv[1])\n" \
             "data = [{'n': i, 's': str(i) * (i % 50)} for i in range(count)]\n" \
             "text = json.dumps(data)\nassert json.loads(text) == data\n" \
             "threads = [threading.Thread(target=lambda: sorted(re.findall(r'\\d+', text))) " \
             "for _ in range(4)]\n" \
             "[t.start() for t in threads]; [t.join() for t in threads]\nprint(len(text))"
    count = "3000" if name not in ("firstfit",) else "50"
    good(name, sys.executable, "-I", "-c", script, count, PYTHONMALLOC=malloc)


@pytest.mark.slow
@pytest.mark.skipif(not _python_tests(), reason="this Python comes without its test modules")
@capable
def test_python_under_its_own_tests(name: str) -> None:
    """CPython's test modules, each object from our allocator."""
    modules = ["test_list", "test_dict", "test_json", "test_bytes", "test_threading",
               "test_io", "test_subprocess"] if name in GENERAL else ["test_list", "test_dict"]
    # left out: it fails without us where a package's .pth file imports threading at start
    good(name, sys.executable, "-m", "test", "-q", "-i", "test_import_from_another_thread",
         *modules, timeout=900, PYTHONMALLOC="malloc")


@contextmanager
def served(name: str, command: Sequence[object], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server with an allocator until the block ends; it must end well."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                               env=loading.environment(library(name)), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        assert library(name).name in Path(f"/proc/{process.pid}/maps").read_text()
        yield process
    finally:
        process.terminate()
        status = process.wait(20)
    assert status == 0


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@capable
def test_redis(name: str, tmp_path: Path) -> None:
    """The server under its benchmark: strings, lists, sets, hashes, a save by a forked child."""
    need("redis-server", "redis-benchmark", "redis-cli")
    port = free_port()
    command = ["redis-server", "--port", port, "--save", "", "--dir", tmp_path, "--bind",
               "127.0.0.1", "--loglevel", "warning", "--enable-debug-command", "yes"]
    with served(name, command, port):
        subprocess.run(["redis-benchmark", "-p", str(port), "-q", "-n", "20000", "-c", "20", "-r",
                        "5000", "-d", "100", "-t", "set,get,incr,lpush,rpop,sadd,hset,zadd,mset"],
                       check=True, capture_output=True, timeout=300)
        for words, said in ((["SAVE"], "OK"), (["DEBUG", "RELOAD"], "OK"),
                            (["BGSAVE"], "Background saving started"), (["PING"], "PONG")):
            done = subprocess.run(["redis-cli", "-p", str(port), *words], check=True,
                                  capture_output=True, text=True)
            assert said in done.stdout


@pytest.mark.slow
@capable
def test_nginx(name: str, tmp_path: Path) -> None:
    """A web server with two workers under load, reloaded in the middle of it."""
    need("nginx", "wrk")
    port = free_port()
    (tmp_path / "index.html").write_text("hello " * 1000)
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"""
        daemon off; worker_processes 2; pid {tmp_path}/pid; error_log {tmp_path}/log warn;
        user {"root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")};
        events {{}}
        http {{ access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}/p;
            fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u;
            scgi_temp_path {tmp_path}/s;
            gzip on; gzip_min_length 1; gzip_types text/html;
            server {{ listen 127.0.0.1:{port}; root {tmp_path}; }} }}
    """)
    with served(name, ["nginx", "-e", tmp_path / "log", "-c", conf], port) as process:
        load = ["wrk", "-t1", "-c8", "-d1", "-H", "Accept-Encoding: gzip",
                f"http://127.0.0.1:{port}/index.html"]
        for _ in range(2):
            done = subprocess.run(load, check=True, capture_output=True, text=True)
            assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout
            process.send_signal(1)  # SIGHUP: new workers
            time.sleep(0.2)
    assert "signal 11" not in (tmp_path / "log").read_text()


def test_long_programs_run_under_allocators_that_reuse() -> None:
    """The lists above must not silently become empty."""
    assert set(GENERAL) == {"tlsf", "shard"}
    assert all("reuses" in features(name) for name in SHORT)
