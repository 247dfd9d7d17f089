"""net.mini, segment by segment: what RFC 9293, 5681, 6298, 6582, 5961 and 6191 ask of TCP.

Numbers in a dialogue are relative to each side's first; ``say`` gives back the answers at once as
(flags, sequence number, acknowledgment, length).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest
from packets import (
    ACK,
    FIN,
    PEER,
    PSH,
    RST,
    STACK,
    SYN,
    Peer,
    Segment,
    Talk,
    icmp,
    ipv4,
    parse_tcp,
    tcp,
)

from unikit.errors import (
    ConnectionRefused,
    ConnectionReset,
    TimedOut,
    UnikitError,
    Unreachable,
    WouldBlock,
)
from unikit.net.stack import Connection, Listener

pytestmark = pytest.mark.fast
MSS = 1460


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer(answers=True) as it:
        yield it


@pytest.fixture
def listener(peer: Peer) -> Listener:
    return peer.stack.listen(80, backlog=4)


@pytest.fixture
def talk(peer: Peer, listener: Listener) -> Talk:
    """An established connection, accepted as ``talk.socket``."""
    it = Talk(peer)
    it.open()
    it.socket = listener.accept(timeout=0)  # type: ignore[attr-defined]
    return it


def socket(talk: Talk) -> Connection:
    return talk.socket  # type: ignore[attr-defined,no-any-return]


def state(talk: Talk) -> str:
    return socket(talk).info().state


def queue(talk: Talk, data: bytes) -> list[tuple[int, int, int, int]]:
    """Send from the stack's side, and return what comes out at once."""
    assert socket(talk).send(data, timeout=0) == len(data)
    return talk.brief([parse_tcp(frame) for frame in talk.peer.take()])


# ---- opening --------------------------------------------------------------------------------

def test_closed_port(peer: Peer) -> None:
    """RFC 9293, 3.10.7.1: a reset that the sender of the segment will believe."""
    [answer] = peer.segments(tcp(5000, 81, 1000, 0, SYN))
    assert (answer.flags, answer.seq, answer.ack) == (RST | ACK, 0, 1001)
    [answer] = peer.segments(tcp(5000, 81, 1000, 777, ACK, data=b"abc"))
    assert (answer.flags, answer.seq, answer.ack) == (RST, 777, 0)
    [answer] = peer.segments(tcp(5000, 81, 1000, 0, FIN, data=b"abc"))
    assert (answer.flags, answer.seq, answer.ack) == (RST | ACK, 0, 1004)
    assert peer.segments(tcp(5000, 81, 1000, 0, RST)) == []


def test_listener_ignores_what_is_no_syn(peer: Peer, listener: Listener) -> None:
    """RFC 9293, 3.10.7.2."""
    assert peer.segments(tcp(5000, 80, 1000, 0, RST)) == []
    assert peer.segments(tcp(5000, 80, 1000, 0, FIN)) == []
    assert peer.segments(tcp(5000, 80, 1000, 0, 0)) == []
    assert peer.segments(tcp(5000, 80, 1000, 0, SYN | FIN)) == []
    assert peer.segments(tcp(5000, 80, 1000, 0, SYN | RST)) == []
    [answer] = peer.segments(tcp(5000, 80, 1000, 55, SYN | ACK))
    assert (answer.flags, answer.seq) == (RST, 55)


@pytest.mark.parametrize(("options", "mss", "scaled"), [
    (b"", 536, False), (b"\x02\x04\x05\xb4", 1460, False), (b"\x02\x04\x00\x01", 64, False),
    (b"\x02\x04\xff\xff", 1460, False), (b"\x02\x04\x02\x00\x01\x03\x03\x07", 512, True),
    (b"\x03\x03\x0f\x00", 536, True), (b"\x01\x02\x04\x05", 536, False),
    (b"\x02\x00\x05\xb4", 536, False),
    (b"\x01" * 40, 536, False), (b"\x08\x0a" + bytes(8) + b"\x02\x04\x02\x00", 512, False)])
def test_syn_options(peer: Peer, listener: Listener, options: bytes, mss: int,
                     scaled: bool) -> None:
    """MSS and window scale are understood, malformed options do no harm, others are skipped."""
    if len(options) % 4:
        options += bytes(4 - len(options) % 4)
    talk = Talk(peer)
    answer = talk.open(options=options)
    assert answer.mss == MSS
    assert (b"\x03\x03" in answer.options) == scaled
    talk.socket = listener.accept(timeout=0)  # type: ignore[attr-defined]
    assert queue(talk, bytes(2000))[0][3] == mss


