"""Heads and bodies, as tables of bytes. What two parsers could read differently must be refused."""

from __future__ import annotations

import contextlib
import itertools
import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.chunked import MANY_CHUNKS, Chunks
from gateway.http.http1 import (
    CHUNKED,
    FOLDED,
    LENGTH,
    NO_LENGTH,
    PLAIN,
    SHADOW,
    ProtocolError,
    kind_of,
    parse_request,
    parse_response,
)
from gateway.snapshot import Limits

HOST = b"\r\nHost: a"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: a", (b"GET", b"/", b"a", NO_LENGTH)),
        (b"GET /x?y HTTP/1.1\r\nHost: a:80", (b"GET", b"/x?y", b"a:80", NO_LENGTH)),
        (b"POST / HTTP/1.1\r\nhost:a\r\ncontent-length: 0", (b"POST", b"/", b"a", 0)),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked", (b"POST", b"/", b"a", CHUNKED)),
        (b"GET / HTTP/1.1\r\nHost: [::1]:8080", (b"GET", b"/", b"[::1]:8080", NO_LENGTH)),
        (b"GET http://b/x HTTP/1.1\r\nHost: b", (b"GET", b"/x", b"b", NO_LENGTH)),
        (b"GET http://b HTTP/1.1\r\nHost: b", (b"GET", b"/", b"b", NO_LENGTH)),
        (b"GET HTTP://b?q HTTP/1.1\r\nHost: b", (b"GET", b"/?q", b"b", NO_LENGTH)),
        (b"OPTIONS * HTTP/1.1\r\nHost: a", (b"OPTIONS", b"*", b"a", NO_LENGTH)),
        (b"GET / HTTP/1.0", (b"GET", b"/", b"", NO_LENGTH)),
        (b"PURGE /a HTTP/1.1\r\nHost: a\r\nX-Latin: caf\xe9\r\nX-Tab: a\tb\r\nX-Empty:", (b"PURGE", b"/a", b"a", NO_LENGTH)),
    ],
)
def test_good_requests(head: bytes, expected: tuple) -> None:
    request = parse_request(head)
    assert (request.method, request.target, request.host, request.length) == expected


