"""The echo server over a fake network, under sanitizers."""

from __future__ import annotations

from fake_app import Fake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def test_what_arrives_comes_back_and_the_end_too(echo: Fake) -> None:
    """RFC 862; a half-closed connection is ended when everything was sent back."""
    echo.data(b"hello")
    assert echo.out() == ("o", b"hello")
    echo.data(b"world")
    echo.fin()
    assert echo.out() == ("c", b"world")


def test_the_end_waits_for_what_is_not_sent_yet(echo: Fake) -> None:
    """A client that ends its stream before it reads loses nothing."""
    echo.window(3)
    echo.data(b"abcdefgh")
    echo.fin()
    assert echo.out() == ("o", b"abc")
    echo.window(4)
    assert echo.out() == ("o", b"defg")
    echo.window(100)
    assert echo.out() == ("c", b"h")


def test_a_reset_frees_the_connection(echo: Fake) -> None:
    """Also while data waits for the window."""
    echo.window(1)
    echo.data(b"abc")
    echo.reset()
    assert echo.out()[0] == "a"
    echo.connect()
    echo.data(b"again")
    assert echo.out() == ("o", b"again")


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(min_size=1, max_size=300), max_size=12),
       windows=st.lists(st.integers(1, 500), max_size=12))
def test_any_pieces_through_any_windows(echo: Fake, pieces: list[bytes],
                                        windows: list[int]) -> None:
    """Nothing is lost, doubled or reordered."""
    echo.connect(1)
    echo.window(0, 1)
    got = b""
    for piece in pieces:
        echo.data(piece, 1)
    for size in windows:
        echo.window(size, 1)
        got += echo.out(1)[1]
    echo.window(1 << 30, 1)
    got += echo.out(1)[1]
    assert got == b"".join(pieces)
    echo.fin(1)
    assert echo.out(1) == ("c", b"")


def test_datagrams_come_back_unless_they_do_not_fit(echo: Fake) -> None:
    """A datagram that was cut would come back as another one: it is dropped."""
    for size in (0, 1, 512, 1472, 2048):
        assert echo.datagram(bytes(range(256)) * 8 if size == 2048 else b"x" * size) == (
            bytes(range(256)) * 8 if size == 2048 else b"x" * size)
    assert echo.datagram(b"x" * 2049) == b""