def test_peer_window_is_scaled(peer: Peer, listener: Listener) -> None:
    """RFC 7323, 2.3: windows behind the SYN count in units of the peer's scale."""
    talk = Talk(peer)
    talk.open(window=10, options=b"\x02\x04\x05\xb4\x01\x03\x03\x08")
    talk.socket = listener.accept(timeout=0)  # type: ignore[attr-defined]
    talk.say(1, 1, window=10)
    assert [length for *_, length in queue(talk, bytes(5000))] == [MSS]  # 1100 more are silly
    assert [length for *_, length in talk.say(1, 1 + MSS, window=20)] == [MSS, MSS, 620]


def test_own_window_is_scaled() -> None:
    """A receive buffer beyond 64 KiB is offered in full where the peer can scale."""
    with Peer(receive_buffer="1M") as peer:
        listener = peer.stack.listen(80)
        talk = Talk(peer)
        answer = talk.open(options=b"\x02\x04\x05\xb4\x01\x03\x03\x00")
        shift = answer.options[answer.options.index(b"\x03\x03") + 2]
        assert answer.window == 65535 and shift == 4
        [ack] = peer.segments(talk.packet(1, 1, ACK, data=b"x"), talk.packet(2, 1, ACK, data=b"x"))
        assert ack.window << shift > 900_000
        listener.close()


def test_repeated_syn(peer: Peer, listener: Listener) -> None:
    """A SYN that comes again gets the same SYN again; so does silence, after 1, 2, 4 ... s."""
    first = peer.segments(tcp(5000, 80, 1000, 0, SYN))
    assert peer.segments(tcp(5000, 80, 1000, 0, SYN)) == first
    times, start = [], peer.env.now_ns()
    for _ in range(2000):
        for frame in peer.after(0.1):
            assert parse_tcp(frame) == first[0]
            times.append(round((peer.env.now_ns() - start) / 1e9))
    assert times[:6] == [1, 3, 7, 15, 31, 63]
    peer.after(300)
    assert peer.stack.stats().tcp_open == 0


def test_handshake_checks_the_ack(peer: Peer, listener: Listener) -> None:
    """RFC 9293, 3.10.7.4, SYN-RECEIVED: an ACK of something else is answered with a reset."""
    [answer] = peer.segments(tcp(5000, 80, 1000, 0, SYN))
    [reset] = peer.segments(tcp(5000, 80, 1001, answer.seq + 2, ACK))
    assert (reset.flags, reset.seq) == (RST, (answer.seq + 2) % 2**32)
    assert peer.segments(tcp(5000, 80, 1001, answer.seq + 1, ACK)) == []
    assert listener.accept(timeout=0).info().state == "established"


def test_reset_of_a_half_open_connection(peer: Peer, listener: Listener) -> None:
    """A peer that changes its mind frees its place, and nobody hears of it."""
    peer.segments(tcp(5000, 80, 1000, 0, SYN))
    assert peer.segments(tcp(5000, 80, 1001, 0, RST)) == []
    assert peer.stack.stats().tcp_open == 0
    with pytest.raises(WouldBlock):
        listener.accept(timeout=0)


def connecting(peer: Peer) -> tuple[Connection, Talk]:
    """Start an active open to port 7000 of the peer."""
    connection = peer.stack.connect_nowait((PEER, 7000))
    [frame] = peer.take()
    syn = parse_tcp(frame)
    assert (syn.flags, syn.port, syn.ack, syn.mss) == (SYN, 7000, 0, MSS)
    talk = Talk(peer, syn.source_port, 7000)
    talk.irs = syn.seq
    talk.socket = connection  # type: ignore[attr-defined]
    return connection, talk


def test_active_open(peer: Peer) -> None:
    """SYN, SYN ACK, ACK."""
    connection, talk = connecting(peer)
    assert connection.info().state == "syn-sent"
    assert talk.say(0, 1, SYN | ACK) == [(ACK, 1, 1, 0)]
    assert connection.info().state == "established"


def test_active_open_refuses_wrong_acks(peer: Peer) -> None:
    """RFC 9293, 3.10.7.3: an old duplicate is reset and the open goes on."""
    connection, talk = connecting(peer)
    assert talk.say(0, 9, SYN | ACK) == [(RST, 9, 0, 0)]
    assert talk.say(0, 9, RST | ACK) == []
    assert talk.say(0, 0, RST) == []
    assert talk.say(0, 1, ACK) == []
    assert connection.info().state == "syn-sent"
    assert talk.say(0, 1, RST | ACK) == []
    with pytest.raises(ConnectionRefused):
        connection.send(b"x")


