"""Packet scripts: the interpreter sees every kind of mistake, and says where.

Each rule of the language is shown by a script that passes and one that must not.
"""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import unikit.testing.script.model
import unikit.testing.script.run
from unikit.cli import main
from unikit.errors import InvalidArgument
from unikit.testing.script import ScriptError, ScriptResult, parse, run_script
from unikit.testing.script.frames import checksum, option_bytes, options_of
from unikit.testing.script.model import Call, Packet, Pick, Word

pytestmark = pytest.mark.fast

SERVER = """
   0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
  +0 bind(3, ..., ...) = 0
  +0 listen(3, 1) = 0
  +0 < S 0:0(0) win 32792 <mss 1000,nop,wscale 7>
  +0 > S. 0:0(0) ack 1 <mss 1460,nop,wscale 0>
 +.1 < . 1:1(0) ack 1 win 257
  +0 accept(3, ..., ...) = 4
"""
CLIENT = """
   0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
  +0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
  +0 connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)
  +0 > S 0:0(0) <...>
"""


def run(more: str, start: str = SERVER, **how: object) -> ScriptResult:
    return run_script(start + more + "\n", **how)  # type: ignore[arg-type]


def test_doctests() -> None:
    """The examples in the docstrings hold."""
    for module in (unikit.testing.script.model, unikit.testing.script.run):
        assert doctest.testmod(module).failed == 0


# ---- the language ---------------------------------------------------------------------------

def test_parse_takes_all_kinds_of_events() -> None:
    """Packets, calls with an end, code, commands, ranges and any time."""
    script = parse("""--tolerance_usecs=100
        // comment
        `setup`
        0 socket(..., SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP) = 3
        +0...0.2 read(3, ..., 1000) = -1 EAGAIN (Resource temporarily unavailable)
        *  > P. 1:3(2) ack 7 win 5 urg 1 <nop,nop,sack 10:20 30:40>
        +.1~+.2 > SEW 0:0(0) <...>
        /* gone */ 1.5 < [ect0] 5000>80 . 1:1(0) ack 1 win 9 <TS val 1 ecr 2,eol>
        +0 < icmp unreachable frag_needed mtu 600 [1:1001(1000)]
        +0 < udp 5000 > 80 (12)
        +0 %{ assert 1 == 1,
              "two lines" }%
        `cleanup`
    """)
    kinds = [(event.kind, event.at_us, event.until_us) for event in script.events]
    assert kinds == [("relative", 0, None), ("absolute", 0, None), ("relative", 0, None),
                     ("any", 0, None), ("relative", 100000, 200000), ("absolute", 1500000, None),
                     ("relative", 0, None), ("relative", 0, None), ("relative", 0, None)]
    assert script.flags == {"tolerance_usecs": "100"}
    call = script.events[1].action
    assert isinstance(call, Call)
    assert call.arguments[1] == Pick((Word("SOCK_STREAM"), Word("SOCK_NONBLOCK")))
    packet = script.events[3].action
    assert isinstance(packet, Packet)
    assert str(packet) == "> P. 1:3(2) ack 7 win 5 urg 1 <nop,nop,sack 10:20 30:40>"


@pytest.mark.parametrize(("text", "problem"), [
    ("0 < S 0:5(4)", "expected 4 as end"), ("0 < Q 0:0(0)", "expected TCP flags"),
    ("0 < S 0:0(0) <mss>", "expected a number"), ("+.1~+.0 > . 1:1(0)", "backwards"),
    ("* < S 0:0(0)", "open time"), ("0 < S 0:0(0) <...>", "<...> fits"),
    ("x", "expected a time"), ("0 socket(1, 2 = 3", "expected ','"),
    ("0 < S 0:0(0) <mss 70000>", "mss up to"), ("0 socket() 3", "expected '='")])
def test_mistakes_name_the_line(text: str, problem: str) -> None:
    """A script that breaks the language says where and what was expected."""
    with pytest.raises(ScriptError, match=r"script:3: ") as caught:
        parse(f"\n\n{text}\n")
    assert problem in str(caught.value)


def test_conditions_and_definitions() -> None:
    """#ifdef picks lines; a defined word stands for its value, also in the script's own head."""
    text = "--define=N=7\n#ifdef LONG\n0 close(1) = 0\n#else\n0 close(2) = N\n#endif\n"
    assert [str(event.action) for event in parse(text).events] == ["close(2) = 7"]
    assert [str(event.action) for event in parse(text, defines={"LONG": ""}).events] == \
        ["close(1) = 0"]


def test_options_survive_the_wire() -> None:
    """What is written into a header is what is read from it."""
    options = (("mss", 1460), ("nop",), ("wscale", 7), ("sackOK",), ("TS", 1, 2))
    assert options_of(option_bytes(options)) == options
    assert options_of(option_bytes((("sack", (1, 2), (3, 4)),)) + b"\0\0") == \
        (("sack", (1, 2), (3, 4)), ("eol",), ("eol",))[:2]


