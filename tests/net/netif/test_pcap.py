"""netif.pcap: files that other programs read, with all frames, times, directions and notes."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from unikit.errors import DeviceError, InvalidArgument, NotSupported
from unikit.ffi import load
from unikit.net import Fault, Mini, Pcap, Pipe
from unikit.testing import VirtualEnvironment

pytestmark = pytest.mark.fast


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Take a pcapng file apart: type and body of each block, both lengths verified."""
    found = []
    while data:
        kind, total = struct.unpack_from("<II", data)
        assert total % 4 == 0 and 12 <= total <= len(data)
        assert struct.unpack_from("<I", data, total - 4) == (total,)
        found.append((kind, data[8:total - 4]))
        data = data[total:]
    return found


def packets(path: Path) -> list[tuple[int, int, bytes, str]]:
    """Return (time in ns, direction, frame, comment) of each packet."""
    (head, section), (kind, interface), *rest = blocks(path.read_bytes())
    assert (head, kind) == (0x0A0D0D0A, 1)
    assert struct.unpack_from("<IHHq", section) == (0x1A2B3C4D, 1, 0, -1)
    assert struct.unpack_from("<HHIHHB", interface) [:1] == (1,) and interface[8:13] == \
        struct.pack("<HHB", 9, 1, 9)
    return [_packet(body) for number, body in rest if number == 6]


def _packet(body: bytes) -> tuple[int, int, bytes, str]:
    _, high, low, kept, length = struct.unpack_from("<5I", body)
    assert kept <= length
    at, direction, comment = 20 + (kept + 3) // 4 * 4, 0, ""
    while (option := struct.unpack_from("<HH", body, at)) != (0, 0):
        value = body[at + 4:at + 4 + option[1]]
        if option[0] == 2:
            direction = struct.unpack("<I", value)[0]
        elif option[0] == 1:
            comment = value.decode()
        at += 4 + (option[1] + 3) // 4 * 4
    assert at + 4 == len(body)
    return high << 32 | low, direction, body[20:20 + kept], comment


def test_every_frame_is_there(tmp_path: Path) -> None:
    """Both directions in the order of time, complete, with their times in nanoseconds."""
    path = tmp_path / "all.pcapng"
    env = VirtualEnvironment()
    env.advance(5)
    end, far = Pipe().open()
    with end, far, Pcap(file=str(path)).over(end, env=env) as layer:
        layer.send(bytes([1]) * 60)
        env.advance(1.5e-6)
        far.send(bytes([2]) * 61)
        assert layer.receive() == bytes([2]) * 61
        env.advance(1)
        layer.send(bytes([3]) * 1514)
        assert layer.stats() == {"frames": 3, "bytes": 1635, "noted": 0}
    assert packets(path) == [
        (5 * 10**9, 2, bytes([1]) * 60, ""), (5 * 10**9 + 1500, 1, bytes([2]) * 61, ""),
        (6 * 10**9 + 1500, 2, bytes([3]) * 1514, "")]


def test_what_is_received_last_is_written_at_the_end(tmp_path: Path) -> None:
    """A frame that waits for a note is not lost with the close; nor is one cut by `snap`."""
    path = tmp_path / "last.pcapng"
    end, far = Pipe().open()
    with end, far, Pcap(file=str(path), snap=33).over(end) as layer:
        far.send(bytes(100))
        assert layer.receive() == bytes(100)
    [(_, _, frame, _)] = packets(path)
    assert frame == bytes(33)


def test_refused_frames_are_not_in_it(tmp_path: Path) -> None:
    """What the interface below did not take was never on the wire."""
    path = tmp_path / "full.pcapng"
    end, far = Pipe(slots=2).open()
    with end, far, Pcap(file=str(path)).over(end) as layer:
        for _ in range(2):
            layer.send(bytes(60))
        with pytest.raises(BlockingIOError):
            layer.send(bytes(60))
    assert len(packets(path)) == 2


def test_notes_become_comments(tmp_path: Path) -> None:
    """A stack's note meets its frame by address: before it is sent, after it was received."""
    path = tmp_path / "notes.pcapng"
    ffi, lib = load.abi()
    end, far = Pipe().open()
    with end, far, Pcap(file=str(path)).over(end) as layer:
        network: Any = layer._ptr
        slots = [ffi.new("uint8_t[]", 60) for _ in range(2)]

        def note(frame: Any, **words: int) -> None:
            network.note(network, ffi.new("struct kit_packet_note *", {"frame": frame, **words}))

        note(slots[0], outbound=1, state=4, cwnd=14600, srtt_us=812, flight=20)
        for slot in slots:
            assert lib.kit_netif_send(network, slot, 60) == 0
        for size in (70, 71, 72):
            far.send(bytes(size))
        frames = ffi.new("struct kit_frame[]", 3)
        buffers = [ffi.new("uint8_t[]", 100) for _ in range(3)]
        for one, buffer in zip(frames, buffers, strict=True):
            one.data, one.capacity = buffer, 100
        assert lib.kit_netif_receive_batch(network, frames, 3) == 3
        note(buffers[1], drop=2)
        note(buffers[2], drop=5, state=4)
        assert layer.stats()["noted"] == 1  # the others wait for the next call
        assert lib.kit_netif_receive_batch(network, frames, 3) == 0
        assert layer.stats()["noted"] == 3
    assert [comment for *_, comment in packets(path)] == [
        "state=established cwnd=14600 flight=20 srtt_us=812", "", "", "drop=checksum",
        "state=established drop=forbidden"]


