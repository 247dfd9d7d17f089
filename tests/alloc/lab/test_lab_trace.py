"""The trace format: what is written is read again, and damage is said or survived."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikit.alloc import lab
from unikit.alloc.lab.trace import NO_BLOCK
from unikit.errors import InvalidArgument, Malformed, NotFound

pytestmark = pytest.mark.fast

Op, Event = lab.Op, lab.Event


@st.composite
def histories(draw: st.DrawFn) -> list[lab.Event]:
    """Make events as a program would: frees and reallocs are of blocks that are alive."""
    events: list[lab.Event] = []
    live: dict[int, tuple[int, int]] = {}
    time = born = 0
    for _ in range(draw(st.integers(0, 60))):
        time += draw(st.one_of(st.integers(0, 300), st.integers(0, 1 << 58)))
        thread = draw(st.integers(0, 5))
        kinds = [Op.ALLOC, Op.ZEROED, Op.FAILED]
        if live:
            kinds += [Op.FREE, Op.SIZED_FREE, Op.REALLOC]
        op = draw(st.sampled_from(kinds))
        size = draw(st.one_of(st.integers(0, 1000), st.integers(0, (1 << 64) - 1)))
        align = draw(st.sampled_from([0, 0, 0, 2, 64, 4096, 1 << 47]))
        site = draw(st.integers(0, 7))
        block = NO_BLOCK
        if op in (Op.ALLOC, Op.ZEROED):
            block, born = born, born + 1
        elif op is not Op.FAILED:
            block = draw(st.sampled_from(sorted(live)))
        if op in (Op.FREE, Op.SIZED_FREE):
            (size, align), site = live.pop(block), 0
        elif op is Op.FAILED:
            align = site = 0
        else:
            live[block] = (size, align)
        events.append(Event(op, time, thread, block, size, align, site))
        if time > 1 << 62:
            break
    return events


SITES = [f"function{number}" for number in range(1, 8)]


@given(histories())
@settings(deadline=None, max_examples=200)
def test_what_is_written_is_read_again(events: list[lab.Event]) -> None:
    """Every field of every event survives the file; call sites keep their names."""
    trace = lab.Trace.of(events, SITES, program="model")
    again = lab.Trace.loads(trace.dumps())
    assert again.complete and not again.foreign and not again.lost
    assert list(again) == list(trace)
    assert [event._replace(site=0) for event in trace] == \
        [event._replace(site=0) for event in events]
    assert [trace.sites[event.site].name for event in trace] == \
        [SITES[event.site - 1] if event.site else "unknown" for event in events]
    assert again.facts["program"] == "model"


@given(histories())
@settings(deadline=None, max_examples=100)
def test_the_summary_agrees_with_a_model(events: list[lab.Event]) -> None:
    """Peaks and counts come from one pass in C; a plain loop in Python says the same."""
    live: dict[int, int] = {}
    peak = blocks = 0
    for event in events:
        if event.op in (Op.FREE, Op.SIZED_FREE):
            del live[event.block]
        elif event.op is not Op.FAILED:
            live[event.block] = event.size
        peak, blocks = max(peak, sum(live.values())), max(blocks, len(live))
    summary = lab.Trace.of(events, SITES).summary()
    if sum(event.size for event in events) < 1 << 64:
        assert summary.peak_bytes == peak
    assert summary.peak_blocks == blocks
    assert summary.live_blocks == len(live)
    assert summary.failures == sum(event.op is Op.FAILED for event in events)


def long_trace(events: int = 9000) -> lab.Trace:
    """Return a trace of several chunks."""
    made = []
    for number in range(events // 2):
        made.append(Event(Op.ALLOC, number * 50, number % 3, number, 16 + number % 977, 0,
                          1 + number % 5))
        if number >= 100:
            made.append(Event(Op.FREE, number * 50 + 20, 0, number - 100))
    return lab.Trace.of(made, SITES, program="long")


def test_a_file_that_ends_early_keeps_what_it_has(tmp_path: Path) -> None:
    """A recorder that was killed, or a disk that was full, costs the end and nothing else."""
    whole = long_trace()
    data = whole.dumps()
    file = tmp_path / "cut.trace"
    reached = 0
    for size in range(4096, len(data) - 1, 1777):
        file.write_bytes(data[:size])
        trace = lab.Trace.load(file)
        assert not trace.complete
        assert len(trace) >= reached
        reached = len(trace)
        assert [event[:5] for event in trace] == [event[:5] for event, _ in
                                                  zip(whole, trace, strict=False)]
    assert reached == len(whole)


def test_every_flipped_bit_of_a_finished_file_is_found() -> None:
    """A finished file has check sums: a wrong statistic would be worse than an error."""
    data = bytearray(long_trace(600).dumps())
    quiet = lab.Trace.loads(bytes(data))
    for at in [*range(0, 200, 3), *range(4096, 4096 + 2000, 37)]:
        data[at] ^= 0x10
        try:
            changed = lab.Trace.loads(bytes(data))
        except Malformed:
            changed = None
        data[at] ^= 0x10
        # A chunk's magic turned into something else without an end marker would go unseen;
        # here the marker's count tells.
        assert changed is None, at
    assert len(lab.Trace.loads(bytes(data))) == len(quiet)


@given(st.binary(max_size=300), st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_rubbish_is_refused_or_skipped(rubbish: bytes, where: int) -> None:
    """No bytes may crash the reader: it runs in the caller's process."""
    data = long_trace(400).dumps()
    at = (0, 100, 4096, 4200)[where]
    cut = data[:at] + rubbish + data[at + len(rubbish):len(data) - 40]
    try:
        trace = lab.Trace.loads(cut)
    except Malformed:
        return
    assert len(trace) <= 400
    trace.summary()


