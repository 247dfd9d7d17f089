"""Stacks in this process from Python: sockets, timeouts, errors, ownership."""

from __future__ import annotations

import contextlib
import doctest
from collections.abc import Iterator

import pytest

import unikit.net.stack
from unikit.errors import (
    AlreadyExists,
    Closed,
    ConnectionRefused,
    ConnectionReset,
    InvalidArgument,
    MessageTooLong,
    OutOfMemory,
    TimedOut,
    Unreachable,
    WouldBlock,
)
from unikit.net import Mini, Pipe
from unikit.net.stack import NetStack

pytestmark = pytest.mark.fast


@pytest.fixture
def stacks() -> Iterator[tuple[NetStack, NetStack]]:
    """Two stacks on one pipe, 10.0.0.1 and 10.0.0.2, checked at the end."""
    a, b = Pipe().open()
    with a, b, Mini(address="10.0.0.1/24").open(a) as here, \
            Mini(address="10.0.0.2/24").open(b) as there:
        yield here, there
        here.check()
        there.check()


def test_doctest() -> None:
    """The echo server of the class documentation is true."""
    assert doctest.testmod(unikit.net.stack).failed == 0


def test_stream_both_ways(stacks: tuple[NetStack, NetStack]) -> None:
    """More than all buffers hold passes byte-exact while both sides take turns."""
    here, there = stacks
    data = bytes(range(256)) * 4096
    with there.listen(80) as listener, here.connect(("10.0.0.2", 80), timeout=5) as client, \
            listener.accept(timeout=5) as server:
        sent, got = 0, bytearray()
        while len(got) < len(data):
            with contextlib.suppress(WouldBlock):
                sent += client.send(data[sent:sent + 50_000], timeout=0) if sent < len(data) else 0
            got += server.recv(timeout=5)
        assert got == data
        client.shutdown()
        assert server.recv(timeout=5) == b""
        server.sendall(b"after the end of the other direction")
        assert client.recv(timeout=5) == b"after the end of the other direction"
        with pytest.raises(Closed):
            client.send(b"x")
        assert client.info().remote == ("10.0.0.2", 80)
        assert client.info().state == "fin-wait-2"
        assert server.info().state == "close-wait"


def test_errors_of_connect(stacks: tuple[NetStack, NetStack]) -> None:
    """Refused, unreachable and malformed addresses are told apart."""
    here, _ = stacks
    with pytest.raises(ConnectionRefused):
        here.connect(("10.0.0.2", 81), timeout=5)
    with pytest.raises(TimedOut):
        here.connect(("10.0.0.9", 80), timeout=0.05)
    with pytest.raises(Unreachable):
        here.connect(("10.9.9.9", 80))
    for address in (("nonsense", 80), ("10.0.0.2", 0), ("10.0.0.2", 65536), ("224.0.0.1", 80)):
        with pytest.raises(InvalidArgument):
            here.connect(address)


def test_reset(stacks: tuple[NetStack, NetStack]) -> None:
    """An abort is an exception at the other end, after the data before it."""
    here, there = stacks
    with there.listen(80) as listener, here.connect(("10.0.0.2", 80)) as client:
        server = listener.accept(timeout=1)
        server.sendall(b"last words")
        server.abort()
        server.abort()
        assert client.recv(timeout=1) == b"last words"
        with pytest.raises(ConnectionReset):
            client.recv(timeout=1)
        with pytest.raises(Closed):
            server.recv()


def test_waiting(stacks: tuple[NetStack, NetStack]) -> None:
    """No waiting with 0, not longer than told otherwise."""
    here, there = stacks
    with there.listen(80) as listener, there.udp(53) as port:
        with pytest.raises(WouldBlock):
            listener.accept(timeout=0)
        with pytest.raises(TimedOut):
            listener.accept(timeout=0.01)
        with pytest.raises(WouldBlock):
            port.recvfrom(timeout=0)
        with pytest.raises(AlreadyExists):
            there.listen(80)
        with pytest.raises(AlreadyExists):
            there.udp(53)


def test_udp(stacks: tuple[NetStack, NetStack]) -> None:
    """Datagrams arrive whole with the sender's address; too long is an error."""
    here, there = stacks
    with there.udp(53) as server, here.udp() as client:
        client.sendto(b"question", ("10.0.0.2", 53))
        data, sender = server.recvfrom(timeout=1)
        assert (data, sender) == (b"question", ("10.0.0.1", client.port))
        server.sendto(b"", sender)
        server.sendto(b"long answer", sender)
        assert client.recvfrom(timeout=1)[0] == b""
        assert client.recvfrom(4, timeout=1)[0] == b"long"
        with pytest.raises(MessageTooLong):
            client.sendto(bytes(1473), ("10.0.0.2", 53))
        with pytest.raises(Unreachable):
            client.sendto(b"", ("192.168.1.1", 53))


def test_configure(stacks: tuple[NetStack, NetStack]) -> None:
    """The address can be changed; a gateway must be a neighbour."""
    here, there = stacks
    assert here.address == "10.0.0.1"
    here.configure("10.0.0.7/24", gateway="10.0.0.2")
    assert here.address == "10.0.0.7"
    for prefix, gateway in (("10.0.0.0/24", ""), ("10.0.0.255/24", ""), ("10.0.0.1/24", "10.1.0.1"),
                            ("0.0.0.0/8", ""), ("224.0.0.1/4", ""), ("nonsense", "")):
        with pytest.raises(InvalidArgument):
            here.configure(prefix, gateway)
    with there.listen(80) as listener, here.connect(("10.0.0.2", 80), timeout=1) as client:
        assert listener.accept(timeout=1).info().remote == ("10.0.0.7", client.info().local[1])


def test_stack_closes_its_sockets_and_what_it_opened() -> None:
    """Closing a stack makes its sockets unusable; a second close does nothing."""
    a, b = Pipe().open()
    with a, b:
        stack = Mini(address="10.0.0.1/24").open(a)
        listener, port = stack.listen(1), stack.udp()
        stack.close()
        stack.close()
        for call in (listener.accept, lambda: port.port, stack.poll, stack.stats):
            with pytest.raises(Closed):
                call()
        listener.close()


def test_refuses_what_is_no_interface() -> None:
    """A record with two ends, or anything else, is an error that says what to do."""
    for wrong in (Pipe(), object(), None):
        with pytest.raises(InvalidArgument, match="open"):
            Mini().open(wrong)


def test_too_little_memory() -> None:
    """A heap too small for the stack is an error, not a crash."""
    from unikit.alloc import Tlsf
    a, b = Pipe().open()
    with a, b, Tlsf().open("16K") as heap, pytest.raises(OutOfMemory):
        Mini().open(a, heap)