@pytest.mark.parametrize(
    ("head", "status", "words"),
    [
        # start lines
        (b"", 400, "request line"),
        (b"GET / HTTP/1.1 " + HOST, 400, "request line"),
        (b"GET  / HTTP/1.1" + HOST, 400, "request line"),
        (b" GET / HTTP/1.1" + HOST, 400, "request line"),
        (b"GET /\tHTTP/1.1" + HOST, 400, "request line"),
        (b"GET / http/1.1" + HOST, 400, "request line"),
        (b"GET /" + HOST, 400, "request line"),
        (b"G(T / HTTP/1.1" + HOST, 400, "request line"),
        (b"GET /\x00 HTTP/1.1" + HOST, 400, "request line"),
        (b"GET /caf\xe9 HTTP/1.1" + HOST, 400, "request line"),
        (b"GET /#x HTTP/1.1" + HOST, 400, "characters"),
        (b"GET x HTTP/1.1" + HOST, 400, "neither a path"),
        (b"GET * HTTP/1.1" + HOST, 400, "neither a path"),
        (b"GET ftp://a/ HTTP/1.1" + HOST, 400, "neither a path"),
        (b"GET / HTTP/2.0" + HOST, 505, "HTTP/1.0 and HTTP/1.1"),
        (b"PRI * HTTP/2.0", 505, "HTTP/1.0 and HTTP/1.1"),
        (b"GET / HTTP/1.2" + HOST, 505, "HTTP/1.0 and HTTP/1.1"),
        (b"CONNECT a:1 HTTP/1.1" + HOST, 501, "CONNECT"),
        # fields
        (b"GET / HTTP/1.1\r\nHost : a", 400, "field line 1"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded", 400, "folded"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: 1", 400, "bare CR or LF"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: 1", 400, "bare CR or LF"),
        (b"GET / HTTP/1.1\nHost: a", 400, "request line"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00", 400, "field line 2"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f", 400, "field line 2"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nNo colon", 400, "field line 2"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: empty", 400, "field line 2"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\x80: 1", 400, "field line 2"),
        # Host
        (b"GET / HTTP/1.1\r\nX: y", 400, "Host is missing"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a", 400, "more than once"),
        (b"GET / HTTP/1.1\r\nHost:", 400, "valid host"),
        (b"GET / HTTP/1.1\r\nHost: user@a", 400, "valid host"),
        (b"GET / HTTP/1.1\r\nHost: a, b", 400, "valid host"),
        (b"GET / HTTP/1.1\r\nHost: a/b", 400, "valid host"),
        (b"GET / HTTP/1.1\r\nHost: a:8x", 400, "valid host"),
        (b"GET http://b/ HTTP/1.1\r\nHost: a", 400, "differs"),
        (b"GET http://u@b/ HTTP/1.1\r\nHost: u@b", 400, "valid host"),
        # framing
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1", 400, "more than once"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1", 400, "decimal"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1", 400, "decimal"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1", 400, "decimal"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1", 400, "decimal"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ", 400, "decimal"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999", 400, "decimal"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400, "both"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, "more than once"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked", 501, "chunked"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked", 400, "the last transfer coding"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity", 400, "the last transfer coding"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked", 400, "more than once"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1", 400, "without parameters"),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked", 400, "HTTP/1.0"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: a-miracle", 417, "100-continue"),
    ],
)
def test_bad_requests(head: bytes, status: int, words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_request(head)
    assert caught.value.status == status
    assert words in caught.value.reason


def test_lines_seen_before_are_judged_again() -> None:
    """The memo of lines saves splitting, never validation."""
    parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nX-Known: 1")
    with pytest.raises(ProtocolError):
        parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nX-Known: 1\r\nHost: a")


token = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
value = st.binary(max_size=12).filter(lambda b: all(c == 9 or 32 <= c < 127 or c >= 128 for c in b))
fields = st.lists(st.tuples(token, value), max_size=6)


@given(fields)
def test_what_is_accepted_h11_reads_the_same_way(pairs: list[tuple[bytes, bytes]]) -> None:
    lines = [b"GET /x HTTP/1.1", b"Host: a", *(name + b": " + val for name, val in pairs)]
    try:
        request = parse_request(b"\r\n".join(lines))
    except ProtocolError:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"\r\n".join(lines) + b"\r\n\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (request.method, request.target)
    assert [(f.name, f.value) for f in request.fields] == [(n, v) for n, v in event.headers]


@given(st.binary(max_size=60))
def test_anything_is_parsed_or_refused(junk: bytes) -> None:
    for head in (junk, b"GET / HTTP/1.1\r\nHost: a\r\n" + junk):
        with contextlib.suppress(ProtocolError):
            parse_request(head)


@pytest.mark.parametrize(
    ("head", "status", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3", 200, 3),
        (b"HTTP/1.1 200 ", 200, NO_LENGTH),
        (b"HTTP/1.1 200", 200, NO_LENGTH),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: Chunked", 404, CHUNKED),
    ],
)
def test_responses(head: bytes, status: int, length: int) -> None:
    response = parse_response(head)
    assert (response.status, response.length) == (status, length)


# --- chunked bodies ---

GOOD = b'5\r\nhello\r\n6;ext="v"\r\n world\r\n000\r\nX-Trailer: 1\r\n\r\n'


@given(st.lists(st.integers(1, len(GOOD) - 1), max_size=8))
def test_chunks_split_anywhere(cuts: list[int]) -> None:
    marks = [0, *sorted(set(cuts)), len(GOOD)]
    chunks = Chunks()
    ends = [chunks.feed(GOOD[a:b]) for a, b in itertools.pairwise(marks)]
    assert ends[:-1] == [-1] * (len(ends) - 1)
    assert ends[-1] == marks[-1] - marks[-2]
    assert b"".join(chunks.payload) == b"hello world"


def test_what_follows_a_body_is_not_part_of_it() -> None:
    assert Chunks().feed(GOOD + b"GET / HTTP/1.1\r\n") == len(GOOD)


@pytest.mark.parametrize(
    "body",
    [
        b"-1\r\n", b"+1\r\n", b"0x5\r\n", b" 5\r\n", b"5 \r\n", b"\r\n", b"g\r\n", b"5\n", b"1111111111111111\r\n",
        b"5;\x00\r\n", b"5;a\nb\r\n", b"2\r\nabc\r\n", b"2\r\nab\n", b"0\r\nbad\r\n", b"0\r\nX : 1\r\n", b"0\r\n X: 1\r\n",
        b"0\r\nContent-Length: 1\r\n", b"0\r\nTransfer-Encoding: chunked\r\n", b"0\r\nHost: a\r\n", b"0\r\nX: 1\n",
        b"0\r\nX-Forwarded-For: 1\r\n", b"5;" + b"x" * 5000,
    ],
)  # fmt: skip
def test_bad_chunks(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Chunks().feed(body)


EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b'; a = "\\"b;\\""', b" ;a;b=c"])


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.integers(0, 4), EXTENSIONS)),
    st.sets(st.integers(0, 600)),
    EXTENSIONS,
)
def test_whatever_a_sender_frames_goes_on_in_chunks_of_ours(
    pieces: list[tuple[bytes, int, bytes]], cuts: set[int], last: bytes
) -> None:
    body = b"".join(b"%b%x%b\r\n%b\r\n" % (b"0" * zeros, len(data), ext, data) for data, zeros, ext in pieces)
    body += b"00" + last + b"\r\nX-Sum: 1\r\nContent_Length: 5\r\n\r\n"
    marks = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    chunks = Chunks()
    ends, out = zip(*((chunks.feed(body[a:b]), chunks.framed()) for a, b in itertools.pairwise(marks)), strict=True)
    assert [end for end in ends if end >= 0] == [marks[-1] - marks[-2]]
    content = b""
    for piece in out:  # each is a whole chunk, or nothing, or the end
        while piece:
            head, _, rest = piece.partition(b"\r\n")
            assert re.fullmatch(rb"0|[1-9a-f][0-9a-f]*", head)
            if head == b"0":
                assert rest == b"X-Sum: 1\r\n\r\n"
                break
            size = int(head, 16)
            assert rest[size : size + 2] == b"\r\n"
            content, piece = content + rest[:size], rest[size + 2 :]
    assert content == b"".join(data for data, _, _ in pieces)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"content-length", LENGTH), (b"content_length", SHADOW), (b"content.length", SHADOW), (b"transfer_encoding", SHADOW), (b"x-user", PLAIN),
        (b"x_user", FOLDED), (b"x.user", FOLDED), (b"x-forwarded_for", SHADOW), (b"etag", PLAIN), (b"_host", FOLDED), (b"te_", FOLDED),
        (b"http2_settings", SHADOW),
    ],
)  # fmt: skip
def test_names_that_backends_fold(name: bytes, kind: int) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(("how", "names"), [("Allow", [b"x_user", b"x-user", b"x.user"]), ("Drop", [b"x-user", b"x.user"])])
def test_underscores(how: str, names: list[bytes]) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX_User: 1\r\nX-User: 2\r\nContent_Length: 3\r\nX.User: 4"
    found = parse_request(head, Limits(underscores=how))  # type: ignore[arg-type]
    assert [field.name for field in found.fields] == [b"host", *names]
    with pytest.raises(ProtocolError, match="the name of a field has an underscore: x_user") as caught:
        parse_request(head, Limits(underscores="Reject"))
    assert caught.value.status == 400


