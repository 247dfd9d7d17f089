"""netif.switch: learning, flooding, aging, and bounds that hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from unikit.errors import InvalidArgument, MessageTooLong
from unikit.net import Mini, Switch
from unikit.testing import VirtualEnvironment

pytestmark = pytest.mark.fast
ALL = b"\xff" * 6


def mac(number: int) -> bytes:
    return b"\x02\x00" + number.to_bytes(4, "big")


def frame(to: bytes, source: bytes, size: int = 60) -> bytes:
    return to + source + bytes(size - 12)


class Box:
    def __init__(self, **options: Any) -> None:
        self.env = VirtualEnvironment()
        self.env.advance(1)
        self.ports = Switch(**options).open(env=self.env)

    def send(self, port: int, to: bytes, source: bytes) -> list[int]:
        """Send a frame; the ports that it came out of."""
        self.ports[port].send(frame(to, source))
        return [number for number, end in enumerate(self.ports) if self.take(end)]

    @staticmethod
    def take(end: Any) -> list[bytes]:
        return list(iter(end.receive, None))


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box(ports=4, table=16, age="300s", slots=8)
    yield made
    for end in made.ports:
        end.close()


def test_unknown_goes_everywhere_known_to_one(box: Box) -> None:
    """A station is known by what it sends; a frame never goes back where it came from."""
    assert box.send(0, mac(2), mac(1)) == [1, 2, 3]
    assert box.send(1, mac(1), mac(2)) == [0]
    assert box.send(0, mac(2), mac(1)) == [1]
    assert box.send(0, ALL, mac(1)) == [1, 2, 3]
    assert box.send(0, b"\x01\0\x5e\0\0\1", mac(1)) == [1, 2, 3]
    assert box.send(0, mac(1), mac(9)) == []
    assert box.ports[0].stats() == {"received": 5, "flooded": 3, "dropped": 0, "sent": 1}


def test_a_station_may_move(box: Box) -> None:
    """The newest place counts."""
    box.send(0, ALL, mac(1))
    box.send(2, ALL, mac(1))
    assert box.send(3, mac(1), mac(3)) == [2]


def test_group_addresses_are_not_learned(box: Box) -> None:
    """A forged group source must not draw that group's frames."""
    box.send(0, ALL, b"\x01\0\x5e\0\0\1")
    assert box.send(1, b"\x01\0\x5e\0\0\1", mac(2)) == [0, 2, 3]


def test_silence_is_forgotten(box: Box) -> None:
    """Aging: after `age` without a frame the station's port is unknown again."""
    box.send(0, ALL, mac(1))
    box.env.advance(299)
    assert box.send(1, mac(1), mac(2)) == [0]
    box.env.advance(1)
    assert box.send(1, mac(1), mac(2)) == [0, 2, 3]


def test_a_flood_of_addresses_only_floods(box: Box) -> None:
    """The table is bounded: who speaks often stays known or is flooded to, never misled."""
    for number in range(10_000):
        box.ports[3].send(frame(mac(1), mac(1000 + number)))
        for end in box.ports:
            box.take(end)
    box.send(0, ALL, mac(1))
    assert box.send(1, mac(1), mac(2)) == [0]
    known = sum(box.send(0, mac(1000 + number), mac(1)) == [3] for number in range(10_000))
    assert 0 < known <= 16


def test_a_full_port_drops_alone(box: Box) -> None:
    """One station that does not read costs the others nothing."""
    for number in range(12):
        box.ports[0].send(frame(ALL, mac(1)))
        if number % 2:
            assert len(box.take(box.ports[1])) == 2
    assert len(box.take(box.ports[2])) == 8
    assert box.ports[2].stats()["dropped"] == 4
    assert box.ports[1].stats()["dropped"] == 0


def test_limits() -> None:
    """Frames outside the bounds and tables that are no power of two are refused."""
    ports = Switch(ports=2, mtu=100).open()
    for size in (13, 115):
        with pytest.raises(MessageTooLong):
            ports[0].send(bytes(size))
    assert len(ports) == 2
    for end in ports:
        end.close()
    for wrong in ({"slots": 3}, {"table": 5}):
        with pytest.raises(InvalidArgument):
            Switch(**wrong).open()


def test_three_stacks_talk() -> None:
    """Stacks on a switch reach each other, and others do not see the conversation."""
    env = VirtualEnvironment()
    ports = Switch(ports=3).open(env=env)
    stacks = [Mini(address=f"10.0.0.{number + 1}/24").open(port, env=env)
              for number, port in enumerate(ports)]
    with stacks[1].listen(7) as listener, stacks[0].connect(("10.0.0.2", 7), timeout=5) as client, \
            listener.accept(timeout=5) as server:
        before = stacks[2].stats().frames_in
        client.sendall(bytes(50_000), timeout=5)
        got = 0
        while got < 50_000:
            got += len(server.recv(timeout=5))
        assert stacks[2].stats().frames_in == before
    for each in (*stacks, *ports):
        each.close()
