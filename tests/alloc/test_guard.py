"""``alloc.guard``: every mistake is found, and said in exactly these words."""

from __future__ import annotations

import ctypes
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unikit.alloc import Allocator, Block, Bump, Firstfit, Guard, Heap, Tlsf
from unikit.errors import Corrupt, GuestExit, NotSupported, OutOfMemory, Panic
from unikit.image import Image
from unikit.testing import check_allocator

pytestmark = pytest.mark.fast
HERE = "test_guard.py"
FAULTS = Path(__file__).resolve().parent / "faults"


@pytest.fixture
def heap() -> Iterator[Heap]:
    with Guard(Tlsf()).open("1M") as opened:
        yield opened


def line() -> int:
    """Return the line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def write(address: int, size: int = 1, byte: int = 0x5a) -> None:
    """Write where C code would write by mistake."""
    ctypes.memset(address, byte, size)


def give(heap: Heap, address: int, size: int, align: int = 0) -> None:
    """Free an address as C would, past the checks of the Python objects."""
    heap._note_caller()
    heap._check(heap._lib.kit_alloc_free(heap._live(), heap._ffi.cast("void *", address), size,
                                         align), "freeing")


def said(act: Callable[[], Any]) -> str:
    """Return what the guard says, without what Python was doing."""
    with pytest.raises(Panic) as caught:
        act()
    return str(caught.value).partition("alloc.guard: ")[2]


# ---- conformance ------------------------------------------------------------------------------

@pytest.mark.parametrize("record", [
    Guard(Tlsf()), Guard(Firstfit()), Guard(Bump()), Guard(Tlsf(), quarantine=0),
    Guard(Tlsf(), canary=0, poison=False, patrol=0),
    Guard(Firstfit(blocks=512), quarantine="2K", quarantine_blocks=3, patrol=10)],
    ids=lambda record: f"{record.inner.id}-{record.changed()}")
def test_conforms_over_every_allocator(record: Allocator) -> None:
    """A guarded allocator is an allocator: nothing of the contract is lost."""
    check_allocator(record, ["24K", "128K"], offsets=[0, 8])


def test_features_follow_the_allocator_below() -> None:
    """What needs the one below is not promised without it."""
    assert Guard(Tlsf()).features == Guard.features
    assert Guard(Bump()).features == {"layer", "owns", "unsized", "sites", "fails",
                                      "leaks"}


# ---- damage ------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 40, 1000, 5000, 100_000])
@pytest.mark.parametrize("beyond", [0, 7, 15])
def test_a_write_behind_a_block(heap: Heap, size: int, beyond: int) -> None:
    """One byte is enough, at each place of the canary."""
    block, made = heap.alloc(size), line()
    address = block.address
    write(address + size + beyond)
    assert said(lambda: block.free()) == (
        f"written behind it: block {address:#x} of {size} bytes, at offset {size + beyond}, "
        f"allocated by {HERE}:{made}, now by {HERE}:{line() - 2}")


@pytest.mark.parametrize("before", [1, 8, 16])
@pytest.mark.parametrize("align", [0, 16, 64, 4096])
def test_a_write_before_a_block(heap: Heap, before: int, align: int) -> None:
    """Whatever the alignment, the bytes before a block are the guard's."""
    block, made = heap.alloc(100, align), line()
    address = block.address
    write(address - before)
    assert said(lambda: block.free()) == (
        f"written before it: block {address:#x} of 100 bytes, at offset -{before}, "
        f"allocated by {HERE}:{made}, now by {HERE}:{line() - 2}")


def test_a_write_far_before_a_block(heap: Heap) -> None:
    """It hits the head: then nothing but the address can be believed."""
    block = heap.alloc(100)
    address = block.address
    write(address - 64, 64)
    assert said(lambda: block.free()) == (
        f"the head before a block was overwritten: block {address:#x}, now by {HERE}:{line() - 1}")


def test_a_write_over_several_blocks(heap: Heap) -> None:
    """The neighbour is found out too, if it goes first."""
    first, second = heap.alloc(100), heap.alloc(100)
    address = second.address
    write(first.address, address + 100 - first.address)
    assert said(lambda: second.free()) == (
        f"the head before a block was overwritten: block {address:#x}, now by {HERE}:{line() - 1}")


