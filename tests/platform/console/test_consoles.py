"""All consoles against their conformance suite, hosted with sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast


def test_every_console_conforms_and_keeps_its_own_promises(console_program: Path) -> None:
    """The suite that third parties run too, then tee, syslog and their like in detail."""
    done = subprocess.run([console_program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
