"""``alloc.trace``: what was asked, in order, with who asked; in this process and out of images."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from unikit.alloc import Allocator, Bump, Firstfit, Guard, Heap, Shard, Tlsf, Trace
from unikit.alloc.lab import inside
from unikit.alloc.lab.trace import Op
from unikit.alloc.lab.trace import Trace as Recorded
from unikit.cli import main
from unikit.errors import NotFound, NotSupported, OutOfMemory
from unikit.image import Image
from unikit.testing import check_allocator

ROOT = Path(__file__).resolve().parents[2]
fast = pytest.mark.fast


@fast
@pytest.mark.parametrize("record", [
    Trace(Tlsf(), size=8192), Trace(Shard(), size=8192), Trace(Firstfit(), size=8192),
    Trace(Bump(), size=8192), Guard(Trace(Tlsf(), size=8192)),
    Trace(Guard(Tlsf(), quarantine=0), size=8192)],
    ids=lambda record: "-".join(part.stem() for part in record.layers()))
def test_conforms_over_every_allocator(record: Allocator) -> None:
    """A recorded allocator is an allocator, whether its buffer is full or not."""
    check_allocator(record, ["64K", "256K"], offsets=[0, 8])


def told(heap: Heap) -> list[tuple[Any, ...]]:
    return [(event.op, event.block, event.size, event.align) for event in inside.of(heap)]


@fast
def test_every_operation_is_told_as_it_was_asked() -> None:
    """Sizes and alignments as asked, frees with the block they end, refusals too."""
    with Trace(Tlsf()).open("4M") as heap:
        first, second = heap.alloc(100), heap.alloc(200, 256)
        heap.realloc(first, 5000)
        second.free()
        with pytest.raises(OutOfMemory):
            heap.alloc(1 << 40)
        first.free()
        assert told(heap) == [
            (Op.ALLOC, 0, 100, 0), (Op.ALLOC, 1, 200, 256), (Op.REALLOC, 0, 5000, 0),
            (Op.SIZED_FREE, 1, 200, 256), (Op.FAILED, 0xFFFFFFFF, 1 << 40, 0),
            (Op.SIZED_FREE, 0, 5000, 0)]
        assert [event.time for event in inside.of(heap)] == [1, 2, 3, 4, 5, 6]


@fast
def test_call_sites_are_lines_of_python() -> None:
    """As for leaks: the innermost place outside unikit."""
    with Trace(Tlsf()).open("4M") as heap:
        for _ in range(3):
            heap.alloc(10)
        other = heap.alloc(10)
        trace = inside.of(heap)
        names = [trace.sites[event.site].name for event in trace]
        assert names[0] == names[1] == names[2] != names[3]
        assert all(name.startswith("test_trace.py:") for name in names)
        other.free()


@fast
def test_the_layer_itself_is_not_part_of_the_heap() -> None:
    """Its buffer is neither a block, nor a leak, nor used."""
    with Trace(Guard(Tlsf())).open("4M") as heap:
        assert (heap.stats().used, heap.stats().blocks, heap.stats().allocations) == (0, 0, 0)
        assert heap.leaks() == []
        assert not [extent for extent in heap.walk() if extent.used]
        block = heap.alloc(100)
        assert [(leak.address, leak.site.partition(":")[0]) for leak in heap.leaks()] == [
            (block.address, "test_trace.py")]


@fast
def test_what_finds_no_room_is_counted() -> None:
    """The beginning is kept: only that can be replayed."""
    with Trace(Tlsf(), size="16K").open("1M") as heap:
        for _ in range(10_000):
            heap.alloc(16).free()
        data = heap.trace()
        trace = Recorded.loads(data)
        assert len(data) <= 16 << 10
        assert len(trace) + inside.lost(data) == 20_000
        assert len(trace) > 1000
        assert [event.time for event in trace] == list(range(1, len(trace) + 1))


@fast
def test_several_threads_record_into_one_trace() -> None:
    """Each face has a number of its own; ticks put their events in order."""
    with Trace(Shard(), size="4M").open("64M", threads=True) as heap:
        def work() -> None:
            for size in range(1, 400):
                heap.alloc(size).free()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        trace = inside.of(heap)
        sizes = sorted(event.size for event in trace if event.op == Op.ALLOC)
        assert sizes == sorted([*range(1, 400)] * 3)
        assert trace.foreign == trace.lost == trace.damaged == 0


@fast
def test_without_the_layer_there_is_no_trace() -> None:
    """The message says what to do, and memory without a trace has none."""
    with Tlsf().open("64K") as heap, pytest.raises(NotSupported, match="has no records"):
        heap.trace()
    with pytest.raises(NotFound, match=r"no alloc\.trace"):
        inside.in_memory(b"KITTRACE" + bytes(9000))


# ---- images ------------------------------------------------------------------------------------

PLATFORMS = ["linux", pytest.param("kvm", marks=pytest.mark.kvm)]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_machine_shows_its_memory(platform: str) -> None:
    """Trace and last lines are found in it, while the image runs and after it has ended."""
    image = Image("hello", alloc="trace,tlsf", console=["platform", "buffer"],
                  platforms=[platform])
    with image.boot(platform, memory="4M") as machine:
        assert machine.wait(10) == 0
        memory = machine.memory()
        trace = inside.load(memory)
        assert trace.facts["allocator"] == "alloc.tlsf"
        assert [event.size for event in trace][1] == 16384 + 64, "the ring of console.buffer"
        named = inside.named(inside.in_memory(memory), machine.image.symbolise)
        assert named.sites[1].name.startswith("buffer_open+")
        from unikit.platform.console import read_buffer
        assert "hello from unikit" in read_buffer(memory)


def test_memory_that_nobody_wants_is_not_kept() -> None:
    """A Linux process keeps its memory for readers only if there is something to read."""
    with Image("hello", platforms=["linux"]).boot("linux") as machine:
        machine.wait(10)
        with pytest.raises(NotSupported, match="does not let its memory be read"):
            machine.memory()


def test_pages_given_back_in_kept_memory_are_zero(tmp_path: Path) -> None:
    """Whatever stands behind the heap, memory that was given back reads as zero."""
    source = tmp_path / "main.c"
    source.write_text("""
        #include <unikit/app.h>
        #include <unikit/image/runtime/runtime.h>
        int init_application(void)
        {
            runtime_environment_t *env = kit_runtime.state.runtime;
            char *page = kit_memory_alloc(8192, 4096);
            page[0] = page[8191] = 7;
            int rc = kit_env_page_release(env, page, 8192);
            return rc != 0 || page[0] != 0 || page[8191] != 0;
        }
    """)
    for alloc in ("trace,tlsf", "tlsf"):
        image = Image("pages", [source], alloc=alloc, events=False, platforms=["linux"])
        with image.boot("linux") as machine:
            assert machine.wait(10) == 0


def test_run_leaves_a_trace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """``unikit run --trace`` writes a file that the tools of the lab take."""
    path = tmp_path / "hello.trace"
    assert main(["run", "hello", "--platform", "linux", "--alloc", "trace,tlsf", "--console",
                 "platform,buffer", "--trace", str(path)]) == 0
    trace = Recorded.load(path)
    assert trace.complete
    assert trace.facts["program"] == "hello"
    assert any(site.name.startswith("buffer_open+") for site in trace.sites)
    assert main(["run", "hello", "--platform", "linux", "--trace", str(path)]) == 1
    assert "--trace: hello records nothing; compose it with --alloc trace,tlsf" in \
        capfd.readouterr().err


def test_a_run_that_is_interrupted_leaves_a_trace_too(tmp_path: Path) -> None:
    """Servers end by a signal."""
    path = tmp_path / "echo.trace"
    command = [sys.executable, "-m", "unikit", "run", "echo", "--platform", "linux", "--netif",
               "user", "--forward", "0:7", "--alloc", "trace,tlsf", "--trace", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        assert process.stdout is not None
        waited = {"listening", "127.0.0.1:"}  # the image is up, and its start is over
        for text in process.stdout:
            waited -= {word for word in waited if word in text}
            if not waited:
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert len(Recorded.load(path)) > 3