def test_realloc_looks_too(heap: Heap) -> None:
    """Moving a damaged block would wipe the traces."""
    block, made = heap.alloc(40), line()
    address = block.address
    write(address + 40)
    assert said(lambda: heap.realloc(block, 80)) == (
        f"written behind it: block {address:#x} of 40 bytes, at offset 40, "
        f"allocated by {HERE}:{made}, now by {HERE}:{line() - 2}")


def test_check_finds_damage_in_use_and_waiting(heap: Heap) -> None:
    """check() reports and does not panic."""
    block = heap.alloc(64)
    heap.check()
    write(block.address + 64)
    with pytest.raises(Corrupt):
        heap.check()
    write(block.address + 64, byte=heap_canary(heap, block.address + 64))
    heap.check()
    address = block.address
    block.free()
    write(address + 30)
    with pytest.raises(Corrupt):
        heap.check()


def heap_canary(heap: Heap, address: int) -> int:
    """Return the canary's byte for an address, as an undamaged block shows it."""
    for _ in range(8):
        other = heap.alloc(64)
        for at in range(other.address + 64, other.address + 80):
            if at % 8 == address % 8:
                return ctypes.c_ubyte.from_address(at).value
    raise AssertionError


# ---- freed wrongly -----------------------------------------------------------------------------

def test_a_block_freed_twice(heap: Heap) -> None:
    """At once, and after others were freed: it waits in the quarantine."""
    block, made = heap.alloc(40), line()
    address = block.address
    block.free()
    freed = line() - 1
    others = [heap.alloc(40) for _ in range(50)]
    for other in others:
        other.free()
    assert said(lambda: give(heap, address, 40)) == (
        f"freed twice: block {address:#x} of 40 bytes, allocated by {HERE}:{made}, "
        f"freed by {HERE}:{freed}, now by {HERE}:{GIVES}")


GIVES = inspect.getsourcelines(give)[1] + 2


def test_a_block_freed_twice_after_the_quarantine() -> None:
    """By then it is no block any more."""
    with Guard(Tlsf(), quarantine=0).open("1M") as heap:
        block = heap.alloc(40)
        address = block.address
        block.free()
        assert said(lambda: give(heap, address, 40)) == (
            f"no block: {address:#x}, now by {HERE}:{GIVES}")


@pytest.mark.parametrize("into", [1, 8, 16, 99])
def test_an_address_inside_a_block(heap: Heap, into: int) -> None:
    """It says which block was meant."""
    block, made = heap.alloc(100), line()
    assert said(lambda: give(heap, block.address + into, 100)) == (
        f"no block: {block.address + into:#x}, {into} bytes into the block {block.address:#x} of "
        f"100 bytes, allocated by {HERE}:{made}, now by {HERE}:{GIVES}")


def test_an_address_inside_a_freed_block(heap: Heap) -> None:
    """And that it was freed."""
    block, made = heap.alloc(100), line()
    address = block.address
    block.free()
    assert said(lambda: give(heap, address + 16, 100)) == (
        f"no block: {address + 16:#x}, 16 bytes into the block {address:#x} of 100 bytes, "
        f"allocated by {HERE}:{made}, freed by {HERE}:{line() - 3}, now by {HERE}:{GIVES}")


def test_an_address_from_elsewhere(heap: Heap) -> None:
    """Neither mapped memory nor unmapped memory is touched to find out."""
    heap.alloc(100)
    foreign = ctypes.create_string_buffer(4096)
    for address in (ctypes.addressof(foreign) & ~15, 16, 0x7fff_ffff_f000):
        assert said(lambda where=address: give(heap, where, 100)) == (  # type: ignore[misc]
            f"no block: {address:#x}, now by {HERE}:{GIVES}")


def test_another_size(heap: Heap) -> None:
    """Whoever frees says how large it was."""
    block, made = heap.alloc(40), line()
    assert said(lambda: give(heap, block.address, 48)) == (
        f"given back with size 48 instead of 40: block {block.address:#x} of 40 bytes, "
        f"allocated by {HERE}:{made}, now by {HERE}:{GIVES}")


