"""The web server over a fake network, under address and undefined-behaviour sanitizers.

The fake decides each piece of input and each window; :class:`Answer` is an independent reading of
the answers, and where a rule has a reference in the standard library it is compared with that.
"""

from __future__ import annotations

import dataclasses
import email.utils
import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_app import Fake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BIG = bytes((i * 2654435761 % 2**32 >> 13) & 255 for i in range(300000))
HOST = "Host: test\r\n"


@dataclasses.dataclass
class Answer:
    """One answer read from a stream, strictly."""

    status: int
    fields: dict[str, str]
    body: bytes


def read(stream: bytes, heads: int = 0) -> list[Answer]:
    """Split a stream into answers; the first ``heads`` have no body (they answer HEAD)."""
    answers = []
    while stream:
        head, found, stream = stream.partition(b"\r\n\r\n")
        assert found, f"no end of head: {head!r}"
        first, *lines = head.decode("ascii").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([1-5]\d\d) [A-Za-z -]+", first)
        assert match, first
        fields: dict[str, str] = {}
        for line in lines:
            match_field = re.fullmatch(r"([A-Za-z-]+): (\S(?:.*\S)?)", line)
            assert match_field, line
            assert match_field[1].lower() not in fields
            fields[match_field[1].lower()] = match_field[2]
        status = int(match[1])
        size = 0 if status == 304 or len(answers) < heads else int(fields["content-length"])
        assert len(stream) >= size, "the body is short"
        answers.append(Answer(status, fields, stream[:size]))
        stream = stream[size:]
    return answers


def ask(http: Fake, head: str, i: int = 0) -> Answer:
    """Send one request and return its one answer."""
    http.data(head.encode("latin-1") + b"\r\n", i)
    _, out = http.out(i)
    answers = read(out, heads=head.startswith("HEAD"))
    assert len(answers) == 1, out
    return answers[0]


def get(http: Fake, target: str, fields: str = "") -> Answer:
    """GET a target."""
    return ask(http, f"GET {target} HTTP/1.1\r\n{HOST}{fields}")