def test_net_mini_says_why(tmp_path: Path) -> None:
    """State and windows of a connection as its frames go by, and why a frame was dropped."""
    path = tmp_path / "mini.pcapng"
    env = VirtualEnvironment()
    env.advance(1)
    end, far = Pipe().open()
    capture = Pcap(file=str(path)).over(end, env=env)
    with end, far, capture, Mini(address="10.0.0.1/24").open(capture, env=env) as here, \
            Mini(address="10.0.0.2/24").open(far, env=env) as there, there.listen(7) as listener, \
            here.connect(("10.0.0.2", 7)) as client, listener.accept() as server:
        client.sendall(bytes(100))
        assert server.recv() == bytes(100)
        far.send(here._netif.mac + bytes(6) + b"\x86\xdd" + bytes(40))
        here.poll()
    comments = [comment for *_, comment in packets(path)]
    assert any(each.startswith("state=syn-sent") for each in comments)
    assert any(each.startswith("state=established cwnd=") for each in comments)
    assert "drop=unwanted" in comments


def test_tcpdump_reads_it(tmp_path: Path) -> None:
    """A TCP conversation under loss, read by an independent program without complaint."""
    program = shutil.which("tcpdump")
    if program is None:
        pytest.skip("tcpdump is not installed")
    path = tmp_path / "talk.pcapng"
    env = VirtualEnvironment()
    env.advance(1)
    end, far = Pipe(slots=1024).open()
    capture = Pcap(file=str(path)).over(end, env=env)
    layer = Fault(loss="5%").over(capture, env=env)
    with end, far, capture, layer, Mini(address="10.0.0.1/24").open(layer, env=env) as here, \
            Mini(address="10.0.0.2/24").open(far, env=env) as there, there.listen(7) as listener, \
            here.connect(("10.0.0.2", 7)) as client, listener.accept() as server:
        client.sendall(bytes(30_000))
        got = 0
        while got < 30_000:
            got += len(server.recv())
    shown = subprocess.run([program, "-nn", "-v", "-r", str(path)], capture_output=True, text=True,
                           check=True)
    assert "Flags [S]" in shown.stdout and "Request who-has 10.0.0.2" in shown.stdout
    assert "incorrect" not in shown.stdout and "bad" not in shown.stdout
    assert shown.stdout.count("10.0.0.1.") >= 30_000 // 1460
    assert len(packets(path)) == capture_count(shown.stdout)


def capture_count(text: str) -> int:
    """Count packets in tcpdump's output: lines that begin with a time."""
    return sum(line[:2].isdigit() for line in text.splitlines())


def test_a_stack_closes_the_layer_it_was_given_as_a_record(tmp_path: Path) -> None:
    """``Pcap(Fault(Loopback()))`` as a record: opened with the stack, on the stack's clock."""
    from unikit.net import Loopback
    path = tmp_path / "record.pcapng"
    env = VirtualEnvironment()
    env.advance(7)
    with Mini(address="10.0.0.1/24").open(Pcap(Fault(Loopback()), file=str(path)),
                                          env=env) as stack:
        stack.poll()
    [(time, direction, frame, _), *_] = packets(path)
    assert (time, direction, frame[12:14]) == (7 * 10**9, 2, b"\x08\x06")


def test_problems_are_told(tmp_path: Path) -> None:
    """No file, a file that cannot be made, a full disk."""
    end, far = Pipe().open()
    with end, far:
        with pytest.raises(InvalidArgument, match="into which file"):
            Pcap().over(end)
        with pytest.raises(FileNotFoundError):
            Pcap(file=str(tmp_path / "no" / "file")).over(end)
        if Path("/dev/full").exists():
            layer = Pcap(file="/dev/full").over(end)
            with pytest.raises(DeviceError, match="No space left"):
                layer.close()
        with pytest.raises(NotSupported):
            from unikit.net.netif.layer import LayerInterface
            LayerInterface(Pcap(file="x"), end, None, owned=False)
