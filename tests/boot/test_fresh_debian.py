"""The two command lines of the README on a Debian 12 that has nothing: no Python, no compiler.

A minimal Debian is made by mmdebstrap from the package sources that this machine uses; the clone is
copied into it and called as root and as an ordinary user, with and without ``/dev/kvm``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikit import registry
from unikit.platform.api import probe

pytestmark = [pytest.mark.slow, pytest.mark.root]

ROOT = Path(__file__).resolve().parents[2]
USER = 12321
MINUTES = 60
APT = sorted(Path("/etc/apt").glob("sources.list.d/*.sources")) + [
    path for path in [Path("/etc/apt/sources.list")] if path.exists() and path.stat().st_size]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
KEPT = "/opt/certificates.crt"  # the package ca-certificates rewrites the file above
PASSED_ON = re.compile(r"^(PIP_\w+|\w*_proxy|\w*_PROXY|SSL_CERT_\w+|LANG)$")


@dataclasses.dataclass
class Debian:
    """A root folder; commands run in it under a mount namespace of their own."""

    root: Path

    def command(self, line: str, *, user: bool, kvm: bool) -> list[str]:
        """Return a command of the host that runs a shell line inside."""
        home = "/home/anna" if user else "/root"
        mounts = ["mount -t proc proc proc", "mount -t tmpfs -o mode=755 tmpfs dev",
                  "mkdir dev/pts dev/shm dev/net", "mount -t tmpfs -o mode=1777 tmpfs dev/shm",
                  "ln -s /proc/self/fd dev/fd"]
        nodes = ["null", "zero", "full", "random", "urandom", "tty", "net/tun"]
        for node in nodes + ["kvm"] * kvm:
            if Path("/dev", node).exists():  # a node of its own: everybody may open it inside
                device = Path("/dev", node).stat().st_rdev
                mounts += [f"mknod -m 666 dev/{node} c {os.major(device)} {os.minor(device)}"]
        for folder in local_folders():
            mounts += [f"mkdir -p .{folder}", f"mount --bind {folder} .{folder}"]
        environment = {name: value.replace(CERTIFICATES, KEPT)
                       for name, value in os.environ.items() if PASSED_ON.match(name)}
        environment |= {"HOME": home, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        words = ["chroot", *([f"--userspec={USER}:{USER}"] if user else []), ".", "/usr/bin/env",
                 "-i", *(f"{name}={value}" for name, value in environment.items()),
                 "/bin/sh", "-c", f"cd {home} && {line}"]
        script = f"set -e; cd {shlex.quote(str(self.root))}; {'; '.join(mounts)}; " \
                 f"exec {shlex.join(words)}"
        return ["unshare", "--mount", "sh", "-c", script]

    def run(self, line: str, *, user: bool = False, kvm: bool = True,
            timeout: float = 15 * MINUTES) -> subprocess.CompletedProcess[str]:
        """Run a shell line to its end."""
        return subprocess.run(self.command(line, user=user, kvm=kvm), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False)

    @contextlib.contextmanager
    def serve(self, line: str, *, user: bool = False, kvm: bool = True,
              timeout: float = 15 * MINUTES) -> Iterator[tuple[str, list[str]]]:
        """Run a line until it prints an address; give (address, lines so far), then Ctrl-C it."""
        process = subprocess.Popen(
            self.command(line, user=user, kvm=kvm), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        assert process.stdout is not None
        seen: list[str] = []
        end = time.monotonic() + timeout
        try:
            while not any(text.startswith("http://") for text in seen):
                assert time.monotonic() < end, "no address in time:\n" + "".join(seen)
                if select.select([process.stdout], [], [], 1)[0]:
                    more = os.read(process.stdout.fileno(), 65536)
                    assert more, f"it ended ({process.wait()}):\n" + "".join(seen)
                    seen = ("".join(seen) + more.decode()).splitlines(keepends=True)
            yield next(text for text in seen if text.startswith("http://")).strip(), seen
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=30)
            assert process.returncode in (130, -signal.SIGINT), "".join(seen)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()

    def clone(self, where: str, *, owner: int = 0) -> None:
        """Put a copy of this source tree, without anything built, into the root."""
        target = self.root / where.lstrip("/")
        target.mkdir(parents=True)
        for name in tracked():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
        subprocess.run(["chown", "-R", f"{owner}:{owner}", target], check=True)


def tracked() -> list[str]:
    """Return the files a fresh clone would have, changes that are not committed yet included."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT,
                             capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    built = {".venv", "build", "dist", "__pycache__", "_build"}
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")
            if path.is_file() and not built & set(path.parts) and path.suffix != ".so"]