def test_active_open_gives_up(peer: Peer) -> None:
    """Nobody answers: SYNs at 1, 3, 7 ... s, then an error after minutes (RFC 1122, 4.2.3.5)."""
    connection, _ = connecting(peer)
    assert len(peer.after(180)) >= 6
    peer.after(400)
    with pytest.raises(TimedOut):
        connection.send(b"x")


@pytest.mark.parametrize(("code", "error"), [(3, ConnectionRefused), (2, ConnectionRefused),
                                             (1, Unreachable), (0, Unreachable)])
def test_icmp_errors_end_an_open(peer: Peer, code: int, error: type[UnikitError]) -> None:
    """An ICMP error about our SYN ends the open; about another one, or established, nothing."""
    connection, talk = connecting(peer)
    syn = tcp(talk.port, 7000, talk.irs, 0, SYN, source=STACK, target=PEER)
    wrong = tcp(talk.port, 7000, talk.irs + 1, 0, SYN, source=STACK, target=PEER)
    for quoted in (wrong[:8], syn[:7]):
        peer.give(ipv4(icmp(3, code, bytes(4) + ipv4(quoted, 6, STACK, PEER, total=60)), 1))
        assert connection.info().state == "syn-sent"
    peer.give(ipv4(icmp(3, code, bytes(4) + ipv4(syn[:8], 6, STACK, PEER, total=60)), 1))
    with pytest.raises(error):
        connection.send(b"x")


def test_simultaneous_open(peer: Peer) -> None:
    """RFC 9293, 3.5, figure 7: both SYNs cross, both sides end established."""
    connection, talk = connecting(peer)
    assert talk.say(0, 0, SYN) == [(SYN | ACK, 0, 1, 0)]
    assert connection.info().state == "syn-received"
    assert talk.say(0, 1, SYN | ACK) == [(ACK, 1, 1, 0)]
    assert connection.info().state == "established"
    assert talk.say(1, 1, ACK, data=b"hello") == []
    assert connection.recv(timeout=0) == b"hello"


def test_window_of_a_second_syn_is_not_scaled(peer: Peer) -> None:
    """RFC 7323, 2.2: also not on the SYN ACK that ends a simultaneous open."""
    _, talk = connecting(peer)
    talk.say(0, 0, SYN, window=100, options=b"\x02\x04\x05\xb4\x01\x03\x03\x08")
    talk.say(0, 1, SYN | ACK, window=100)
    assert [length for *_, length in queue(talk, bytes(5000))] == [100]


def test_initial_sequence_numbers(peer: Peer, listener: Listener) -> None:
    """RFC 6528: a clock of some 4 us per connection name, names far apart from each other."""
    def isn(port: int) -> int:
        [answer] = peer.segments(tcp(port, 80, 1000, 0, SYN))
        peer.segments(tcp(port, 80, 1001, 0, RST))
        return answer.seq
    names = [isn(port) for port in range(6000, 6040)]
    gaps = [(b - a) % 2**32 for a, b in itertools.pairwise(names)]
    assert len(set(gaps)) == len(gaps) and min(gaps) > 1000
    before = isn(6000)
    peer.after(1)
    assert 200_000 < (isn(6000) - before) % 2**32 < 300_000


# ---- receiving --------------------------------------------------------------------------------

def test_delayed_ack(talk: Talk) -> None:
    """One segment is acknowledged within 40 ms, two at once (RFC 9293, 3.8.6.3)."""
    assert talk.say(1, 1, data=b"a" * 100) == []
    assert talk.after(0.039) == []
    assert talk.after(0.002) == [(ACK, 1, 101, 0)]
    assert talk.say(101, 1, data=b"b" * 100) == []
    assert talk.say(201, 1, data=b"c" * 100) == [(ACK, 1, 301, 0)]
    assert socket(talk).recv(timeout=0) == b"a" * 100 + b"b" * 100 + b"c" * 100


def test_ack_rides_on_the_answer(talk: Talk) -> None:
    """A reply within the delay carries the acknowledgment."""
    assert talk.say(1, 1, data=b"question") == []
    assert queue(talk, b"answer") == [(ACK | PSH, 1, 9, 6)]
    assert talk.after(0.1) == []


def test_out_of_order(talk: Talk) -> None:
    """Each early segment is told at once (RFC 5681, 4.2); nothing is lost once the gap closes."""
    assert talk.say(11, 1, data=b"B" * 10) == [(ACK, 1, 1, 0)]
    assert talk.say(31, 1, data=b"D" * 10) == [(ACK, 1, 1, 0)]
    assert talk.say(21, 1, data=b"C" * 10) == [(ACK, 1, 1, 0)]
    assert talk.say(1, 1, data=b"A" * 10) == [(ACK, 1, 41, 0)]
    assert socket(talk).recv(timeout=0) == b"".join(bytes([each]) * 10 for each in b"ABCD")


