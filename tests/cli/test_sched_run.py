"""The web server under every scheduler, from the command line, nothing else changed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from unikit import apps, registry

PAGE = (Path(apps.__file__).parent / "http/site/index.html").read_bytes()
SETTINGS = {"edf": "sched.edf.slice=2ms", "fair": "sched.fair.slice=1ms"}
SCHEDULERS = [record.stem() for record in registry.components("sched")
              if record.sources and record.side == "image"]


@pytest.mark.parametrize("platform", ["linux", pytest.param("kvm", marks=pytest.mark.kvm)])
@pytest.mark.parametrize("sched", SCHEDULERS)
def test_http_runs_under_every_scheduler(sched: str, platform: str) -> None:
    """``unikit run http --sched edf --set sched.edf.slice=2ms``: the page is served."""
    words = ["--set", SETTINGS[sched]] if sched in SETTINGS else []
    process = subprocess.Popen(
        [sys.executable, "-m", "unikit", "run", "http", "--sched", sched, *words, "--platform",
         platform, "--forward", "0:80", "--name", f"sched-{sched}-{platform}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            pytest.fail("".join(said))
        for _ in range(3):
            with urllib.request.urlopen(match[0] + "/", timeout=5) as answer:
                assert answer.read() == PAGE
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()
