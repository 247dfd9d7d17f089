"""Claim: the whole command ``unikit run hello`` with a cached image takes at most 80 ms.

``python3 -c pass`` of the same interpreter is measured beside it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from harness import interleave, record

ROUNDS = 21


def wall(*command: str) -> float:
    """Run a command and return its milliseconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


@pytest.mark.kvm
def test_run(benchmark: Any) -> None:
    """Interpreter start, choice of platform, boot, output, teardown."""
    hello = (sys.executable, "-m", "unikit", "run", "hello", "--platform", "kvm")
    found = benchmark.pedantic(
        interleave, args=(ROUNDS, 2), rounds=1,
        kwargs={"unikit": lambda: wall(*hello),
                "python": lambda: wall(sys.executable, "-c", "pass")})
    record("run", "unikit run hello, whole command, cached image", "ms", found["unikit"], must=80,
           reference=found["python"])