def test_overlaps(talk: Talk) -> None:
    """Segments that overlap what is there are trimmed; what came in order first counts."""
    assert talk.say(1, 1, data=b"abcdef") == []
    assert talk.say(4, 1, data=b"DEFghi") == [(ACK, 1, 10, 0)]
    assert talk.say(1, 1, data=b"ABC") == [(ACK, 1, 10, 0)]
    talk.say(15, 1, data=b"opq")
    talk.say(13, 1, data=b"mnop")
    talk.say(16, 1, data=b"pqrst")
    assert talk.say(8, 1, data=b"HIjklm") == [(ACK, 1, 21, 0)]
    assert socket(talk).recv(timeout=0) == b"abcdefghijklmnopqrst"


def test_pieces_ahead_are_bounded(talk: Talk) -> None:
    """Only so many pieces are kept, the rest is asked for again; memory stays bounded."""
    for piece in range(40):
        assert talk.say(3 + 2 * piece, 1, data=b"x") == [(ACK, 1, 1, 0)]
    talk.peer.stack.check()
    [ack] = talk.say(1, 1, data=b"ab")
    assert 3 < ack[2] < 40
    assert talk.peer.stack.stats().dropped_full == 32


def test_beyond_the_window(talk: Talk) -> None:
    """What lies right of the window is not taken, and told so (RFC 9293, 3.10.7.4, first)."""
    assert talk.say(65536 + 1, 1, data=b"x" * 10) == [(ACK, 1, 1, 0)]
    assert talk.say(65536 - 2, 1, data=b"x" * 10) == [(ACK, 1, 1, 0)]
    assert talk.say(2**31, 1, data=b"x" * 10) == [(ACK, 1, 1, 0)]
    with pytest.raises(WouldBlock):
        socket(talk).recv(timeout=0)


def fill(talk: Talk) -> int:
    """Send until the window is closed; the next sequence number."""
    seq, window = 1, 65535
    while window:
        data = bytes(min(window, MSS))
        answers = talk.peer.segments(talk.packet(seq, 1, data=data))
        seq += len(data)
        window = min((answers[-1].window if answers else window - len(data)), window - len(data))
    return seq


def test_zero_window_and_its_opening(talk: Talk) -> None:
    """A closed window answers probes, and opens in steps of two segments, by itself."""
    seq = fill(talk)
    [ack] = talk.peer.segments(talk.packet(seq, 1, data=b"x"))
    assert (ack.window, (ack.ack - talk.iss) % 2**32) == (0, seq)
    connection = socket(talk)
    assert len(connection.recv(1000, timeout=0)) == 1000
    assert talk.after(1) == []  # not worth a word yet
    assert len(connection.recv(2000, timeout=0)) == 2000
    [frame] = talk.peer.take()
    assert parse_tcp(frame).window >= 2 * MSS
    assert len(connection.recv(100, timeout=0)) == 100
    assert talk.peer.take() == []


def test_window_never_shrinks(talk: Talk) -> None:
    """RFC 9293, 3.8.6: the right edge that was offered is kept."""
    edge, seq = 65536, 1
    for size in (1, 100, MSS, 7, MSS, 536) * 4:
        for answer in talk.peer.segments(talk.packet(seq, 1, data=bytes(size))):
            assert answer.ack - talk.iss + answer.window >= edge
            edge = answer.ack - talk.iss + answer.window
        seq += size


# ---- sending ----------------------------------------------------------------------------------

def test_initial_window_and_slow_start(talk: Talk) -> None:
    """RFC 6928: ten segments at first; RFC 5681: two more per acknowledged segment pair."""
    assert [each[3] for each in queue(talk, bytes(60000))] == [MSS] * 10
    assert len(talk.say(1, 1 + 2 * MSS)) == 4
    assert len(talk.say(1, 1 + 4 * MSS)) == 4


def test_retransmission_timer(talk: Talk) -> None:
    """RFC 6298: the timer from the round trip time, at least 200 ms, doubled each time; after a
    reset of the peer's silence it gives up and says why."""
    assert queue(talk, b"hello") == [(ACK | PSH, 1, 1, 5)]
    times, start = [], talk.peer.env.now_ns()
    for _ in range(400):
        for frame in talk.peer.after(0.05):
            assert parse_tcp(frame).data == b"hello"
            times.append((talk.peer.env.now_ns() - start) / 1e9)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == pytest.approx(0.2, abs=0.06)
    assert all(b == pytest.approx(2 * a, rel=0.2) for a, b in itertools.pairwise(gaps))
    assert talk.say(1, 6) == []
    assert queue(talk, b"again") == [(ACK | PSH, 6, 1, 5)]


