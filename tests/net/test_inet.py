"""net.inet: the conformance suite in three harnesses, and proof that it notices broken stacks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
from compiled import HERE, VARIANTS, build, conforms, run

from unikit.net import Inet, Mini, Pipe, Stack
from unikit.testing import check_stack

SUITE = [HERE / "main_net.c", *(f"unikit/testing/{name}.c" for name in (
    "suite_net", "suite_net_tcp", "suite_net_udp", "suite_net_faults", "wire", "virtual"))]
INET = [f"unikit/net/inet/{name}" for name in Inet.sources]
RECORDS = [
    Inet(),
    Inet(connections=8, send_buffer="2K", receive_buffer="2K", nagle=True, udp_sockets=3,
         udp_buffer=2000, neighbours=1),
    Inet(connections=1000, send_buffer="1M", receive_buffer="1M", time_wait="1s",
         congestion="newreno", ecn="ask"),
    Inet(send_buffer="4K", receive_buffer="256K", memory="2M", keepalive="10s", ecn="off"),
]


@pytest.mark.parametrize("number", range(len(RECORDS)))
@pytest.mark.parametrize("variant", [pytest.param(each, marks=pytest.mark.fast)
                                     if each == "optimised" else each for each in VARIANTS])
def test_conforms(number: int, variant: str) -> None:
    """One source must behave alike under sanitizers and as a release, with small and large
    buffers, with and without Nagle, with either congestion control."""
    program = build([*SUITE, *INET], variant=variant, defines={"COMPONENT": "kit_net_inet"})
    conforms(program, *[10_000 if number == 0 else 300, *RECORDS[number].encoded()])


@pytest.mark.fast
def test_conforms_in_process() -> None:
    """The same suite on the very extension that Python programs use."""
    assert check_stack(Inet, connections=1000).checks > 10_000


@pytest.mark.parametrize("seed", range(4))
def test_hostile_network(seed: int) -> None:
    """Frames made to fit and then damaged, misbehaving callers, failing memory: nothing breaks."""
    program = build(["tests/fuzz/mini_network.c", *INET, "unikit/net/netif/pipe.c",
                     "unikit/testing/virtual.c"],
                    defines={"COMPONENT": "kit_net_inet", "OVERHEAD": 90_000})
    conforms(program, seed, 4000, *Inet(fragments="64K").encoded()[10:])


def transfer(sender: Stack, receiver: Stack, *faults: int,
             size: int = 20_000_000) -> dict[str, int]:
    """Run inet_bulk.c; what it printed."""
    program = build(["tests/net/inet_bulk.c", "unikit/testing/virtual.c", "unikit/testing/wire.c",
                     *dict.fromkeys([*sender.source_files(), *receiver.source_files()])],
                    variant="optimised",
                    defines={"SENDER": sender.symbol(), "RECEIVER": receiver.symbol()})
    done = run(program, 1, size, *faults, *sixteen(sender), *sixteen(receiver), timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: int(value) for name, value in map(str.split, done.stdout.splitlines())}


def sixteen(record: Stack) -> list[int]:
    """The options, filled up."""
    return [*record.encoded(), *[0] * 16][:16]


@pytest.mark.fast
@pytest.mark.parametrize(("delay_us", "loss", "least"), [
    (250, 10, 1200), (250, 100, 120), (250, 300, 40), (10_000, 10, 80), (10_000, 100, 5),
    (50_000, 100, 1)])
def test_throughput_with_loss(delay_us: int, loss: int, least: int) -> None:
    """Each way frames are lost: Mb/s stay above two thirds of what 1.22 segments per round trip and
    root of the loss rate allow, and hardly more is sent again than was lost."""
    counted = transfer(Inet(), Inet(), delay_us, loss, 0, 0)
    assert counted["received"] * 8 / counted["us"] > least
    lost = counted["frames"] * loss / 10_000
    assert counted["retransmits"] < 1.5 * lost + 15
    assert counted["timeouts"] < 2 + lost / 20


@pytest.mark.fast
@pytest.mark.parametrize("pair", ["mini to inet", "inet to mini"])
def test_transfers_between_the_stacks(pair: str) -> None:
    """With a peer that has neither SACK nor timestamps, over a cable with every fault."""
    mini = Mini(send_buffer="256K", receive_buffer="256K")
    both = (mini, Inet()) if pair == "mini to inet" else (Inet(), mini)
    transfer(*both, 250, 100, 100, 100, size=2_000_000)


@pytest.mark.fast
def test_reordering_is_told_from_loss() -> None:
    """Frames that overtake each other: what was sent again in vain is undone and becomes rare."""
    counted = transfer(Inet(), Inet(), 250, 0, 0, 100)
    assert counted["timeouts"] == 0
    assert counted["undone"] > 0
    assert counted["retransmits"] < counted["frames"] / 50


@pytest.mark.fast
def test_the_python_face() -> None:
    """What congestion control knows, and each drop under its reason, can be read."""
    a, b = Pipe().open()
    with a, b, Inet(address="10.0.0.1/24").open(a) as here, \
            Inet(address="10.0.0.2/24").open(b) as there:
        with there.listen(80) as listener, here.connect(("10.0.0.2", 80), timeout=5) as client, \
                listener.accept(timeout=5) as server:
            client.sendall(bytes(100_000))
            assert len(server.recv(timeout=5)) > 0
            info = client.info()
            assert info.cwnd >= 10 * 1448 and info.rto_us >= 200_000
        before = there.counters()
        with here.udp() as port:
            port.sendto(b"x", ("10.0.0.2", 9))
            there.poll()
        assert there.counters()["udp_port"] == before["udp_port"] + 1