def test_another_alignment(heap: Heap) -> None:
    """And how it was aligned; up to 16 is all the same."""
    block, made = heap.alloc(40, 64), line()
    assert said(lambda: give(heap, block.address, 40, 32)) == (
        f"given back with alignment 32 instead of 64: block {block.address:#x} of 40 bytes, "
        f"allocated by {HERE}:{made}, now by {HERE}:{GIVES}")
    small = heap.alloc(40, 8)
    give(heap, small.address, 40, 16)


# ---- use after free ----------------------------------------------------------------------------

def stale(heap: Heap, size: int = 64) -> tuple[int, str]:
    """Return the address of a freed block, and what is known of it."""
    block, made = heap.alloc(size), line()
    address = block.address
    block.free()
    return address, (f"allocated by {HERE}:{made}, freed by {HERE}:{made + 2}")


def test_a_write_after_free_is_found_by_the_next_call(heap: Heap) -> None:
    """The patrol looks at the newest block with each call."""
    address, known = stale(heap)
    write(address + 3)
    assert said(lambda: heap.alloc(10)) == (
        f"written after it was freed: block {address:#x} of 64 bytes, at offset 3, {known}")


def test_a_write_after_free_is_found_by_the_patrol(heap: Heap) -> None:
    """It goes round: within as many calls as blocks wait, each is looked at."""
    address, known = stale(heap)
    for _ in range(20):
        stale(heap)
    write(address + 63)
    found = said(lambda: [heap.alloc(10) for _ in range(20)])
    assert found == f"written after it was freed: block {address:#x} of 64 bytes, at offset 63, " \
        f"{known}"


def test_a_write_after_free_is_found_when_the_block_leaves() -> None:
    """The middle of a large block is looked at when its memory is to be used again."""
    with Guard(Tlsf(), quarantine="8K", patrol=0).open("1M") as heap:
        address, known = stale(heap, 5000)
        write(address + 2500)
        found = said(lambda: [stale(heap, 5000) for _ in range(3)])
        assert found == ("written after it was freed: block "
                         f"{address:#x} of 5000 bytes, at offset 2500, {known}")


def test_a_freed_block_is_erased(heap: Heap) -> None:
    """What was in it is gone, and so is what was in memory before it was allocated."""
    block = heap.alloc(200)
    address = block.address
    assert ctypes.string_at(address, 200) == b"\xaf" * 200
    block[:] = b"s" * 200
    block.free()
    assert ctypes.string_at(address, 200) == b"\xdf" * 200


# ---- the quarantine ----------------------------------------------------------------------------

def waiting(heap: Heap, size: int, count: int) -> set[int]:
    """Free so many blocks and return the addresses that are not given out again."""
    heap.alloc(8)
    freed = []
    for _ in range(count):
        block = heap.alloc(size)
        freed.append(block.address)
        block.free()
    return set(freed)


def test_the_quarantine_is_bounded_in_blocks_and_bytes() -> None:
    """Blocks wait in the order in which they were freed."""
    with Guard(Tlsf(), quarantine_blocks=5).open("1M") as heap:
        assert len(waiting(heap, 100, 50)) == 6
    with Guard(Tlsf(), quarantine="4K").open("1M") as heap:
        assert len(waiting(heap, 1000 - 128, 50)) == 5
    with Guard(Tlsf(), quarantine=0).open("1M") as heap:
        assert len(waiting(heap, 100, 50)) == 1
    with Guard(Tlsf(), quarantine="1K").open("1M") as heap:
        assert len(waiting(heap, 100_000, 3)) == 2, "the newest waits, however large"