def test_checksum_is_that_of_the_rfc() -> None:
    """RFC 1071, section 3, and the corner of all zeros and all ones."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert checksum(bytes(4)) == 0xFFFF
    assert checksum(b"\xff\xff") == 0


# ---- running --------------------------------------------------------------------------------

GOOD = """
  +0 write(4, ..., 2500) = 2500
  +0 > . 1:1001(1000) ack 1
  +0 > . 1001:2001(1000) ack 1
  +0 > P. 2001:2501(500) ack 1
 +.1 < . 1:1(0) ack 2501 win 257
  +0 < P. 1:11(10) ack 2501 win 257
 +.04 > . 2501:2501(0) ack 11
  +0 read(4, ..., 100) = 10
  +0 read(4, ..., 100) = -1 EAGAIN
"""


def test_a_conversation_passes() -> None:
    """Handshake, data both ways, delayed acknowledgment at its time."""
    last = "  +0 read(4, ..., 100) = -1"
    more = GOOD.replace(last, "  +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n" + last)
    result = run(more, strict=True)
    assert result.passed, result
    assert 0.2 < result.seconds < 0.3


@pytest.mark.parametrize("base", [0, 0xFFFFFF00])
def test_numbers_may_wrap(base: int) -> None:
    """What a script says holds wherever the peer's numbers begin."""
    assert run("+0 < P. 1:501(500) ack 1 win 257\n +.04 > . 1:1(0) ack 501\n"
               "+0 read(4, ..., 500) = 500", strict=True, remote_base=base).passed


@pytest.mark.parametrize(("right", "wrong", "reason", "seen"), [
    ("1001:2001(1000) ack 1", "1001:2001(1000) ack 2", "another acknowledgment", "ack 1"),
    ("> P. 2001:2501(500)", "> . 2001:2501(500)", "other flags", "> P. 2001:2501(500)"),
    ("+.04 > .", "+.06 > .", "a packet at another time", "0.240000"),
    ("> . 1001:2001(1000)", "> . 1002:2002(1000)", "another sequence number", "1001:2001"),
    ("> . 1:1001(1000)", "> . 1:1000(999)", "another length", "1:1001"),
    ("2501:2501(0) ack 11", "2501:2501(0) ack 11 win 3", "another window", "win 65525"),
    ("2501:2501(0) ack 11", "2501:2501(0) ack 11 <nop,nop,nop,nop>", "another padding", "ack 11"),
    ("write(4, ..., 2500) = 2500", "write(4, ..., 2500) = 2499", "write() gave", "2500"),
    ("= 10", "= -1 ECONNRESET", "read() gave something else", "10"),
    ("= -1 EAGAIN", "= 0", "a call that blocks", "still waiting"),
    (" +.04 > . 2501:2501(0) ack 11", "+.04 > . 2501:2501(0) ack 11\n+9 > . 1:1(0)", "no packet",
     "nothing until 9."),
])
def test_every_difference_fails(right: str, wrong: str, reason: str, seen: str) -> None:
    """A script that passes does not once one thing in it is wrong; both sides are shown."""
    assert right in GOOD
    result = run(GOOD.replace(right, wrong))
    assert result.status == "failed" and result.reason.startswith(reason), result
    assert seen in result.detail and result.detail.startswith("script:")


def test_failures_show_what_else_was_outstanding() -> None:
    """Packets that nobody looked at and a call that waits are part of the story."""
    result = run("+0...5 read(4, ..., 9) = 9\n"
                 "+0 < . 1:1(0) ack 9999 win 257\n +0 > R 9:9(0)\n")
    assert "outstanding: 0.100000 > . 1:1(0) ack 1" in result.detail
    assert "outstanding: read(4, ..., 9) = 9 (line 9)" in result.detail


def test_strict_forbids_what_is_not_mentioned() -> None:
    """By default a packet may stay unread at the end, as packetdrill has it."""
    more = "+0 write(4, ..., 10) = 10\n"
    assert run(more).passed
    assert run(more, strict=True).reason == "a packet that the script does not mention"
    assert run("+0 write(4, ..., 2000) = 2000\n+0 > P. 1:2001(2000) ack 1\n").passed
    assert not run("+0 write(4, ..., 2000) = 2000\n+0 > P. 1:2001(2000) ack 1\n",
                   strict=True).passed


def test_blocking_calls_return_in_virtual_time() -> None:
    """read() and accept() wait while packets come and go, and must return when the script says."""
    text = "+0...0.3 read(4, ..., 9) = 9\n +.3 < P. 1:10(9) ack 1 win 257\n"
    assert run(text).passed
    late = run(text.replace("...0.3", "...0.2"))
    assert late.reason == "a call that returned at another time"
    never = run("+0...0.2 read(4, ..., 9) = 9\n")
    assert never.reason == "a call that blocks"
    early = run(text.replace("...0.3", "...0.4"))
    assert early.reason == "a call that returned at another time"