def test_damaged_files_under_sanitizers(tmp_path: Path) -> None:
    """A thousand damaged files: none makes the reader read or write where it must not."""
    here = Path(__file__).resolve()
    lab_folder = here.parents[3] / "unikit/alloc/lab"
    program = tmp_path / "damage"
    subprocess.run(
        ["gcc", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I",
         here.parents[3], here.parent / "programs/damage.c",
         *(lab_folder / f"host_{name}.c" for name in ("trace", "trace_write", "tables", "stats")),
         "-o", program], check=True)
    file = tmp_path / "whole.trace"
    long_trace(3000).save(file)
    done = subprocess.run([program, file, "1000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"(\d+) read, (\d+) refused\n", done.stdout)
    assert found and int(found[1]) > 100 and int(found[2]) > 100


@pytest.mark.parametrize(("content", "said"), [
    (b"", "empty"), (b"hello", "no trace"), (b"KITTRACE" + bytes(5000), "version 0"),
])
def test_what_is_no_trace_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    """One clear sentence with the file's name, not a struct.error."""
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(Malformed, match=f"file.*{said}"):
        lab.Trace.load(file)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    """The caller gets the builtin's relative, with the name."""
    with pytest.raises(NotFound, match="nothing.trace"):
        lab.Trace.load(tmp_path / "nothing.trace")


def test_frees_of_unknown_blocks_are_left_out_and_counted() -> None:
    """Recording may begin in the middle of a program's life."""
    trace = lab.Trace.of([Event(Op.FREE, block=5), Event(Op.REALLOC, block=6, size=10),
                          Event(Op.ALLOC, block=7, size=20)])
    assert trace.foreign == 2
    assert [(event.op, event.block, event.size) for event in trace] == [
        (Op.ALLOC, 0, 10), (Op.ALLOC, 1, 20)]
    assert lab.Trace.loads(trace.dumps()).foreign == 2


def test_threads_have_ids_and_lives() -> None:
    """A report by thread needs to know which thread of the system it was, and when."""
    trace = lab.Trace.of([Event(Op.START, 5, 0, size=100), Event(Op.START, 9, 1, size=101),
                          Event(Op.EXIT, 20, 1)])
    assert trace.threads == [(0, 100, 5, None), (1, 101, 9, 20)]


def test_events_are_small() -> None:
    """The format is compact: a trace of millions of events must fit on a disk."""
    trace = long_trace(100_000)
    assert len(trace.dumps()) / len(trace) < 9


@pytest.mark.parametrize("event", [Event(12), Event(Op.ALLOC, site=1), Event(Op.ALLOC, align=3),
                                   Event(Op.ALLOC, size=1 << 64), Event(Op.ALLOC, thread=70000)])
def test_wrong_events_are_refused(event: lab.Event) -> None:
    """A mistake in a made trace shows where it is made."""
    with pytest.raises(InvalidArgument, match=r"event 0|making a trace"):
        lab.Trace.of([event])