def test_a_file_comes_with_type_length_tag_and_date(http: Fake) -> None:
    """What a browser needs to show and to cache a file."""
    answer = get(http, "/")
    assert (answer.status, answer.body) == (200, b"<h1>hi</h1>\n")
    assert answer.fields["content-type"] == "text/html; charset=utf-8"
    assert answer.fields["etag"] == '"0123456789abcdef"'
    assert answer.fields["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"  # RFC 9110's own example
    assert "connection" not in answer.fields
    assert http.out()[0] == "o"


@pytest.mark.parametrize("days", [0, 30, 58, 59, 60, 424, 8000, 11016, 11017, 20000, 40000])
def test_dates_agree_with_the_standard_library(http: Fake, days: int) -> None:
    """Leap years and month ends are where such code is wrong."""
    start = 784111777
    http.pass_ms(29_000)  # the clock moves in steps the 32-bit command can carry
    for _ in range(days * 86400 // 4_000_000):
        http.pass_ms(4_000_000_000)
    http.connect()
    passed = 29 + days * 86400 // 4_000_000 * 4_000_000
    assert get(http, "/").fields["date"] == email.utils.formatdate(start + passed, usegmt=True)


def test_head_has_the_fields_of_get_and_no_body(http: Fake) -> None:
    """RFC 9110, section 9.3.2."""
    full = get(http, "/")
    head = ask(http, f"HEAD / HTTP/1.1\r\n{HOST}")
    assert (head.status, head.fields, head.body) == (200, full.fields, b"")


def test_pipelined_requests_are_answered_in_order(http: Fake) -> None:
    """Several requests in one piece, one of them large."""
    http.data(f"GET /empty HTTP/1.1\r\n{HOST}\r\nGET /big.bin HTTP/1.1\r\n{HOST}\r\n"
              f"GET /nothing HTTP/1.1\r\n{HOST}\r\nGET / HTTP/1.1\r\n{HOST}\r\n".encode())
    answers = read(http.out()[1])
    assert [answer.status for answer in answers] == [200, 200, 404, 200]
    assert answers[1].body == BIG


def test_a_peer_that_does_not_read_costs_no_further_requests(http: Fake) -> None:
    """Back pressure: with a closed window nothing more is read; each opening sends that much."""
    http.window(0)
    http.data(f"GET /big.bin HTTP/1.1\r\n{HOST}\r\nGET / HTTP/1.1\r\n{HOST}\r\n".encode())
    stream = b""
    assert http.out() == ("o", b"")
    for size in (1, 7, 100, 2000, 50000, 1, 10**6):
        http.window(size)
        state, out = http.out()
        assert state == "o" and len(out) <= size
        stream += out
    assert [answer.body for answer in read(stream)] == [BIG, b"<h1>hi</h1>\n"]


def test_decoded_paths_find_files(http: Fake) -> None:
    """Percent-encoding, queries, dot segments and repeated slashes lead to the same file."""
    for target in ("/a%20b/x.txt", "/a%20b/x.txt?q=%zz", "/a%20b/./x.txt", "/css/../a%20b/x.txt",
                   "//a%20b///x.txt", "/a%20b/%2e/x.txt", "/%61%20b/y/%2E%2e/x.txt",
                   "http://test/a%20b/x.txt", "HTTP://elsewhere:99/a%20b/x.txt"):
        assert get(http, target).body == b"spaces\n", target


def test_folders_have_an_index_and_a_slash(http: Fake) -> None:
    """A folder without slash moves to the one with it; relative links then work."""
    assert get(http, "/css/").body == b"<p>css\n"
    for target in ("/css/.", "/css/x/.."):
        assert get(http, target).body == b"<p>css\n"
    answer = get(http, "//css?x")
    assert (answer.status, answer.fields["location"]) == (301, "/css/")


@pytest.mark.parametrize("target", ["/..", "/../index.html", "/css/../../x", "/%2e%2e/x", "/%",
                                    "/%4", "/%zz", "/%00", "/a%2fb", "/%0d%0aX:y", "x", "*",
                                    "http:/", "/\x01", "/a\x7fb", "/?\x00"])
def test_paths_that_climb_or_lie_are_refused(http: Fake, target: str) -> None:
    """Nothing outside the packed files has a name, and nothing is decoded twice."""
    assert get(http, target).status == 400
    assert http.out()[0] == "s"


@pytest.mark.parametrize("head", [
    "GET / HTTP/1.1\r\n",                                      # no Host
    f"GET / HTTP/1.1\r\n{HOST}{HOST}",                         # two
    f"GET /  HTTP/1.1\r\n{HOST}", f" GET / HTTP/1.1\r\n{HOST}", f"GET / HTTP/1.1 \r\n{HOST}",
    f"GET /\r\n{HOST}", f"GET / HTTP/1.x\r\n{HOST}", f"GET / HTTP/11\r\n{HOST}",
    f"GET / http/1.1\r\n{HOST}", f"G@T / HTTP/1.1\r\n{HOST}",
    f"GET / HTTP/1.1\r\n{HOST}a b: c\r\n", f"GET / HTTP/1.1\r\n{HOST}a : c\r\n",
    f"GET / HTTP/1.1\r\n{HOST} folded\r\n", f"GET / HTTP/1.1\r\n{HOST}: c\r\n",
    f"GET / HTTP/1.1\r\n{HOST}a: b\x00\r\n", f"GET / HTTP/1.1\r\n{HOST}a: b\rc\r\n",
    f"GET / HTTP/1.1\n{HOST}", f"GET / HTTP/1.1\r\n{HOST}a: b\nc: d\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Content-Length: 1x\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Content-Length:\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Content-Length: -1\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 2\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Content-Length: 99999999999999999999\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
    "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
])
def test_malformed_heads_get_400_and_the_end(http: Fake, head: str) -> None:
    """What two readers could understand in two ways is not understood at all (RFC 9112, 11.2)."""
    answer = ask(http, head)
    assert (answer.status, answer.fields["connection"]) == (400, "close")
    assert http.out()[0] == "s"


@pytest.mark.parametrize(("head", "status"), [
    (f"GET / HTTP/2.0\r\n{HOST}", 505), (f"GET / HTTP/0.9\r\n{HOST}", 505),
    (f"GET / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n", 501),
    (f"GET /{'a' * 2100} HTTP/1.1\r\n{HOST}", 414),
    (f"GET /{'a' * 1100} HTTP/1.1\r\n{HOST}", 414),
    (f"GET /{'a' * 9000} HTTP/1.1\r\n{HOST}", 414),
    (f"GET / HTTP/1.1\r\n{HOST}a: {'b' * 9000}\r\n", 431),
    (f"GET / HTTP/1.1\r\n{HOST}" + "a: b\r\n" * 101, 431),
])
def test_limits_have_their_own_status(http: Fake, head: str, status: int) -> None:
    """A client learns what was too much."""
    assert ask(http, head).status == status
    assert http.out()[0] == "s"


@pytest.mark.parametrize("request_line", ["POST /", "PUT /x", "DELETE /", "OPTIONS *",
                                          "CONNECT a:80", "get /", "HEADS /"])
def test_other_methods_are_named_as_not_allowed(http: Fake, request_line: str) -> None:
    """405 with Allow; the body is thrown away and the connection goes on."""
    http.data(f"{request_line} HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nabc".encode())
    http.data(f"deGET / HTTP/1.1\r\n{HOST}\r\n".encode())
    answers = read(http.out()[1])
    assert [answer.status for answer in answers] == [405, 200]
    assert answers[0].fields["allow"] == "GET, HEAD"


def test_persistence_follows_version_and_connection_field(http: Fake) -> None:
    """RFC 9112, section 9.3."""
    cases = [("1.1", "", "o", None), ("1.1", "Connection: close\r\n", "s", "close"),
             ("1.1", "Connection: foo, CLOSE\r\n", "s", "close"), ("1.0", "", "s", "close"),
             ("1.0", "Connection: keep-alive\r\n", "o", "keep-alive"),
             ("1.1", "Connection: keep-alive, close\r\n", "s", "close"),
             ("1.1", "Connection: closed\r\n", "o", None)]
    for i, (version, field, state, said) in enumerate(cases):
        http.connect(i)
        answer = ask(http, f"GET / HTTP/{version}\r\n{HOST}{field}", i)
        assert answer.fields.get("connection") == said, field
        assert http.out(i)[0] == state, field


def test_after_the_last_answer_late_data_is_swallowed(http: Fake) -> None:
    """Resetting at once could destroy the answer on its way (RFC 9112, section 9.6)."""
    ask(http, f"GET / HTTP/1.1\r\n{HOST}Connection: close\r\n")
    http.data(b"late" * 1000)
    assert http.out() == ("s", b"")
    http.fin()
    assert http.out() == ("c", b"")
    http.connect()
    ask(http, f"GET / HTTP/1.1\r\n{HOST}Connection: close\r\n")
    http.pass_ms(5000)  # a peer that never ends is not waited for
    assert http.out() == ("a", b"")


@pytest.mark.parametrize(("given_tags", "status"), [
    ('"0123456789abcdef"', 304), ('W/"0123456789abcdef"', 304), ("*", 304),
    ('"x", "0123456789abcdef"', 304), ('"a,b" ,W/"c",\t"0123456789abcdef"', 304),
    ('"0123456789abcde"', 200), ('0123456789abcdef', 200), ('"0123456789abcdef', 200),
    ('"', 200), ("W/", 200), (",", 200), ("", 200)])
def test_if_none_match(http: Fake, given_tags: str, status: int) -> None:
    """A browser that has the file gets 304, whatever list it sends; nonsense is ignored."""
    answer = get(http, "/", f"If-None-Match: {given_tags}\r\n")
    assert answer.status == status
    assert answer.fields["etag"] == '"0123456789abcdef"'
    assert (answer.body == b"") == (status == 304)


@pytest.mark.parametrize(("spec", "status", "part"), [
    ("bytes=0-0", 206, slice(0, 1)), ("bytes=5-99", 206, slice(5, 100)),
    ("bytes=299999-", 206, slice(299999, None)), ("bytes=1-", 206, slice(1, None)),
    ("bytes=-5", 206, slice(-5, None)), ("bytes=-400000", 206, slice(0, None)),
    ("bytes=7-99999999999999999999999", 206, slice(7, None)),
    ("bytes=300000-", 416, None), ("bytes=99999999999999999999999-", 416, None),
    ("bytes=-0", 416, None), ("bytes=0-1,3-4", 200, None), ("bytes=5-4", 200, None),
    ("bytes=a-b", 200, None), ("bytes=-", 200, None), ("bytes=1", 200, None),
    ("bytes=--1", 200, None), ("bytes=1-2x", 200, None), ("lines=1-2", 200, None),
    ("bytes=", 200, None), ("bytes=1- 2", 200, None)])
def test_ranges(http: Fake, spec: str, status: int, part: slice | None) -> None:
    """RFC 9110, section 14: one range is served, nonsense ignored, the impossible said so."""
    answer = get(http, "/big.bin", f"Range: {spec}\r\n")
    assert answer.status == status
    if part is not None:
        start, stop, _ = part.indices(len(BIG))
        assert answer.body == BIG[part]
        assert answer.fields["content-range"] == f"bytes {start}-{stop - 1}/{len(BIG)}"
    elif status == 416:
        assert answer.fields["content-range"] == f"bytes */{len(BIG)}"
    else:
        assert answer.body == BIG


def test_if_range_needs_the_very_same_file(http: Fake) -> None:
    """A resumed download of a changed file starts over."""
    tag = get(http, "/big.bin").fields["etag"]
    for value, status in ((tag, 206), ("W/" + tag, 200), ('"other"', 200),
                          ("Sun, 06 Nov 1994 08:49:37 GMT", 200)):
        answer = get(http, "/big.bin", f"Range: bytes=0-9\r\nIf-Range: {value}\r\n")
        assert answer.status == status, value


def test_an_empty_file_has_no_range(http: Fake) -> None:
    """Size 0 is where off-by-one lives."""
    assert get(http, "/empty").body == b""
    for spec in ("bytes=0-0", "bytes=-1", "bytes=0-"):
        assert get(http, "/empty", f"Range: {spec}\r\n").status == 416


def test_status_speaks_json_and_html(http: Fake) -> None:
    """Both pages hold the same numbers; the HTML is well-formed enough for a strict reader."""
    numbers = json.loads(get(http, "/status.json").body)
    assert numbers["components"] == ["alloc.fake", "net.fake"]
    assert numbers["network"]["frames_in"] == 2**64 - 1
    assert numbers["http"]["requests"] == 1
    answer = get(http, "/status")
    assert answer.fields["cache-control"] == "no-store"
    seen: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_data(self, data: str) -> None:
            seen.append(data.strip())

    Reader().feed(answer.body.decode())
    for group in ("memory", "tasks", "network"):
        start = seen.index(group) + 1
        for name, value in numbers[group].items():
            assert seen[seen.index(name, start) + 1] == str(value)


def test_idle_connections_end_quietly_and_slow_requests_with_408(http: Fake) -> None:
    """Idle 30 s; a head has 10 s in all, however it trickles."""
    http.connect(1)
    http.data(b"GET / HT", 1)
    for _ in range(4):
        http.pass_ms(2000)
        http.data(b"x", 1)
        assert http.out(1) == ("o", b"")
    http.pass_ms(5000)
    state, out = http.out(1)
    assert state == "s" and [answer.status for answer in read(out)] == [408]
    assert http.out(0) == ("o", b"")
    http.pass_ms(20000)
    assert http.out(0) == ("c", b"")
    http.connect()
    assert get(http, "/").status == 200  # the timer runs again


def test_a_peer_that_stops_reading_is_dropped(http: Fake) -> None:
    """A blocked answer does not hold its memory for ever."""
    http.window(100)
    http.data(f"GET /status HTTP/1.1\r\n{HOST}\r\n".encode())
    http.pass_ms(29000)
    assert http.out()[0] == "o"
    http.window(10)  # progress grants more time
    http.pass_ms(29000)
    assert http.out()[0] == "o"
    http.pass_ms(3000)
    assert http.out()[0] == "a"


def test_resets_and_ends_at_any_byte_leave_nothing_behind(http: Fake) -> None:
    """The leak check at the program's end looks over every one of these."""
    request = f"GET /status HTTP/1.1\r\n{HOST}\r\n".encode()
    for cut in range(0, len(request) + 1, 3):
        for end in (http.fin, http.reset):
            for window in (0, 5, 1 << 20):
                http.connect(1)
                http.window(window, 1)
                http.data(request[:cut], 1)
                end(1)
                state, _ = http.out(1)
                if end is http.reset:
                    assert state == "a"
    http.pass_ms(40000)


requests = st.one_of(
    st.sampled_from([f"GET / HTTP/1.1\r\n{HOST}\r\n", f"HEAD /css/ HTTP/1.1\r\n{HOST}\r\n",
                     f"GET /big.bin HTTP/1.1\r\n{HOST}Range: bytes=10-300\r\n\r\n",
                     f"POST / HTTP/1.1\r\n{HOST}Content-Length: 12\r\n\r\nhello world!", "\r\n",
                     f"GET /x HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", "\r",
                     f"GET / HTTP/1.1\r\n{HOST}x: {'y' * 3000}\r\n\r\n"]).map(str.encode),
    st.binary(max_size=30),
)


@settings(max_examples=120, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(requests, max_size=6), cuts=st.lists(st.integers(1, 400), max_size=40),
       noise=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=3),
       windows=st.lists(st.integers(1, 700), max_size=8))
def test_answers_do_not_depend_on_how_the_bytes_arrive(
        http: Fake, parts: list[bytes], cuts: list[int], noise: list[tuple[int, int]],
        windows: list[int]) -> None:
    """Any stream, mutated anyhow, cut anyhow, under any windows: the same answers, no fault."""
    stream = bytearray(b"".join(parts))
    for at, byte in noise:
        if stream:
            stream[at % len(stream)] = byte
    http.connect(1)
    http.data(bytes(stream), 1)
    whole = http.out(1)
    http.connect(2)
    got = b""
    if windows:
        http.window(0, 2)
    rest = bytes(stream)
    for cut in cuts:
        http.data(rest[:cut], 2)
        rest = rest[cut:]
    http.data(rest, 2)
    for size in windows:
        http.window(size, 2)
        got += http.out(2)[1]
    http.window(1 << 30, 2)
    state, out = http.out(2)
    assert (state, got + out) == whole
    for i in (1, 2):
        http.fin(i)


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(target=st.text(st.sampled_from("/.%2eEfF5cs aindexhtml?b"), max_size=30))
def test_paths_agree_with_a_reference(http: Fake, target: str) -> None:
    """The standard library's reading of a path decides which file, if any, is meant."""
    import posixpath
    import urllib.parse
    target = "/" + target.replace(" ", "")
    http.connect(1)
    http.data(f"GET {target} HTTP/1.1\r\n{HOST}\r\n".encode(), 1)
    answers = read(http.out(1)[1])
    path = target.partition("?")[0]
    bad = (re.search(r"%(?![0-9A-Fa-f]{2})", path)
           or any(byte < 32 or byte == 127 for byte in urllib.parse.unquote_to_bytes(path))
           or re.search("%2f", path, re.IGNORECASE))
    plain = urllib.parse.unquote_to_bytes(path).decode("latin-1")
    depth = 0
    for segment in plain.split("/"):
        depth += 0 if segment in ("", ".") else -1 if segment == ".." else 1
        bad = bad or depth < 0
    assert len(answers) == 1
    if bad:
        assert answers[0].status == 400
    else:
        name = posixpath.normpath(plain).lstrip("/")
        files = {"": 200, "index.html": 200, "css/index.html": 200, "empty": 200}
        if name == "css":
            assert answers[0].status in (200, 301)
        else:
            folder = plain.endswith(("/", "/.", "/..")) and name != ""
            assert answers[0].status == (404 if folder else files.get(name, 404))
    http.fin(1)


def test_the_bundled_site_is_small_and_keeps_to_itself() -> None:
    """The page is complete without any other server."""
    from unikit import apps
    app = apps.find("http")
    files = dict(app.packed_files())
    page = files["index.html"].read_text()
    assert len(page.encode()) <= 6 * 1024
    assert not re.search(r'(src|href)="(https?:)?//', page)
    for link in re.findall(r'(?:src|href)="/([^"]*)"', page):
        assert link in files or link in ("status", "status.json"), link
    assert "application/json" not in page


def test_programs_are_built_from_what_the_record_says(program: Callable[[str], Path]) -> None:
    """The record names every source: the program links."""
    assert program("http").exists()


@pytest.mark.slow
def test_a_million_bytes_of_nonsense(http: Fake) -> None:
    """Long mutation of real requests, seeded: no fault, no leak, and never a malformed answer."""
    import random
    seeded = random.Random(20261121)
    seeds = [f"GET / HTTP/1.1\r\n{HOST}\r\n", f"HEAD /big.bin HTTP/1.1\r\n{HOST}\r\n",
             f"GET /css/../a%20b/x.txt?q HTTP/1.1\r\n{HOST}If-None-Match: \"a\", W/\"b\"\r\n\r\n",
             f"GET /big.bin HTTP/1.1\r\n{HOST}Range: bytes=10-20\r\nIf-Range: \"x\"\r\n\r\n",
             f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n"]
    for _ in range(20000):
        stream = bytearray(seeded.choice(seeds).encode())
        for _ in range(seeded.randrange(6)):
            at = seeded.randrange(len(stream))
            kind = seeded.randrange(4)
            if kind == 0:
                stream[at] = seeded.randrange(256)
            elif kind == 1:
                del stream[at:at + seeded.randrange(1, 9)]
                stream += b"\r\n"
            elif kind == 2:
                stream[at:at] = seeded.randbytes(seeded.randrange(1, 5))
            else:
                stream[at:at] = stream[seeded.randrange(len(stream)):][:40]
        http.connect()
        for start in range(0, len(stream), 37):
            http.data(bytes(stream[start:start + 37]))
        http.fin()
        state, out = http.out()
        assert state in "sc" and (out == b"" or out.startswith(b"HTTP/1.1 "))
