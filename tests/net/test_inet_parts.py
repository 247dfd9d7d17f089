"""The parts of net.inet that know no stack, against simple models (``inet_parts.c``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
from compiled import ROOT, build, conforms, run

FOLDER = "unikit/net/inet"
PARTS = [f"{FOLDER}/{name}.c" for name in ("queue", "assembly", "board", "rack", "flow", "cubic",
                                           "table")]

# (file, right, wrong): each a mistake somebody could make.
MUTATIONS = [
    ("queue.c", "offset = 0;", ";"),
    ("assembly.c", "before = best->stamp;", "before = best->stamp - 1;"),
    ("assembly.c", "a->bytes -= old + run->data.length;", "a->bytes -= run->data.length;"),
    ("board.c", "s->start = una;", ";"),
    ("board.c", "s = inet_board_at(b, ++i);", "s = inet_board_at(b, i);"),
    ("board.c", "board_uncount(b, s->flags, inet_sent_length(s));\n        board_deliver",
     "board_deliver"),
    ("rack.c", "if (left <= 0) {", "if (left < -500) {"),
    ("rack.c", "(uint32_t)left > again_us", "again_us == 0"),
    ("rack.c", "kit_seq_lt(s->end, r->fack)", "kit_seq_lt(r->fack, s->end)"),
    ("flow.c", "p->delivered += delivered;", "p->delivered = delivered;"),
    ("cubic.c", "UINT64_C(2500000000)", "UINT64_C(250000000)"),
    ("table.c", "index & mask >> 1", "index & mask"),
]


@pytest.mark.fast
@pytest.mark.parametrize("seed", range(3))
def test_parts_agree_with_their_models(seed: int) -> None:
    """Queues, reassembly, scoreboard, RACK, PRR, CUBIC, round trips, tables; under sanitizers."""
    conforms(build(["tests/net/inet_parts.c", *PARTS], flags=["-lm"]), seed + 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MUTATIONS)),
                         ids=[f"{name}-{number}" for number, (name, *_) in enumerate(MUTATIONS)])
def test_a_broken_part_is_noticed(number: int, tmp_path: Path) -> None:
    """Models that pass everything are worth nothing: each of these mistakes must be found."""
    name, right, wrong = MUTATIONS[number]
    text = (ROOT / FOLDER / name).read_text()
    assert text.count(right) >= 1, "the mutation no longer fits the source"
    (tmp_path / name).write_text(text.replace(right, wrong))
    files = [tmp_path / name if path.endswith(f"/{name}") else path for path in PARTS]
    program = build(["tests/net/inet_parts.c", *files], variant="optimised",
                    flags=["-lm", "-Wno-error"])
    try:
        done = run(program, 1, timeout=10)
    except subprocess.TimeoutExpired:
        return
    assert done.returncode != 0, f"passed without noticing: {right} -> {wrong}"