@pytest.mark.parametrize("cut", [1, 7, 1000, 100_000])
def test_so_many_chunks_a_turn_and_no_more(cut: int) -> None:
    body = b"".join(b"1\r\n%c\r\n" % (n % 256) for n in range(1000)) + b"0\r\nX-Sum: 1\r\n\r\n"
    chunks, content, at = Chunks(), b"", 0
    while True:
        end, taken = chunks.feed_some(body[at : at + cut])
        assert len(chunks.payload) <= MANY_CHUNKS
        content += chunks.taken()
        assert taken > 0
        at += taken
        if end >= 0:
            break
    assert (at, content) == (len(body), bytes(n % 256 for n in range(1000)))
    assert [trailer.name for trailer in chunks.trailers] == [b"x-sum"]


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (b"/a[1]", b"/a%5B1%5D"), (b"/a%5b1%5D", b"/a%5B1%5D"), (b"/a|b^c", b"/a%7Cb%5Ec"), (b"/{x}//y", b"/%7Bx%7D/y"),
        (b"/a/{x}/../b", b"/a/b"), (b"/%7B", b"/%7B"), (b"/a<b", None), (b'/a"b', None), (b"/a\\b", None), (b"/a`b", None),
    ],
)  # fmt: skip
def test_what_no_uri_may_hold(sent: bytes, path: bytes | None) -> None:
    """One way to write each: what is matched is what is forwarded."""
    head = b"GET %b?q={1} HTTP/1.1\r\nHost: a" % sent
    if path is None:
        with pytest.raises(ProtocolError):
            parse_request(head)
        return
    request = parse_request(head)
    assert (request.path, request.target) == (path, path + b"?q={1}")
