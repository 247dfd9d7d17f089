"""netif.loopback: frames come back, and a stack can talk to itself (suite: test_pipe.py)."""

from __future__ import annotations

import pytest

from unikit.net import Loopback, Mini

pytestmark = pytest.mark.fast


def test_frames_come_back() -> None:
    """What the one end sends it receives, in order."""
    with Loopback(slots=4).open() as end:
        for value in range(4):
            end.send(bytes([value]) * 14)
        assert [end.receive() for _ in range(5)] == [*(bytes([v]) * 14 for v in range(4)), None]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3"])
def test_a_stack_talks_to_itself(address: str) -> None:
    """A client and a server of one stack meet over the loopback, at any address."""
    with Loopback().open() as end, Mini(address=f"{address}/8").open(end) as stack:
        with stack.listen(7) as listener, stack.connect((address, 7)) as client, \
                listener.accept(timeout=1) as server:
            client.sendall(b"hello")
            assert server.recv(timeout=1) == b"hello"
            server.shutdown()
            assert client.recv(timeout=1) == b""
        stack.check()
