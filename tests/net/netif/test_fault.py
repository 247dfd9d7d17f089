"""netif.fault: each misfortune at its rate, each direction by itself, all of it repeatable."""

from __future__ import annotations

import itertools
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "conformance"))
from compiled import VARIANTS, build, conforms

from unikit.errors import CompositionError, InvalidArgument, MessageTooLong, NotSupported
from unikit.net import Fault, Loopback, Mini, Pipe
from unikit.net.netif.layer import LayerInterface
from unikit.testing import VirtualEnvironment
from unikit.testing.script.frames import checksum, ip

pytestmark = pytest.mark.fast
COUNT = 20_000


class World:
    """A layer over one end of a pipe; the other end is in our hands."""

    def __init__(self, **options: Any) -> None:
        self.env = VirtualEnvironment()
        self.env.advance(1)
        self.end, self.far = Pipe(slots=65536).open()
        self.layer: LayerInterface = Fault(**{"slots": 4096, **options}).over(self.end,
                                                                              env=self.env)

    def out(self, frames: list[bytes], gap: float = 0.0) -> list[bytes]:
        """Send frames, let all time pass that they need, and return what arrives."""
        for frame in frames:
            self.layer.send(frame)
            self.env.advance(gap)
        return self.settle(self.far)

    def settle(self, end: Any) -> list[bytes]:
        got: list[bytes] = []
        while True:
            frame = self.layer.receive()
            if frame is not None and end is self.layer:
                got.append(frame)
                continue
            if end is self.far:
                got += iter(self.far.receive, None)
            if self.layer.deadline_ns is None:
                return got
            self.env.wait(self.layer.deadline_ns)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.layer, self.end, self.far, self.env):
            each.close()


def numbered(count: int, size: int = 60) -> list[bytes]:
    return [struct.pack("!14xI", number) + bytes(size - 18) for number in range(count)]


def numbers(frames: list[bytes]) -> list[int]:
    return [struct.unpack_from("!I", frame, 14)[0] for frame in frames]


def near(count: int, share: float, of: int, sigmas: float = 4.0) -> bool:
    """Whether a count is what a share makes probable: the square root of chi square below 4."""
    return abs(count - share * of) <= sigmas * math.sqrt(of * share * (1 - share)) + 1


@pytest.fixture
def clean() -> Iterator[World]:
    with World() as world:
        yield world


# ---- no fault -------------------------------------------------------------------------------

def test_without_faults_it_is_a_wire(clean: World) -> None:
    """Everything both ways, in order, at once; limits are those of the interface below."""
    frames = numbered(100)
    assert clean.out(frames) == frames
    for frame in frames:
        clean.far.send(frame)
    assert [clean.layer.receive() for _ in frames] == frames
    assert clean.layer.receive() is None and clean.layer.deadline_ns is None
    assert (clean.layer.mac, clean.layer.mtu) == (clean.end.mac, clean.end.mtu)
    for size in (13, clean.layer.mtu + 15):
        with pytest.raises(MessageTooLong):
            clean.layer.send(bytes(size))
    clean.layer.send(bytes(clean.layer.mtu + 14))
    with pytest.raises(NotSupported):
        clean.layer.fileno()


def test_a_full_interface_below_loses_nothing() -> None:
    """What the interface refuses is tried again; then the sender hears that it must wait."""
    env = VirtualEnvironment()
    end, far = Pipe(slots=4).open()
    with end, far, Fault(slots=8).over(end, env=env) as layer:
        for frame in numbered(12):
            layer.send(frame)
        with pytest.raises(BlockingIOError):
            layer.send(bytes(60))
        assert layer.deadline_ns == env.now_ns() + 100_000
        got = []
        while layer.deadline_ns is not None:
            got += numbers(list(iter(far.receive, None)))
            env.wait(layer.deadline_ns)
            layer.receive()
        assert got + numbers(list(iter(far.receive, None))) == list(range(12))
        assert layer.stats()["out_no_slot"] == 0


# ---- rates ----------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "counter"), [
    ("loss", "lost"), ("duplicate", "duplicated"), ("corrupt", "corrupted"),
    ("truncate", "truncated"), ("reorder", "reordered")])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5])
def test_each_happens_as_often_as_asked(name: str, counter: str, share: float) -> None:
    """Counts are within four standard deviations, for this seed and any other likely one."""
    with World(**{name: share, "seed": 7}) as world:
        got = world.out(numbered(COUNT), gap=1e-5)
        stats = world.layer.stats()
        assert near(stats[f"out_{counter}"], share, COUNT)
        lost = stats["out_lost"]
        assert len(got) == COUNT - lost + stats["out_duplicated"]
        assert stats["out_frames"] == COUNT and stats["in_frames"] == 0
        others = {"lost", "duplicated", "corrupted", "truncated", "reordered"} - {counter}
        assert all(stats[f"out_{other}"] == 0 for other in others)


