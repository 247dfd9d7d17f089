"""Claim: the whole command ``unikit run hello`` with a cached image takes at most 80 ms.

``python3 -c pass`` of the same interpreter is measured beside it. The command is the installed one,
byte-compiled as pip leaves it, run from a folder of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness import interleave, record

ROUNDS = 21


def wall(*command: str) -> float:
    """Run a command and return its milliseconds."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, cwd="/",
                   env=env)
    return (time.perf_counter() - start) * 1000


@pytest.mark.kvm
def test_run(benchmark: Any) -> None:
    """Interpreter start, choice of platform, boot, output, teardown."""
    command = Path(sys.executable).with_name("unikit")
    if not command.exists():
        pytest.skip("unikit is not installed beside this interpreter")
    hello = (str(command), "run", "hello", "--platform", "kvm")
    found = benchmark.pedantic(
        interleave, args=(ROUNDS, 2), rounds=1,
        kwargs={"unikit": lambda: wall(*hello),
                "python": lambda: wall(sys.executable, "-c", "pass")})
    record("run", "unikit run hello, whole command, cached image", "ms", found["unikit"], must=80,
           reference=found["python"])