def test_karn(talk: Talk) -> None:
    """The round trip of a segment sent twice is not measured (RFC 6298, section 3)."""
    measured = socket(talk).info().srtt_us
    queue(talk, b"hello")
    talk.after(5)
    talk.say(1, 6)
    assert socket(talk).info().srtt_us == measured


def test_progress_ends_the_back_off(talk: Talk) -> None:
    """After an acknowledgment of new data the timer is short again, though nothing was measured."""
    queue(talk, bytes(2 * MSS))
    talk.after(5)  # 0.2, 0.6, 1.4, 3.0 s: backed off to 3.2 s
    assert talk.say(1, 1 + MSS) == [(ACK | PSH, 1 + MSS, 1, MSS)]
    assert talk.after(0.25) == [(ACK | PSH, 1 + MSS, 1, MSS)]


def test_timeouts_do_not_add_up_over_a_life(talk: Talk) -> None:
    """Only silence in a row ends a connection, however often it lost something before."""
    for number in range(25):
        queue(talk, b"x")
        assert len(talk.after(0.5)) == 1
        talk.say(1, 2 + number)
    assert state(talk) == "established"


def test_gives_up_on_a_silent_peer(talk: Talk) -> None:
    """After more than 100 s of silence the connection is over (RFC 1122, 4.2.3.5)."""
    queue(talk, b"hello")
    talk.after(100)
    assert state(talk) == "established"
    talk.after(400)
    assert state(talk) == "closed"
    with pytest.raises(TimedOut):
        socket(talk).recv(timeout=0)


def test_fast_retransmit(talk: Talk) -> None:
    """RFC 5681, 3.2 and RFC 3042: two duplicates let new segments out, the third repeats the lost
    one; each partial acknowledgment repeats the next hole (RFC 6582)."""
    queue(talk, bytes(60000))
    assert talk.say(1, 1) == [(ACK, 1 + 10 * MSS, 1, MSS)]
    assert talk.say(1, 1) == [(ACK, 1 + 11 * MSS, 1, MSS)]
    assert talk.say(1, 1) == [(ACK, 1, 1, MSS)]
    assert socket(talk).info().retransmits == 1
    for _ in range(4):
        assert talk.say(1, 1) == []  # the window of 5 + 3 segments is full
    assert talk.say(1, 1 + 3 * MSS)[0] == (ACK, 1 + 3 * MSS, 1, MSS)  # the hole behind
    assert socket(talk).info().retransmits == 2
    answers = talk.say(1, 1 + 12 * MSS)  # all that was out when the loss was noticed
    assert all(seq >= 1 + 12 * MSS for _, seq, _, _ in answers) and answers
    assert socket(talk).info().retransmits == 2


def test_not_every_old_ack_is_a_duplicate(talk: Talk) -> None:
    """Window updates, data and old numbers are no sign of loss (RFC 5681, section 2)."""
    queue(talk, bytes(20000))
    for window in (60000, 50000, 40000, 60000):
        talk.say(1, 1, window=window)
    for number in range(5):
        talk.say(1 + number, 1, window=60000, data=b"x")
    assert socket(talk).info().retransmits == 0


def test_timeout_goes_back(talk: Talk) -> None:
    """After a timeout one segment goes again, and slow start from there (RFC 5681, 3.1)."""
    queue(talk, bytes(20000))
    assert talk.after(0.25) == [(ACK, 1, 1, MSS)]
    assert talk.say(1, 1 + MSS) == [(ACK, 1 + MSS, 1, MSS), (ACK, 1 + 2 * MSS, 1, MSS)]
    answers = talk.say(1, 1 + 10 * MSS)  # the rest had arrived
    assert answers[0][1] == 1 + 10 * MSS


def test_zero_window_probes(talk: Talk) -> None:
    """RFC 9293, 3.8.6.1: one byte at a time into a closed window, for ever while it is answered."""
    talk.say(1, 1, window=0)
    assert queue(talk, b"hello") == []
    probes = talk.after(0.25)
    assert probes == [(ACK | PSH, 1, 1, 1)]
    for _ in range(20):
        talk.say(1, 1, window=0)
        assert {each[1:] for each in talk.after(61)} == {(1, 1, 1)}
    assert state(talk) == "established"
    assert talk.say(1, 1, window=1000) == [(ACK | PSH, 1, 1, 5)]


