"""net.inet: the conformance suite in three harnesses, and proof that it notices broken stacks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
from compiled import HERE, VARIANTS, build, conforms

from unikit.net import Inet
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
