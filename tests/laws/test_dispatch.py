"""Calls of an interface go through its dispatchers, so that the composer can make them direct."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[2]
CALL = re.compile(
    r"(?:\benv|\(\))->(now_ns|wall_ns|entropy|wait|page_release|page_protect|cpu_start|cpu_wake|boot_option"
    r"|exit|panic_handler)\s*\(|\bops->\w+\s*\(")
HEADERS = {"env.h", "alloc.h", "sched.h", "net.h"}


def test_nobody_calls_through_a_table_by_hand() -> None:
    """In an image the tables are empty: such a call would jump to nowhere."""
    found = []
    for path in sorted((ROOT / "unikit").rglob("*.[ch]")):
        hosted = path.name.startswith("host") or "platform/host" in path.as_posix()
        if path.name in HEADERS or hosted:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if CALL.search(line) and not line.lstrip().startswith("*"):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)