def test_words_after_a_probe_stay_inside_the_window(talk: Talk) -> None:
    """A probe's byte does not count: beyond a closed window a peer believes neither our ACK nor our
    reset (RFC 9293, 3.10.7.4; RFC 5961, 3.2)."""
    talk.say(1, 1, window=0)
    queue(talk, b"hello")
    assert talk.after(0.25) == [(ACK | PSH, 1, 1, 1)]
    talk.say(1, 1, data=bytes(MSS), window=0)
    assert talk.say(1 + MSS, 1, data=bytes(MSS), window=0) == [(ACK, 1, 1 + 2 * MSS, 0)]
    socket(talk).abort()
    [reset] = talk.peer.segments()
    assert (reset.flags, (reset.seq - talk.irs) % 2**32) == (RST | ACK, 1)


def test_zero_window_without_an_answer(talk: Talk) -> None:
    """A peer that does not even answer probes is given up."""
    talk.say(1, 1, window=0)
    queue(talk, b"hello")
    talk.after(1000)
    assert state(talk) == "closed"


def test_small_window(talk: Talk) -> None:
    """No silly windows: wait for a full segment, half the largest window, or the timer."""
    talk.say(1, 1, window=100)
    assert queue(talk, bytes(5000)) == []
    assert [each[3] for each in talk.after(0.25)] == [100]


def test_nagle() -> None:
    """With the option, a small segment waits while another is in flight (RFC 9293, 3.7.4)."""
    with Peer(nagle=True) as peer:
        listener = peer.stack.listen(80)
        talk = Talk(peer)
        talk.open()
        talk.socket = listener.accept(timeout=0)  # type: ignore[attr-defined]
        assert queue(talk, b"a") == [(ACK | PSH, 1, 1, 1)]
        assert queue(talk, b"b") == []
        assert queue(talk, b"c") == []
        assert talk.say(1, 2) == [(ACK | PSH, 2, 1, 2)]
        assert len(queue(talk, bytes(MSS))) == 1  # a full one does not wait


def test_path_mtu(talk: Talk) -> None:
    """RFC 1191: «fragmentation needed» makes segments smaller, not below what all hosts take."""
    queue(talk, bytes(MSS))
    def too_big(mtu: int, seq: int = 1) -> list[Segment]:
        quoted = tcp(80, 5000, talk.irs + seq, 0, ACK, source=STACK, target=PEER)[:8]
        return [parse_tcp(frame) for frame in talk.peer.give(ipv4(icmp(3, 4, struct.pack(
            "!HH", 0, mtu) + ipv4(quoted, 6, STACK, PEER, total=1500)), 1))]
    assert too_big(1000, seq=1 + 2 * MSS) == []  # not about anything in flight
    assert [len(segment.data) for segment in too_big(1000)] == [960, 500]
    assert too_big(1200) == []
    assert {len(segment.data) for segment in too_big(68)} == {536, 388}


# ---- closing ----------------------------------------------------------------------------------

def test_close_by_us(talk: Talk) -> None:
    """RFC 9293, 3.6, figure 12, left side; a repeated FIN of the peer is acknowledged again."""
    connection = socket(talk)
    connection.shutdown()
    assert talk.after(0) == [(FIN | ACK, 1, 1, 0)]
    assert state(talk) == "fin-wait-1"
    assert talk.say(1, 2) == []
    assert state(talk) == "fin-wait-2"
    assert talk.say(1, 2, data=b"still") == []
    assert talk.say(6, 2, FIN | ACK) == [(ACK, 2, 7, 0)]
    assert state(talk) == "time-wait"
    assert talk.say(6, 2, FIN | ACK) == [(ACK, 2, 7, 0)]
    assert talk.say(7, 2) == []
    assert connection.recv(timeout=0) == b"still"
    assert connection.recv(timeout=0) == b""


def test_close_by_the_peer(talk: Talk) -> None:
    """RFC 9293, 3.6, figure 12, right side."""
    assert talk.say(1, 1, FIN | ACK, data=b"bye") == [(ACK, 1, 5, 0)]
    assert state(talk) == "close-wait"
    assert socket(talk).recv(timeout=0) == b"bye"
    assert socket(talk).recv(timeout=0) == b""
    assert queue(talk, b"you too") == [(ACK | PSH, 1, 5, 7)]
    socket(talk).shutdown()
    assert talk.after(0) == [(FIN | ACK, 8, 5, 0)]
    assert state(talk) == "last-ack"
    assert talk.say(5, 9) == []
    assert state(talk) == "closed"
    assert talk.say(5, 9, data=b"x") == [(RST, 9, 0, 0)]