def test_losses_are_independent() -> None:
    """Runs of losses follow the geometric law: no hidden pattern in the chances."""
    with World(loss=0.3) as world:
        got = set(numbers(world.out(numbered(COUNT))))
    runs = [len(list(group)) for lost, group in itertools.groupby(
        number not in got for number in range(COUNT)) if lost]
    for length in (1, 2, 3, 4):
        expected = 0.3 ** (length - 1) * 0.7
        assert near(sum(run == length for run in runs), expected, len(runs))


def test_bursts_follow_the_chain_of_gilbert_and_elliott() -> None:
    """Mean length of a bad time 1/burst_end, share of it start/(start+end)."""
    with World(burst_start=0.01, burst_end=0.25) as world:
        got = set(numbers(world.out(numbered(COUNT))))
        assert world.layer.stats()["out_lost_in_bursts"] == COUNT - len(got)
    runs = [len(list(group)) for lost, group in itertools.groupby(
        number not in got for number in range(COUNT)) if lost]
    assert 3.4 < sum(runs) / len(runs) < 4.6  # 4, and about 190 bursts
    assert 0.03 < sum(runs) / COUNT < 0.05  # 1/26
    with World(burst_start=1.0, burst_end=0.0, burst_loss=0.5) as world:
        assert near(COUNT - len(world.out(numbered(COUNT))), 0.5, COUNT)


def test_damage_is_one_bit_behind_the_header() -> None:
    """A corrupt frame differs in one bit, a truncated one is a prefix, none loses its header."""
    frames = [bytes(range(60, 160)) for _ in range(500)]
    with World(corrupt=1.0) as world:
        places = set()
        for frame in world.out(frames):
            bits = int.from_bytes(frame, "big") ^ int.from_bytes(frames[0], "big")
            assert bits.bit_count() == 1 and frame[:14] == frames[0][:14]
            places.add(bits)
        assert len(places) > 300
    with World(truncate=1.0) as world:
        sizes = [len(frame) for frame in world.out(frames)]
        assert all(14 <= size < 100 for size in sizes) and len(set(sizes)) > 60
        assert world.out([bytes(14)]) == [bytes(14)]


# ---- time -----------------------------------------------------------------------------------

def test_delay_and_jitter_keep_the_order() -> None:
    """A frame arrives no earlier than the delay, no later than delay and jitter."""
    with World(delay="10ms", jitter="5ms") as world:
        start = world.env.now_ns()
        for frame in numbered(9):
            world.layer.send(frame)
            world.env.advance(0.001)
        assert world.far.receive() is None
        times = []
        while world.layer.deadline_ns is not None:
            world.env.wait(world.layer.deadline_ns)
            world.layer.receive()
            times += [(world.env.now_ns() - start, frame)
                      for frame in iter(world.far.receive, None)]
        assert numbers([frame for _, frame in times]) == list(range(9))
        late = [at - number * 1_000_000 for number, (at, _) in enumerate(times)]
        assert all(10_000_000 <= each <= 15_000_000 for each in late)
        assert len(set(late)) > 3


def test_reordered_frames_are_overtaken() -> None:
    """Held back for at most `hold`: others pass, nothing is lost."""
    with World(reorder=0.1, hold="1ms") as world:
        got = numbers(world.out(numbered(1000), gap=1e-4))
        assert sorted(got) == list(range(1000)) != got
        assert max(abs(place - number) for place, number in enumerate(got)) <= 11


def test_the_bottleneck_sends_at_its_rate_and_drops_its_tail() -> None:
    """1 Mbit/s: 125 bytes take a millisecond; what comes on a full queue is lost."""
    with World(rate=1_000_000, queue=10) as world:
        start = world.env.now_ns()
        got = numbers(world.out([struct.pack("!14xI", n) + bytes(107) for n in range(25)]))
        assert got == list(range(10))
        assert world.env.now_ns() - start == 10_000_000
        assert world.layer.stats()["out_overflowed"] == 15
        assert numbers(world.out(numbered(3))) == [0, 1, 2]


def test_a_queue_marks_what_may_be_marked() -> None:
    """RFC 3168, 5: ECT becomes CE with a right header checksum; Not-ECT stays as it is."""
    def frame(tos: int, version: int) -> bytes:
        ends = ("10.0.0.1", "10.0.0.2") if version == 4 else ("fd00::1", "fd00::2")
        return bytes(12) + (b"\x08\x00" if version == 4 else b"\x86\xdd") + \
            ip(*ends, 17, bytes(20), tos=tos)
    with World(rate=10_000_000, queue=100, mark=2) as world:
        sent = [frame(tos, version) for version in (4, 6) for tos in (0, 0, 0, 1, 2, 3, 0)]
        got = world.out(sent)
        assert len(got) == len(sent)
        codes = [each[15] & 3 if each[12:14] == b"\x08\x00" else each[15] >> 4 & 3 for each in got]
        assert codes == [0, 0, 0, 3, 3, 3, 0] * 2
        assert all(checksum(each[14:34]) == 0 for each in got if each[12] == 8)
        assert world.layer.stats()["out_marked"] == 6