def local_folders() -> list[str]:
    """Return folders of this machine that its pip is told to look into."""
    listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True,
                             text=True, check=False).stdout
    found = re.findall(r"(?:file://|(?<=[\s'\"]))(/[^\s'\"]+)", listing)
    found = [path.removesuffix("/").removesuffix("/simple") for path in found]  # with its files
    return sorted({path for path in found if Path(path).is_dir()})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the minimal Debian once, with this machine's package sources and certificates."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    folder = tmp_path_factory.mktemp("debian") / "base"
    done = subprocess.run(["mmdebstrap", "--mode=root", "--variant=apt", "--quiet", "bookworm",
                           folder, *APT], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no Debian packages can be had here: {done.stderr[-500:]}")
    for name in ("apt/apt.conf.d", "apt/trusted.gpg.d", "apt/preferences.d", "resolv.conf",
                 "hosts"):
        source, target = Path("/etc", name), folder / "etc" / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, target)
    if Path(CERTIFICATES).exists():
        shutil.copy(CERTIFICATES, folder / KEPT.lstrip("/"))
    configs = [Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf",
               Path.home() / ".pip/pip.conf"]
    lines = [line.replace(CERTIFICATES, KEPT) for config in configs if config.exists()
             for line in config.read_text().splitlines() if line.strip() != "[global]"]
    (folder / "etc/pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    with (folder / "etc/passwd").open("a") as out:
        out.write(f"anna:x:{USER}:{USER}::/home/anna:/bin/sh\n")
    (folder / "home/anna").mkdir()
    os.chown(folder / "home/anna", USER, USER)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def debian(base: Path, tmp_path: Path) -> Iterator[Debian]:
    """Give a fresh Debian: a layer over the base, thrown away afterwards."""
    upper, work, root = tmp_path / "upper", tmp_path / "work", tmp_path / "root"
    for folder in (upper, work, root):
        folder.mkdir()
    layers = f"lowerdir={base},upperdir={upper},workdir={work}"
    mounted = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, root],
                             check=False).returncode == 0
    if not mounted:
        subprocess.run(["cp", "-a", f"{base}/.", root], check=True)
    yield Debian(root)
    if mounted:
        subprocess.run(["umount", "-l", root], check=False)
    shutil.rmtree(upper, ignore_errors=True)


def page(address: str) -> str:
    """Return what a plain client gets from the server."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.status == 200
        return answer.read().decode()


def works(debian: Debian, line: str, *, user: bool, kvm: bool) -> list[str]:
    """Run the web server and fetch its page; the lines it printed."""
    with debian.serve(line, user=user, kvm=kvm) as (address, seen):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
        assert "<html" in page(address)
        assert page(address) == page(address)
    return seen


def kvm_reason() -> str | None:
    """Say why images cannot run on /dev/kvm here."""
    return probe(registry.find("platform.kvm"))  # type: ignore[arg-type]


def platform(lines: list[str]) -> str:
    """Return which platform was taken, from the line that says so and why."""
    return next(match[1] for line in lines if (match := re.search(r"platform (\w+): \S", line)))


def test_root_gets_everything_in_one_line(debian: Debian) -> None:
    """Nothing is there; one command later the page is, and the next call takes seconds."""
    debian.clone("/root/my unikit")
    line = "'my unikit/unikit/bootstrap' run http"
    lines = works(debian, line, user=False, kvm=True)
    assert any("installing with apt" in text for text in lines)
    start = time.monotonic()
    lines = works(debian, line, user=False, kvm=False)
    assert time.monotonic() - start < MINUTES
    assert not any("installing" in text for text in lines)
    assert platform(lines) == "linux"


def test_user_is_told_the_one_line_and_then_it_works(debian: Debian) -> None:
    """An ordinary user gets the apt line, exit code 1, and after it the page."""
    debian.clone("/home/anna/unikit", owner=USER)
    line = "unikit/unikit/bootstrap run http"
    refused = debian.run(line, user=True)
    assert refused.returncode == 1
    advice = [text for text in refused.stderr.splitlines() if "apt-get install" in text]
    assert len(advice) == 1, refused.stderr
    command = advice[0].removeprefix("unikit:").replace("sudo ", "").strip()
    assert debian.run(f"DEBIAN_FRONTEND=noninteractive {command}").returncode == 0
    for kvm in (True, False):
        taken = platform(works(debian, line, user=True, kvm=kvm))
        assert taken == ("kvm" if kvm and kvm_reason() is None else "linux")


def test_read_only_clone(debian: Debian) -> None:
    """A clone that belongs to somebody else is built from a copy in the user's cache."""
    debian.clone("/opt/unikit")
    assert debian.run("/opt/unikit/unikit/bootstrap --version").returncode == 0
    before = sorted((debian.root / "opt/unikit").rglob("*"))
    assert works(debian, "/opt/unikit/unikit/bootstrap run http", user=True, kvm=False)
    assert sorted((debian.root / "opt/unikit").rglob("*")) == before
    again = debian.run("/opt/unikit/unikit/bootstrap --version", user=True)
    assert again.returncode == 0 and "installing" not in again.stderr


def test_tests_run_in_one_line(debian: Debian) -> None:
    """The second command line of the README sets up and runs the tests."""
    debian.clone("/root/unikit")
    done = debian.run("unikit/unikit/bootstrap test -m fast -q --no-header")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_a_wheel_needs_gcc_alone(debian: Debian, tmp_path: Path) -> None:
    """With a wheel an ordinary user needs neither headers nor python3-venv, only gcc."""
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w",
         tmp_path, "."], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("unikit_os-*.whl")
    debian.clone("/home/anna/unikit", owner=USER)
    shutil.copy(wheel, debian.root / "home/anna")
    ready = "apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 gcc"
    assert debian.run(ready).returncode == 0
    line = f"UNIKIT_WHEEL=$HOME/{wheel.name} unikit/unikit/bootstrap run http"
    assert works(debian, line, user=True, kvm=False)