def test_simultaneous_close(talk: Talk) -> None:
    """RFC 9293, 3.6, figure 13: FINs cross, both sides pass CLOSING."""
    socket(talk).shutdown()
    assert talk.after(0) == [(FIN | ACK, 1, 1, 0)]
    assert talk.say(1, 1, FIN | ACK) == [(ACK, 2, 2, 0)]
    assert state(talk) == "closing"
    assert talk.say(2, 2) == []
    assert state(talk) == "time-wait"


def test_fin_with_the_ack_of_ours(talk: Talk) -> None:
    """One segment that acknowledges our FIN and brings theirs ends it at once."""
    socket(talk).shutdown()
    talk.after(0)
    assert talk.say(1, 2, FIN | ACK) == [(ACK, 2, 2, 0)]
    assert state(talk) == "time-wait"


def test_early_fin(talk: Talk) -> None:
    """A FIN ahead of missing data counts when the data is there."""
    assert talk.say(6, 1, FIN | ACK, data=b"world") == [(ACK, 1, 1, 0)]
    assert state(talk) == "established"
    assert talk.say(1, 1, data=b"hello") == [(ACK, 1, 12, 0)]
    assert state(talk) == "close-wait"
    assert socket(talk).recv(timeout=0) == b"helloworld"


def test_fin_is_repeated(talk: Talk) -> None:
    """A FIN is retransmitted like data."""
    socket(talk).shutdown()
    talk.after(0)
    assert talk.after(0.25) == [(FIN | ACK, 1, 1, 0)]


def test_fin_behind_a_window_that_closed(talk: Talk) -> None:
    """Data and FIN are out when the window closes: both are repeated until acknowledged."""
    connection = socket(talk)
    assert connection.send(b"hello", timeout=0) == 5
    connection.shutdown()
    assert talk.after(0) == [(ACK | PSH, 1, 1, 5), (FIN | ACK, 6, 1, 0)]
    assert talk.say(1, 1, window=0) == []
    assert {each[1:] for each in talk.after(2)} == {(1, 1, 1)}  # probes
    assert talk.say(1, 6, window=0) == [(FIN | ACK, 6, 1, 0)]  # a FIN needs no window
    assert talk.after(0.25) == [(FIN | ACK, 6, 1, 0)]
    assert talk.say(1, 7) == []
    assert state(talk) == "fin-wait-2"


def test_data_for_nobody(talk: Talk) -> None:
    """RFC 1122, 4.2.2.13: data that comes after close is answered with a reset."""
    socket(talk).close()
    assert talk.after(0) == [(FIN | ACK, 1, 1, 0)]
    assert talk.say(1, 2) == []
    assert talk.say(1, 2, data=b"lost") == [(RST | ACK, 2, 1, 0)]
    assert talk.peer.stack.stats().tcp_open == 0


def test_a_peer_that_never_closes(talk: Talk) -> None:
    """FIN-WAIT-2 without an owner ends after a minute."""
    socket(talk).close()
    talk.after(0)
    talk.say(1, 2)
    talk.after(59)
    assert talk.peer.stack.stats().tcp_open == 1
    talk.after(2)
    assert talk.peer.stack.stats().tcp_open == 0


def test_a_peer_that_never_reads(talk: Talk) -> None:
    """A closed connection whose data nobody takes is given up, however well probes are answered."""
    talk.say(1, 1, window=0)
    queue(talk, b"hello")
    socket(talk).close()
    for _ in range(40):
        if talk.after(30):
            talk.say(1, 1, window=0)
    assert talk.peer.stack.stats().tcp_open == 0


# ---- attacks and accidents ----------------------------------------------------------------------

def test_resets(talk: Talk) -> None:
    """RFC 5961, section 3: the exact number resets, another in the window is challenged."""
    assert talk.say(2, 0, RST) == [(ACK, 1, 1, 0)]
    assert talk.say(60000, 0, RST) == [(ACK, 1, 1, 0)]
    assert talk.say(70000, 0, RST) == []
    assert talk.say(0, 0, RST) == []
    assert state(talk) == "established"
    assert talk.say(1, 0, RST) == []
    assert state(talk) == "closed"
    with pytest.raises(ConnectionReset):
        socket(talk).recv(timeout=0)


def test_syn_on_a_connection(talk: Talk) -> None:
    """RFC 5961, section 4: any SYN is challenged; a peer that lost its memory then resets."""
    for seq in (1, 0, 500, 2**31):
        assert talk.say(seq, 0, SYN) == [(ACK, 1, 1, 0)]
    assert state(talk) == "established"


