"""netif.pipe: the conformance suite in three harnesses, two threads, and the ends from Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "conformance"))
from compiled import HERE, VARIANTS, build, conforms

from unikit.errors import Closed, InvalidArgument, MessageTooLong, NotSupported, WouldBlock
from unikit.net import Loopback, Pipe
from unikit.testing import check_netif

OPTIONS = [(256, 1500), (1, 68), (2, 9000), (65536, 68)]


@pytest.mark.fast
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["pipe", "loopback"])
def test_conforms(name: str, variant: str) -> None:
    """One source must behave alike under sanitizers and as a release, for all ring sizes."""
    program = build([HERE / "main_netif.c", "unikit/testing/suite_netif.c",
                     f"unikit/net/netif/{name}.c"], variant=variant,
                    defines={"COMPONENT": f"kit_netif_{name}"})
    for options in OPTIONS:
        conforms(program, *options)


@pytest.mark.fast
@pytest.mark.parametrize("record", [Pipe(), Pipe(slots=1, mtu=68), Loopback(), Loopback(slots=2)])
def test_conforms_in_process(record: Pipe | Loopback) -> None:
    """The same suite on the very extension that Python programs use."""
    assert check_netif(record).checks > 1000


@pytest.mark.parametrize("variant", ["thread", "optimised"])
def test_two_threads(variant: str) -> None:
    """A million frames each way between two threads arrive once, in order and whole."""
    flags = ["-pthread"]
    if variant == "thread":
        flags += ["-fsanitize=thread"]
    program = build(["tests/net/netif/pipe_threads.c", "unikit/net/netif/pipe.c"],
                    variant="optimised", flags=flags)
    conforms(program, 100_000 if variant == "thread" else 1_000_000)


@pytest.mark.fast
def test_ends_in_python() -> None:
    """What one end sends the other receives; misuse is an exception of the right kind."""
    with pytest.raises(InvalidArgument, match="slots=3"):
        Pipe(slots=3).open()
    a, b = Pipe(slots=2).open()
    with a, b:
        assert (a.mac, a.mtu) != (b.mac, b.mtu)
        a.send(bytes(range(60)))
        a.send(bytearray(14))
        with pytest.raises(WouldBlock):
            a.send(bytes(14))
        assert [b.receive(), b.receive(), b.receive()] == [bytes(range(60)), bytes(14), None]
        with pytest.raises(MessageTooLong):
            a.send(bytes(1515))
        with pytest.raises(NotSupported):
            a.fileno()
    with pytest.raises(Closed):
        a.send(bytes(60))
    a.close()


@pytest.mark.fast
def test_the_other_end_outlives_a_closed_one() -> None:
    """The memory belongs to both ends: frames under way survive the sender's end."""
    a, b = Pipe().open()
    a.send(b"x" * 20)
    a.close()
    del a
    assert b.receive() == b"x" * 20
    b.close()