def test_a_client_connects() -> None:
    """connect() without waiting, its outcome through SO_ERROR and poll()."""
    more = """
     +.1 < S. 0:0(0) ack 1 win 5000 <mss 1000>
      +0 > . 1:1(0) ack 1
      +0 getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
      +0 poll([{fd=3, events=POLLIN|POLLOUT, revents=POLLOUT}], 1, 0) = 1
      +0 connect(3, ..., ...) = 0
      +0 %{ assert tcpi_state == TCP_ESTABLISHED and tcpi_snd_mss == 1000 }%
     +.1 close(3) = 0
      +0 > F. 1:1(0) ack 1
    """
    assert run(more, CLIENT, strict=True).passed
    refused = " +.1 < R. 0:0(0) ack 1 win 0\n +0 connect(3, ..., ...) = -1 {}\n"
    assert run(refused.format("ECONNREFUSED"), CLIENT).passed
    assert not run(refused.format("ETIMEDOUT"), CLIENT).passed


def test_code_sees_the_connection_and_keeps_its_names() -> None:
    """An assertion that fails is a failure; a name that no stack gives is not supported."""
    assert run("+0 %{ before = tcpi_total_retrans }%\n+0 %{ assert before == 0 }%\n").passed
    result = run("+0 %{ assert tcpi_snd_mss == 3, tcpi_snd_mss }%\n")
    assert result.reason == "an assertion" and "seen: 1000" in result.detail
    assert run("+0 %{ assert tcpi_moonphase }%\n").status == "unsupported"


def test_udp_and_icmp() -> None:
    """Datagrams both ways, and the error for a port that nobody has."""
    text = """
       0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 3
      +0 bind(3, ..., ...) = 0
      +0 < udp 5000 > 8080 (10)
      +0 recvfrom(3, ..., 100, 0, ..., ...) = 10
      +0 connect(3, ..., ...) = 0
      +0 write(3, ..., 20) = 20
      +0 > udp (20)
      +0 < udp 5000 > 9 (10)
      +0 > icmp unreachable port_unreachable
      +0 < icmp echo_request id 5
      +0 > icmp echo_reply
    """
    assert run(text, "", strict=True).passed
    assert run(text.replace("> udp (20)", "> udp (21)"), "").reason == "another length"


@pytest.mark.parametrize(("more", "why"), [
    ("+0 < S 0:0(0) win 9 <sackOK>\n+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,nop,nop>", "sack"),
    ("+0 < SEW 0:0(0) win 9\n+0 > SE. 0:0(0) ack 1 <...>", "ecn"),
    ("+0 sendfile(4, 3, 0, 1) = 1", "sendfile()"),
    ("+0 setsockopt(3, SOL_TCP, TCP_CORK, [1], 4) = 0", "setsockopt(TCP_CORK)")])
def test_what_a_stack_lacks_is_no_failure(more: str, why: str) -> None:
    """Counted apart: the stack does not claim it."""
    start = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n" \
            "+0 listen(3, 1) = 0\n"
    result = run(more, start)
    assert (result.status, result.reason) == ("unsupported", why)


def test_heads_state_what_a_script_needs() -> None:
    """A script may ask for features and for options of the stack."""
    plain = "0 < S 0:0(0) win 1000\n+0 > R. 0:0(0) ack 1\n"
    assert run_script("// requires: tcp\n" + plain).passed
    assert run_script("// requires: sack\n" + plain).reason == "sack"
    assert run_script("// options: time_wait=2s\n" + plain).passed
    assert run_script("// options: warp=9\n" + plain).reason == "the option warp"
    assert run_script(plain, ip_version=6).reason == "ipv6"


def test_a_frame_with_a_wrong_checksum_is_seen() -> None:
    """Nothing is taken on trust from the stack: its headers are verified."""
    from unikit.testing.script.frames import BadFrame, decode, ethernet, udp
    frame = ethernet(udp("1.2.3.4", "1.2.3.5", (1, 2), b"abc"), 0x0800, bytes(6))
    assert decode(frame) is not None
    for at in (16, 24, 40, len(frame) - 1):
        with pytest.raises(BadFrame):
            decode(frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1:])


def test_what_is_no_stack() -> None:
    """The stack is a record, its class or its name."""
    with pytest.raises(InvalidArgument):
        run_script("0 < S 0:0(0)\n", net=5)


# ---- the command ----------------------------------------------------------------------------

def test_command_counts_and_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line of counts, then reasons; the status says whether any failed."""
    (tmp_path / "good.pkt").write_text(SERVER)
    (tmp_path / "sack.pkt").write_text(SERVER.replace("mss 1460,nop", "sackOK,mss 1460,nop"))
    assert main(["net", "script", str(tmp_path)]) == 0
    assert "net.mini: 1 of 1 passed, 0 failed, 1 not supported" in capsys.readouterr().out
    (tmp_path / "bad.pkt").write_text(SERVER.replace("S. 0:0(0) ack 1", "S. 0:0(0) ack 2"))
    assert main(["net", "script", "-v", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "1 of 2 passed, 1 failed" in text and "bad.pkt:6: another acknowledgment" in text
    assert main(["net", "script", str(tmp_path), "--json"]) == 1
    assert '"status": "failed"' in capsys.readouterr().out
    assert main(["net", "script", str(tmp_path), "--set", "net.mini.warp=1"]) == 1
    assert "no such option" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert main(["net", "script", str(tmp_path / "none")]) == 1
