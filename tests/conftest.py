"""Fixtures that ask the machine, and a closing line that says what was really exercised."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

CAPABILITIES = ("kvm", "kvm-svm", "tap", "seccomp", "huge pages")
"""What a machine may or may not be able to do; each test that needs one of them says so with
``@pytest.mark.exercises("tap")``, a fixture of that name, or by its place (``_BY_PLACE``)."""

_BY_PLACE = {
    "kvm": re.compile(r"test_\w*kvm\w*\.py|/kvm/|\[kvm"),
    "kvm-svm": re.compile(r"svm"),
    "tap": re.compile(r"test_tap\.py|::test_\w*tap\w*|\[tap"),
    "seccomp": re.compile(r"seccomp"),
    "huge pages": re.compile(r"huge"),
}

TOOLS = {"curl": "curl", "wrk": "wrk", "iperf3": "iperf3", "nginx": "nginx-light",
         "valgrind": "valgrind", "hping3": "hping3", "ping": "iputils-ping", "ip": "iproute2",
         "tcpdump": "tcpdump", "qemu-system-x86_64": "qemu-system-x86", "git": "git",
         "busybox": "busybox-static", "nc": "netcat-openbsd", "make": "make", "ab": "apache2-utils",
         "pkg-config": "pkg-config", "cpio": "cpio", "gdb": "gdb", "strace": "strace",
         "mmdebstrap": "mmdebstrap", "clang-format": "clang-format", "g++": "g++"}
"""Programs that tests use and a machine may lack, with the Debian package of each."""

_POOL = re.compile(r"tests/alloc/test_(memory|memory_report|embedding|numpy|heap|shared)\.py"
                   r"|test_docs\.py.*(huge|numpy|README)")
"""Tests that reserve huge pages, or take one where there is one: the pool is the machine's."""

# A shell that starts the tests in the background has Ctrl-C ignored; what they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_exercised: Counter[str] = Counter()
_skipped: dict[str, str] = {}
_serial = itertools.count()


def needs(item: pytest.Item) -> set[str]:
    """Return the capabilities that a test exercises when it passes."""
    named = {name for mark in item.iter_markers("exercises") for name in mark.args}
    named |= {name.replace("_", " ") for name in getattr(item, "fixturenames", ())}
    named |= {name for name, pattern in _BY_PLACE.items() if pattern.search(item.nodeid)}
    if item.get_closest_marker("kvm"):
        named.add("kvm")
    return named & set(CAPABILITIES)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow unless asked for, skip what this machine cannot do, with its reason.

    ``-m fast`` must not bring the slow tests of a fast module.
    """
    if "slow" not in config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)
    for item in items:
        item.user_properties += [("exercises", name) for name in sorted(needs(item))]
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        if item.get_closest_marker("kvm") and (reason := kvm_reason()):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def pool_of_huge_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where files run side by side (``-n 2 --dist loadfile``): let nobody reserve meanwhile.

    Whoever reserves holds the same lock alone.
    """
    together = "PYTEST_XDIST_WORKER" in os.environ and _POOL.search(request.node.nodeid)
    if not together or "huge_pages" in request.fixturenames:
        yield
        return
    with (Path(tempfile.gettempdir()) / "unikit-test-huge-pages").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_SH)
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]
                              ) -> Iterator[None]:
    """Turn «no such program» of an optional tool into a skip that names its package."""
    outcome = yield
    error = call.excinfo.value if call.excinfo else None
    name = Path(str(error.filename)).name if isinstance(error, FileNotFoundError) else ""
    if name in TOOLS and shutil.which(name) is None:
        report = outcome.get_result()  # type: ignore[attr-defined]
        path, line, _ = item.location
        report.outcome = "skipped"
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {name} is not installed "
                                                  f"(Debian package {TOOLS[name]})")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the capabilities of tests that passed; keep the reason of the first skipped one."""
    for name, value in report.user_properties:
        if name != "exercises":
            continue
        if report.when == "call" and report.passed:
            _exercised[value] += 1
        elif report.skipped and isinstance(report.longrepr, tuple):
            _skipped.setdefault(value, report.longrepr[2].removeprefix("Skipped: "))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line per run: what was exercised, by how many tests, and what was not, and why."""
    parts = []
    for name in CAPABILITIES:
        count = _exercised[name]
        parts.append(f"{name}: {count} passed" if count
                     else f"{name}: NOT ({_skipped.get(name, 'no test ran')})")
    terminalreporter.write_line("exercised: " + "; ".join(parts))


def kvm_reason() -> str | None:
    """Say why images cannot run on /dev/kvm here; ``None`` if they can."""
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "no permission on /dev/kvm"
    try:
        from unikit import registry
        from unikit.platform.api import probe
        return probe(registry.find("platform.kvm"))
    except Exception as error:  # the platform itself is broken: the tests that use it must say so
        return None if os.environ.get("CI") else f"platform.kvm: {error}"


@pytest.fixture
def kvm() -> None:
    """Skip, with the reason, where images cannot run on /dev/kvm."""
    if reason := kvm_reason():
        pytest.skip(reason)


@pytest.fixture
def root() -> None:
    """Skip where the tests do not run as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def netns(root: None) -> Iterator[str]:
    """Make an empty network namespace with a live loopback; its name. Gone afterwards."""
    from pyroute2 import NetNS
    from pyroute2 import netns as namespaces
    name = f"unikit-test-{os.getpid()}-{next(_serial)}"
    space = NetNS(name)
    try:
        space.link("set", index=1, state="up")
        yield name
    finally:
        space.close()
        namespaces.remove(name)
