"""net.mini and hostile frames (``tests/fuzz/mini_frames.c``): the input path, under sanitizers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
from compiled import build, run

from unikit.net import Mini

SMALL = Mini(connections=16, send_buffer="4K", receive_buffer="4K", time_wait="1s", arp_entries=4)


def survives(seed: int, steps: int, record: Mini) -> None:
    """Run it, and see that the noise went deep: half of it at least to a connection."""
    program = build(["tests/fuzz/mini_frames.c", "unikit/testing/virtual.c", *Mini.source_files()],
                    defines={"COMPONENT": Mini.symbol()})
    done = run(program, seed, steps, *record.encoded(), timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    match = re.match(r"(\d+) frames, (\d+) reached a connection, (\d+) accepted", done.stdout)
    assert match, done.stdout
    frames, reached, accepted = map(int, match.groups())
    assert frames >= steps
    assert 2 * reached >= frames, done.stdout
    assert accepted >= steps // 200, done.stdout


@pytest.mark.fast
@pytest.mark.parametrize("record", [SMALL, Mini()], ids=["small", "default"])
def test_spoilt_frames_break_nothing(record: Mini) -> None:
    """No memory error, invariants kept, memory bounded and given back, honest service after."""
    survives(56, 40_000, record)  # of old: a FIN without a timer after a probe


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 18))
def test_spoilt_frames_for_long(seed: int) -> None:
    """Three million frames for each seed."""
    survives(seed, 2_000_000, SMALL if seed % 2 else Mini())