def test_a_request_gets_what_waits() -> None:
    """A quarantine must not be a reason to be out of memory."""
    with Guard(Tlsf(), quarantine="1M").open("256K") as heap:
        largest = heap.stats().largest_free
        heap.alloc(largest // 2).free()
        with heap.alloc(largest):
            pass


# ---- who asked, and who shall not get ----------------------------------------------------------

def test_leaks_are_in_order_and_name_their_callers(heap: Heap) -> None:
    """What is still in use at the end is a list to work through."""
    kept: list[Block] = []
    for size in (10, 20, 30):
        kept.append(heap.alloc(size, 64))
    where = line() - 1
    kept[1].free()
    found = heap.leaks()
    assert [(each.size, each.align, each.serial, each.site) for each in found] == [
        (10, 64, 0, f"{HERE}:{where}"), (30, 64, 2, f"{HERE}:{where}")]
    assert [each.address for each in found] == [kept[0].address, kept[2].address]


def test_leaks_need_a_guard() -> None:
    """The message says what to do."""
    with Tlsf().open("64K") as heap:
        with pytest.raises(NotSupported, match=r"alloc\.tlsf has no leaks"):
            heap.leaks()
        with pytest.raises(NotSupported, match=r"alloc\.tlsf has no fails"):
            heap.fail_at(1)


def test_the_nth_request_is_refused_once(heap: Heap) -> None:
    """Counted from the last call of fail_at, realloc included; the count is returned."""
    with Guard(Tlsf(), fail_at=3).open("64K") as other:
        blocks = [other.alloc(10), other.alloc(10)]
        with pytest.raises(OutOfMemory):
            other.alloc(10)
        blocks.append(other.alloc(10))
        assert other.stats().failures == 1
        assert other.fail_at(2) == 4
        other.realloc(blocks[0], 20)
        with pytest.raises(OutOfMemory):
            other.realloc(blocks[1], 20)
        assert len(blocks[1]) == 10
        other.realloc(blocks[1], 30)
        assert other.fail_at(0) == 3
        for _ in range(20):
            other.alloc(10)
        assert other.fail_at(0) == 20


@pytest.mark.parametrize(("options", "size", "free_at"), [
    ({"canary": 0}, 40, 40), ({"canary": 64}, 40, 103), ({"canary": 4096}, 40, 4000)])
def test_the_width_of_the_canary_is_an_option(options: dict[str, int], size: int,
                                              free_at: int) -> None:
    """0 costs nothing and sees nothing; a wide one sees a far write."""
    with Guard(Tlsf(), **options).open("1M") as heap:
        block = heap.alloc(size)
        write(block.address + free_at)
        if options["canary"]:
            assert f"at offset {free_at}" in said(lambda: block.free())
        else:
            block.free()


# ---- in images -----------------------------------------------------------------------------------

def image_text(words: str, **settings: object) -> tuple[int | str, str]:
    """Run the program of faults/leaks.c; its exit code or why it died, and what it printed."""
    image = Image("faulty", [FAULTS / "leaks.c"], alloc="guard,tlsf", events=False,
                  platforms=["linux"], settings={f"alloc.guard.{key}": value
                                                 for key, value in settings.items()})
    with image.boot("linux", memory="4M", args=words) as machine:
        try:
            return machine.wait(10), machine.console.text
        except GuestExit as error:
            return str(error), machine.console.text


def test_an_image_says_what_it_never_freed() -> None:
    """At its end, on its console; what the system holds is not counted."""
    code, text = image_text("")
    assert code == 0
    lines = re.sub(r"0x[0-9a-f]+", "N", text).splitlines()
    assert lines == ["not freed: 40 bytes at N, allocated by N",
                     "not freed: 300 bytes at N, allocated by N",
                     "2 blocks with 340 bytes were never freed"]


def test_an_image_panics_with_the_same_words() -> None:
    """Offsets and all."""
    why, _ = image_text("overflow")
    assert "alloc.guard: written behind it: block 0x" in str(why)
    assert "of 100 bytes, at offset 112, allocated by 0x" in str(why)
    why, _ = image_text("stale")
    assert re.search(r"written after it was freed: block 0x[0-9a-f]+ of 100 bytes, at offset 50, "
                     r"allocated by 0x[0-9a-f]+, freed by 0x", str(why))


def test_pages_of_an_image_are_protected() -> None:
    """The write itself faults, in the very line of the mistake."""
    for words in ("overflow", "stale"):
        why, _ = image_text(words, pages=1)
        assert "faulted" in str(why)
        assert "in init_application+" in str(why)
    assert image_text("", pages=1)[0] == 0