def test_acks_out_of_range(talk: Talk) -> None:
    """RFC 5961, section 5: ACKs of what was never sent, or of long ago, are challenged."""
    queue(talk, b"hello")
    assert talk.say(1, 7, data=b"evil") == [(ACK, 6, 1, 0)]
    assert talk.say(1, 2**31, data=b"evil") == [(ACK, 6, 1, 0)]
    assert talk.say(1, -70000, data=b"evil") == [(ACK, 6, 1, 0)]
    with pytest.raises(WouldBlock):
        socket(talk).recv(timeout=0)


def test_challenges_are_limited(talk: Talk) -> None:
    """RFC 5961, section 7: ten per connection and second, so that loops and amplifiers starve."""
    assert len(talk.peer.segments(*[talk.packet(1, 0, SYN)] * 50)) == 10
    talk.after(1)
    assert len(talk.say(1, 0, SYN)) == 1


def test_no_flags_no_ack(talk: Talk) -> None:
    """A segment without ACK is dropped (RFC 9293, 3.10.7.4, fifth)."""
    assert talk.say(1, 0, 0, data=b"evil") == []
    assert talk.say(1, 0, FIN) == []
    assert state(talk) == "established"


def test_broken_segments(talk: Talk) -> None:
    """Wrong checksums and impossible header lengths are counted and dropped."""
    good = talk.packet(1, 1, data=b"evil")
    stack = talk.peer.stack
    before = stack.stats().dropped_malformed
    broken = [good[:16] + b"\x12\x34" + good[18:], good[:19], good[:12] + b"\x40" + good[13:],
              good[:12] + b"\xf0" + good[13:], tcp(0, 80, 1, 1, SYN), tcp(5000, 0, 1, 1, SYN), b""]
    for packet in broken:
        assert talk.peer.segments(packet) == []
    assert stack.stats().dropped_malformed == before + len(broken)


def test_keep_alive_probe_is_answered(talk: Talk) -> None:
    """RFC 9293, 3.8.4: a segment one byte before the window gets an ACK."""
    assert talk.say(0, 1) == [(ACK, 1, 1, 0)]
    assert talk.say(0, 1, data=b"x") == [(ACK, 1, 1, 0)]


def test_syn_flood(peer: Peer, listener: Listener) -> None:
    """A flood of SYNs costs bounded memory, and a peer that answers gets in a second later."""
    memory = peer.stack.stats().memory
    peer.segments(*[tcp(10000 + number, 80, 1, 0, SYN) for number in range(1000)])
    assert peer.stack.stats().tcp_open == 4
    assert peer.stack.stats().memory < memory + 8192
    peer.after(1.5)
    Talk(peer).open()
    assert listener.accept(timeout=0).info().remote == (PEER, 5000)


def finished(talk: Talk) -> None:
    """Close from our side until TIME-WAIT; our numbers end at 2, theirs too."""
    socket(talk).close()
    talk.after(0)
    assert talk.say(1, 2, FIN | ACK) == [(ACK, 2, 2, 0)]


def test_time_wait_is_reused(talk: Talk) -> None:
    """RFC 6191 without timestamps: a SYN above the old numbers opens anew, with an ISN above."""
    finished(talk)
    [answer] = talk.peer.segments(talk.packet(3, 0, SYN))
    assert answer.flags == SYN | ACK
    assert 0 < (answer.seq - talk.irs - 2) % 2**32 < 2**31


def test_time_wait_holds(talk: Talk) -> None:
    """A SYN of old numbers, data and FINs get the last ACK; an exact reset ends it."""
    finished(talk)
    assert talk.say(0, 0, SYN) == [(ACK, 2, 2, 0)]
    assert talk.say(1, 2, ACK, data=b"old") == [(ACK, 2, 2, 0)]
    assert talk.say(2, 2) == []
    assert talk.say(3, 0, RST) == []
    assert talk.say(1, 2, FIN | ACK) == [(ACK, 2, 2, 0)]
    assert talk.say(2, 0, RST) == []
    assert talk.say(2, 2) == [(RST, 2, 0, 0)]


def test_time_wait_ends(talk: Talk) -> None:
    """After the option's time the numbers are free."""
    finished(talk)
    memory = talk.peer.stack.stats().memory
    talk.after(62)
    assert talk.peer.stack.stats().memory < memory
    assert talk.say(2, 2) == [(RST, 2, 0, 0)]


def test_address_change_ends_connections(talk: Talk) -> None:
    """Connections of an address that is no longer ours cannot go on."""
    talk.peer.stack.configure("10.0.0.9/24")
    with pytest.raises(Unreachable):
        socket(talk).recv(timeout=0)
