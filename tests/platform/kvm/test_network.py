"""The network device: frames both ways, kicks that are not needed, guests that lie."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from unikit.errors import GuestExit, PlatformError, WouldBlock
from unikit.net.netif.host import PacketSocket, socket_pair
from unikit.platform.api import BROKE_DEVICE, Machine

pytestmark = pytest.mark.kvm
Boot = Callable[..., Machine]
Wire = tuple[PacketSocket, PacketSocket]
PEER = bytes(range(2, 8))


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Two ends of a packet socket pair: the image's and the test's."""
    ours, theirs = socket_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def receive(end: PacketSocket, timeout: float = 5) -> bytes:
    """Wait for one frame."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        frame = end.receive()
        if frame is not None:
            return frame
        time.sleep(0.0002)
    raise AssertionError("no frame came")


def frame(to: bytes, number: int, length: int) -> bytes:
    """Return a frame whose payload says which it is."""
    body = number.to_bytes(4, "big") * (length // 4 + 1)
    return to + PEER + b"\x88\xb5" + body[:length]


def test_frames_come_back_in_order_and_whole(wire: Wire, boot: Boot) -> None:
    """Every length between the smallest and the largest, in bursts that outrun the queue."""
    inside, outside = wire
    machine = boot("reflect", netif=inside)
    machine.console.expect(f"mac {inside.mac[5]:02x} mtu 1500")
    sent = 0
    for burst in (1, 2, 7, 40, 100):
        lengths = [46 + (sent + i) * 37 % 1455 for i in range(burst)]
        pending = [frame(inside.mac, sent + i, length) for i, length in enumerate(lengths)]
        for each in pending:
            while True:
                try:
                    outside.send(each)
                    break
                except WouldBlock:
                    time.sleep(0.001)
        for each in pending:
            assert receive(outside) == PEER + inside.mac + each[12:]
        sent += burst
    stats = machine.stats()
    assert stats["frames_in"] == stats["frames_out"] == sent
    outside.send(inside.mac + PEER + b"\x88\xb5end" + bytes(60))
    assert machine.wait(5) == 0


@pytest.mark.parametrize("memory", [512 << 10, 1 << 20, 64 << 20])
def test_queue_sizes_for_every_memory(wire: Wire, boot: Boot, memory: int) -> None:
    """Small machines get short queues; the indices wrap around and nothing is lost."""
    inside, outside = wire
    machine = boot("reflect", netif=inside, memory=memory)
    for number in range(700):
        outside.send(frame(inside.mac, number, 100))
        assert receive(outside)[14:18] == number.to_bytes(4, "big")
    assert machine.running


def test_sender_that_never_sleeps_loses_nothing(wire: Wire, boot: Boot) -> None:
    """A full queue is EAGAIN, then a kick; the other side may be slow. Lengths are checked."""
    inside, outside = wire
    machine = boot("flood 3000 1000", netif=inside)
    for number in range(3000):
        assert int.from_bytes(receive(outside)[14:22], "little") == number
    assert machine.wait(10) == 0
    assert "too long -13 too short -13" in machine.console.text
    assert "configure 0 -2" in machine.console.text


def test_frame_leaves_although_the_image_goes_on(wire: Wire, boot: Boot) -> None:
    """No kick is made for a frame while the image may sleep soon; if it does not, one is."""
    inside, outside = wire
    machine = boot("busy", netif=inside)
    assert receive(outside)[6:12] == inside.mac
    machine.stop()


def test_frame_arrives_although_the_image_never_sleeps(wire: Wire, boot: Boot) -> None:
    """An image that polls for ever still gets its frames."""
    inside, outside = wire
    machine = boot("poll", netif=inside)
    machine.console.expect("polling")
    time.sleep(0.05)
    outside.send(frame(inside.mac, 1, 60))
    machine.console.expect("got it", timeout=5)
    assert machine.wait(5) == 0


def test_idle_network_costs_nothing(wire: Wire, boot: Boot) -> None:
    """After a burst both threads go to sleep."""
    inside, outside = wire
    machine = boot("reflect", netif=inside)
    for number in range(2000):
        outside.send(frame(inside.mac, number, 60))
        receive(outside)
    time.sleep(0.1)
    before = machine.stats()
    time.sleep(0.3)
    after = machine.stats()
    for name in ("cpu_ns", "device_cpu_ns"):
        assert after[name] - before[name] < 1_000_000, name  # type: ignore[operator]


def test_stop_under_load(wire: Wire, boot: Boot) -> None:
    """Both threads end while frames flow."""
    inside, outside = wire
    machine = boot("reflect", netif=inside)
    done = threading.Event()

    def load() -> None:
        number = 0
        while not done.is_set():
            try:
                outside.send(frame(inside.mac, number, 60))
            except WouldBlock:
                outside.receive()
            number += 1

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(0.1)
    start = time.monotonic()
    machine.close()
    assert time.monotonic() - start < 2
    done.set()
    thread.join()


def test_other_side_goes_away(boot: Boot) -> None:
    """A closed peer is no reason to burn a processor or to end the guest."""
    inside, outside = socket_pair()
    machine = boot("reflect", netif=inside)
    machine.console.expect("mac")
    outside.close()
    time.sleep(0.05)
    before = machine.stats()["cpu_ns"]
    time.sleep(0.3)
    assert machine.stats()["cpu_ns"] - before < 20_000_000  # type: ignore[operator]
    assert machine.running
    machine.close()
    inside.close()


@pytest.mark.parametrize(("address", "length", "says"), [
    (0, 100, "no memory of the image"), (0x100000, 10, "a frame of 10 bytes"),
    (0x100000, 4000, "a frame of 4000 bytes"), (0x100000, 2**32 - 1, "no memory of the image"),
    (0x100200, 100, "offload")])
def test_hostile_frame(wire: Wire, boot: Boot, address: int,
                       length: int, says: str) -> None:
    """What a guest says about a frame is checked before a byte of it is used."""
    machine = boot(f"net-ring {address} {length}", netif=wire[0])
    with pytest.raises(GuestExit, match=says) as caught:
        machine.wait(5)
    assert caught.value.reason == "device" and caught.value.code == BROKE_DEVICE


def test_interface_in_use_cannot_be_closed(wire: Wire, boot: Boot) -> None:
    """Its memory belongs to threads of the monitor until the machine is closed."""
    machine = boot("reflect", netif=wire[0])
    with pytest.raises(PlatformError, match=f"in use by {machine.name}"):
        wire[0].close()
    machine.close()
    wire[0].close()


def test_record_instead_of_an_open_interface(boot: Boot) -> None:
    """The message says what to do."""
    with pytest.raises(PlatformError, match="open a record first"):
        boot("reflect", netif=object())


@pytest.mark.root
@pytest.mark.exercises("tap")
def test_ping_over_tap(boot: Boot) -> None:
    """The host's own ping, through a TAP: none lost, at a pace and as a flood."""
    from unikit.net.netif.tap import Tap
    with Tap("kvmtest0", address="10.214.7.1/24").open() as tap:
        machine = boot("ping", netif=tap)
        machine.console.expect("ready")
        for words in (["-c", "20", "-i", "0.005"], ["-c", "2000", "-f"]):
            done = subprocess.run(["ping", "-q", *words, "10.214.7.2"], capture_output=True,
                                  text=True, timeout=30, check=False)
            assert re.search(r"(\d+) packets transmitted, \1 received", done.stdout), done.stdout
        machine.close()
