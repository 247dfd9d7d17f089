"""The ELF reader: an image is untrusted input."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

from unikit.errors import ImageError
from unikit.image import elf

pytestmark = pytest.mark.fast

BASE = 0x100000


def note(kind: int, body: bytes, owner: bytes = b"unikit\0") -> bytes:
    pad = -len(body) % 4
    return struct.pack("<III", len(owner), len(body), kind) + owner + b"\0" * (-len(owner) % 4) \
        + body + b"\0" * pad


def plan(**more: object) -> bytes:
    return json.dumps({"format": 1, "name": "x", "entries": ["linux"], "components": {}} | more
                      ).encode()


def build(segments: list[tuple[int, int, bytes, int]] | None = None, entry: int = BASE,
          notes: bytes | None = None, machine: int = 62) -> bytes:
    """Return an ELF file: segments are (flags, address, data, size in memory)."""
    segments = [(5, BASE, b"\xc3" * 16, 16)] if segments is None else segments
    notes = note(2, plan()) if notes is None else notes
    count = len(segments)
    head = 64 + 56 * count
    data, table = b"", b""
    for flags, address, body, size in segments:
        table += struct.pack("<IIQQQQQQ", 1, flags, head + len(data), address, address, len(body),
                             size, 4096)
        data += body
    at = head + len(data)
    sections = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) \
        + struct.pack("<IIQQQQIIQQ", 0, 7, 0, 0, at, len(notes), 0, 0, 4, 0)
    ident = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, machine, 1, entry, 64, at + len(notes), 0,
                         64, 56, count, 64, 2, 0)
    return header + table + data + notes + sections


def read(tmp_path: Path, data: bytes) -> elf.BootImage:
    path = tmp_path / "x.elf"
    path.write_bytes(data)
    return elf.load(path)


@pytest.mark.parametrize("lie", [
    {"entries": [[1], {}]}, {"entries": "kvm"}, {"entries": None}, {"components": ["net.mini"]},
    {"components": None}, {"components": {"net.mini": 3}}, {"options": 5}, {"options": [1]},
    {"forward": 5}, {"forward": [1]}, {"name": "../../x"}, {"name": "a\nb"}, {"name": ""},
    {"name": 3}, {"name": "a" * 5000}])
def test_a_plan_of_another_shape_is_refused(tmp_path: Path, lie: dict[str, object]) -> None:
    """What others read from it is checked once, here."""
    assert "plan" in refused(tmp_path, build(notes=note(2, plan(**lie))))


@pytest.mark.parametrize("text", [b"[" * 200000, b'{"a":' * 100000])
def test_a_plan_nested_without_end_is_refused(tmp_path: Path, text: bytes) -> None:
    """It must not exhaust the reader's stack."""
    assert "damaged" in refused(tmp_path, build(notes=note(2, text)))


def refused(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read(tmp_path, data)
    return str(caught.value)


def test_a_proper_image_is_read(tmp_path: Path) -> None:
    """Segments, entries and plan come out as they went in."""
    notes = note(1, struct.pack("<Q", BASE + 4)) + note(2, plan(entries=["kvm", "linux"]))
    found = read(tmp_path, build(notes=notes))
    assert found.entries == {"kvm": BASE + 4, "linux": BASE}
    assert found.segments[0].data == b"\xc3" * 16
    assert found.segments[0].executable and not found.segments[0].writable
    assert found.plan["name"] == "x"


def test_a_platform_of_somebody_else_names_its_entry(tmp_path: Path) -> None:
    """A plug-in adds an entry without a change here."""
    notes = note(3, struct.pack("<Q", BASE + 8) + b"bhyve\0") \
        + note(2, plan(entries=["bhyve", "linux"]))
    assert read(tmp_path, build(notes=notes)).entries == {"bhyve": BASE + 8, "linux": BASE}
    for body in (b"", b"\0" * 8, struct.pack("<Q", BASE) + b"../x\0", b"\0" * 7):
        assert "entry is damaged" in refused(tmp_path, build(notes=note(3, body) + note(2, plan())))


def test_foreign_notes_are_passed_over(tmp_path: Path) -> None:
    """A Xen note beside ours does no harm."""
    notes = note(1, b"\0" * 8, b"Xen\0") + note(2, plan())
    assert read(tmp_path, build(notes=notes)).entries == {"linux": BASE}


@pytest.mark.parametrize(("data", "says"), [
    (b"#!/bin/sh\n", "not an ELF file"),
    (b"\x7fELF\x02", "cut off"),
    (build(machine=40), "x-86"),
    (build(segments=[(7, BASE, b"\xc3", 1)]), "writable and executable"),
    (build(segments=[(5, 0x1000, b"\xc3", 1)]), "images start at"),
    (build(segments=[(6, BASE, b"\xc3", 1)]), "no code"),
    (build(segments=[(5, BASE, b"\xc3" * 32, 16)]), "outside the file"),
    (build(segments=[(5, BASE, b"\xc3" * 16, 16), (6, BASE + 8, b"x", 1)]), "share a page"),
    (build(entry=BASE + 4096), "does not lie in its code"),
    (build(notes=note(1, b"", b"Xen\0")), "no unikit note"),
    (build(notes=note(1, b"\0" * 8)), "no plan note"),
    (build(notes=note(2, b"{")), "damaged"),
    (build(notes=note(2, b"[]")), "damaged"),
    (build(notes=note(2, plan(format=2))), "format 2"),
    (build(notes=note(2, plan(entries=["kvm"]))), "claims the entries"),
    (build(notes=note(2, plan(entries=7))), "entries cannot be right"),
    (build(notes=note(1, b"\0" * 4) + note(2, plan())), "entry is damaged"),
    (build(notes=struct.pack("<III", 7, 1 << 30, 2) + b"unikit\0\0"), "longer than its section"),
])
def test_bad_images_are_refused_with_the_cause(tmp_path: Path, data: bytes, says: str) -> None:
    """One clear error for each way a file can be wrong."""
    assert says in refused(tmp_path, data).replace("x86-64", "x-86")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path and the system's reason are in the message."""
    with pytest.raises(ImageError, match="cannot read .*none.elf: No such file"):
        elf.load(tmp_path / "none.elf")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A download that broke off must not crash the reader, wherever it broke."""
    whole = build()
    for length in range(len(whole)):
        refused(tmp_path, whole[:length])


def damage(tmp_path: Path, seed: int, count: int) -> int:
    """Spoil headers, segments, notes and the plan's text; how many were read all the same."""
    text = plan(components={"alloc.tlsf": {"pool": 65536}, "net.mini": {}}, files=3,
                options={"port": 80}, forward=["8080:80"])
    whole = build([(5, BASE, b"\xc3" * 16, 16), (6, BASE + 4096, b"d" * 24, 64)],
                  notes=note(2, text) + note(1, struct.pack("<Q", BASE + 1)))
    first = whole.index(text)
    chance = random.Random(seed)
    survived = 0
    for _ in range(count):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(first, first + len(text)) if chance.random() < 0.5 \
                else chance.randrange(len(broken))
            broken[at] = chance.choice((0, 255, chance.randrange(256), *b'{}[]",:0'))
        try:
            image = read(tmp_path, bytes(broken))
        except ImageError:
            continue
        survived += 1
        assert set(image.entries) <= {"linux", "kvm"}
        assert isinstance(image.plan["name"], str)
    return survived


def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    """Whatever headers and plan say, the answer is an image or an ImageError."""
    survived = damage(tmp_path, 7, 3000)
    assert 0 < survived < 3000