def test_slots_are_the_bound() -> None:
    """A long delay cannot make memory grow: what finds no slot is lost and counted, both ways."""
    with World(delay="1s", slots=16) as world:
        got = world.out(numbered(50))
        assert numbers(got) == list(range(16))
        for each in numbered(50):
            world.far.send(each)
        assert numbers(world.settle(world.layer)) == list(range(16))
        stats = world.layer.stats()
        assert stats["out_no_slot"] == stats["in_no_slot"] == 34


@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_and_switch_under_sanitizers(variant: str) -> None:
    """Random frames, every misfortune at once, small memories: no access outside of them."""
    netif = [f"unikit/net/netif/{name}.c" for name in ("fault", "pcap", "switch", "pipe")]
    conforms(build([Path(__file__).with_name("layers_program.c"), *netif,
                    "unikit/testing/virtual.c"], variant=variant))


# ---- directions, seeds, records ---------------------------------------------------------------

@pytest.mark.parametrize("direction", ["out", "in", "both"])
def test_directions_are_apart(direction: str) -> None:
    """Each way has luck of its own; the other way is left alone."""
    with World(direction=direction, loss=0.5) as world:
        out = numbers(world.out(numbered(1000)))
        for frame in numbered(1000):
            world.far.send(frame)
        back = numbers(world.settle(world.layer))
    assert (len(out) < 1000) == (direction != "in")
    assert (len(back) < 1000) == (direction != "out")
    assert out != back


def test_a_seed_repeats_and_another_does_not() -> None:
    """The same frames at the same times meet the same fate; others' luck stays as it was."""
    def fate(**options: Any) -> list[int]:
        with World(loss=0.2, **options) as world:
            return numbers(world.out(numbered(500)))
    assert fate(seed=5) == fate(seed=5) != fate(seed=6)
    assert fate(seed=5) == fate(seed=5, corrupt=0.0, jitter="1ms", delay="3ms")
    assert set(fate(seed=5, duplicate=0.5)) == set(fate(seed=5))


def test_two_layers_compose() -> None:
    """The outer one's frames go through the inner one."""
    env = VirtualEnvironment()
    end, far = Pipe(slots=4096).open()
    with end, far, Fault(direction="out", loss=0.5).over(end, env=env) as inner, \
            Fault(direction="out", duplicate=1.0).over(inner, env=env) as outer:
        for frame in numbered(500):
            outer.send(frame)
        assert outer.stats()["out_duplicated"] == 500
        assert near(sum(1 for _ in iter(far.receive, None)), 0.5, 1000)
        assert inner.stats()["out_frames"] == 1000


def test_records_stand_on_records() -> None:
    """``Fault(Loopback())`` opens and closes what it stands on."""
    with Fault(Loopback(), loss="0%").open() as layer:
        layer.send(bytes(60))
        assert layer.receive() == bytes(60)
        inner = layer.inner
    with pytest.raises(ConnectionError):
        inner.send(bytes(60))
    with pytest.raises(InvalidArgument, match="stands on nothing"):
        Fault().open()
    with pytest.raises(InvalidArgument, match="2 ends"):
        Fault(Pipe()).open()
    with pytest.raises(InvalidArgument, match="no open network interface"):
        Fault().over(5)
    for wrong in ({"loss": 1.5}, {"loss": "x"}, {"direction": "up"}, {"loss": True},
                  {"loss": float("nan")}):
        with pytest.raises(CompositionError):
            Fault(**wrong)
    assert Fault(loss="2.5%").loss == 0.025


def test_stacks_talk_through_bad_networks_repeatably() -> None:
    """TCP over a wire that does all of it, in virtual time, byte for byte, twice the same."""
    def talk(seed: int) -> tuple[int, dict[str, int]]:
        data = bytes(range(256)) * 400
        env = VirtualEnvironment(seed=seed)
        end, far = Pipe(slots=1024).open()
        layer = Fault(loss="2%", duplicate="1%", reorder="2%", corrupt="1%", truncate="0.5%",
                      delay="5ms", jitter="2ms", seed=seed).over(end, env=env)
        with end, far, layer, Mini(address="10.0.0.1/24").open(layer, env=env) as here, \
                Mini(address="10.0.0.2/24").open(far, env=env) as there:
            with there.listen(7) as listener, here.connect(("10.0.0.2", 7)) as client, \
                    listener.accept() as server:
                got, sent = b"", 0
                while len(got) < len(data):
                    if sent < len(data) and client.info().send_space:
                        sent += client.send(data[sent:])
                    if server.info().receive_ready:
                        got += server.recv()
                    else:
                        here.turn()
            assert got == data
            here.check()
            there.check()
            return env.now_ns(), layer.stats()
    first = talk(3)
    assert first == talk(3)
    assert first != talk(4)
    assert first[1]["out_lost"] > 0 and first[1]["in_frames"] > 0
