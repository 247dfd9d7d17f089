"""The console's outer end and what platforms know of images."""

from __future__ import annotations

import logging
import re
import threading
import time
from pathlib import Path

import pytest

from unikit.errors import TimedOut
from unikit.platform.api import BootImage, Console

pytestmark = pytest.mark.fast


def test_expect_goes_on_behind_the_last_match() -> None:
    """Each text is found once, in order, wherever the chunks were cut."""
    console = Console()
    for chunk in (b"one t", b"wo one", b" three\n"):
        console.feed(chunk)
    assert console.expect("one").start() == 0
    assert console.expect("two")
    assert console.expect("one")
    assert console.expect(re.compile(r"(\w+)\n"))[1] == "three"
    with pytest.raises(TimedOut, match="0.01 s passed; last output:\none two one three"):
        console.expect("one", timeout=0.01)


def test_expect_waits_for_what_is_still_to_come() -> None:
    """The reader sleeps until another thread feeds."""
    console = Console()
    timer = threading.Timer(0.02, console.feed, [b"late\n"])
    timer.start()
    assert console.expect("late", timeout=5)
    timer.join()


def test_expect_ends_with_the_machine() -> None:
    """No waiting for output that cannot come; what came before still counts."""
    console = Console()
    console.feed(b"all")
    console.end()
    assert console.expect("all")
    began = time.monotonic()
    with pytest.raises(TimedOut, match="the machine ended"):
        console.expect("more", timeout=5)
    assert time.monotonic() - began < 1


def test_bytes_that_are_no_text_do_not_shift_matches() -> None:
    """Positions are counted in bytes, also through a broken or a split character."""
    console = Console()
    console.feed(b"\xff\xfe\x80 a\xc3")
    assert console.expect("a")
    console.feed(b"\xa4 a b")
    assert console.expect("ä a")
    assert console.expect("b")
    assert console.text == "\ufffd\ufffd\ufffd aä a b"


def test_limit_keeps_the_end() -> None:
    """A guest that prints for weeks must not fill the host's memory."""
    console = Console(limit=10)
    console.feed(b"0123456789")
    assert console.expect("789")
    console.feed(b"abcde")
    assert console.text == "56789abcde"
    assert console.expect("a").start() == 0
    console.feed(b"x" * 100)
    assert console.text == "x" * 10
    assert console.lines() == ["x" * 10]


def test_sinks_get_everything_once() -> None:
    """Also what was printed before they were attached."""
    console = Console()
    console.feed(b"before ")
    got: list[bytes] = []
    console.attach(got.append)
    console.feed(b"after")
    assert b"".join(got) == b"before after"
    console.feed(b"\n1\n2\n3\n")
    assert console.lines(2) == ["2", "3"]


def test_a_sink_that_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A closed terminal must not stop the pump: the machine would never be seen to end."""
    console, got = Console(), list[bytes]()

    def broken(data: bytes) -> None:
        raise BrokenPipeError(data)

    console.attach(broken)
    console.attach(got.append)
    with caplog.at_level(logging.WARNING):
        console.feed(b"one ")
        console.feed(b"two")
    assert b"".join(got) == b"one two"
    assert [record.message for record in caplog.records] == [
        "a console sink failed and is left out"]


def test_write_without_an_inner_end_takes_nothing() -> None:
    """And with one says how much it took, text as UTF-8."""
    assert Console().write("x") == 0
    sent: list[bytes] = []
    console = Console(lambda data: sent.append(data) or 3)  # type: ignore[func-returns-value]
    assert console.write("äöü") == 3
    assert sent == ["äöü".encode()]


def test_addresses_get_the_innermost_name() -> None:
    """Between symbols the bare number stays; a symbol without size covers its first byte."""
    image = BootImage(Path("x"), (), {}, {}, [(0x1000, 0x20, "one"), (0x1020, 0, "two")])
    assert image.symbolise(0x1000) == "one+0x0"
    assert image.symbolise(0x101f) == "one+0x1f"
    assert image.symbolise(0x1020) == "two+0x0"
    assert image.symbolise(0x1021) == "0x1021"
