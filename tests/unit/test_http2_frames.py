"""HTTP/2 without sockets: whatever bytes come, there is an answer and never an exception; blocks and heads say the same."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.wire import Side, Wire

from gateway.downstream.http2 import DownstreamHttp2
from gateway.http import field_sections
from gateway.http.field_sections import Decoder, Malformed
from gateway.http.http1 import CHUNKED, ProtocolError, parse_request, parse_response
from gateway.http.http2_frames import PREFACE, SETTINGS, frame
from gateway.snapshot import DEFAULT_LIMITS, Attachment, Order, Rule, Target

HELLO = PREFACE + frame(SETTINGS, 0, 0)
RULE = Rule("r", Order(), (Attachment("l", ""),), targets=(Target(1, "b"),))
VALID = field_sections.request_block(b"GET /x HTTP/1.1\r\nHost: a\r\nx-y: z\r\n\r\n", b"http")


def connection() -> tuple[DownstreamHttp2, Wire]:
    side, wire = Side([RULE]), Wire()
    made = DownstreamHttp2(side.listener_port)
    made.connection_made(wire)  # type: ignore[arg-type]
    return made, wire


def feed(pieces: list[bytes]) -> Wire:
    """Everything that comes goes in, until the connection is closed; exceptions go up to the test."""

    async def inner() -> Wire:
        made, wire = connection()
        for piece in pieces:
            if wire.closed:
                break
            made.data_received(piece)
        made.connection_lost(None)
        return wire

    return asyncio.run(inner())


frames = st.builds(
    lambda kind, flags, stream, payload: frame(kind, flags, stream, payload),
    st.integers(0, 12), st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x25, 0x2D, 255]), st.sampled_from([0, 1, 1, 3, 5, 2, 2**31 - 1]),
    st.one_of(st.just(VALID), st.binary(max_size=40), st.just(struct.pack(">HI", 4, 0)), st.just(b"\0\0\0\1"), st.just(b"x" * 8)),
)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(frames, max_size=12))
def test_any_frames(said: list[bytes]) -> None:
    feed([HELLO, *said])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(said: bytes, greeted: bool) -> None:
    feed([HELLO + said if greeted else said])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_cut_anywhere(cuts: list[int]) -> None:
    whole = HELLO + frame(1, 4, 1, VALID) + frame(0, 0, 1, b"abc") + frame(1, 5, 3, VALID) + frame(0, 1, 1, b"d")
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    one, cut_up = feed([whole]), feed([*pieces, whole[at:]])
    assert b"".join(cut_up.sent) == b"".join(one.sent)


names = st.from_regex(r"x-[a-z0-9]{1,12}", fullmatch=True)
values = st.from_regex(r"[!-~]([ -~]{0,40}[!-~])?", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=8), st.from_regex(r"/[a-z0-9/]{0,20}(\?[a-z=&]{0,9})?", fullmatch=True))
def test_a_request_says_the_same_as_a_head_and_as_a_block(fields: list[tuple[str, str]], target: str) -> None:
    head = f"GET {target} HTTP/1.1\r\nHost: a.example\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields) + "\r\n"
    parsed = parse_request(head.encode()[:-4])
    pairs = Decoder(1 << 16).decode(field_sections.request_block(head.encode(), b"https"))
    read = field_sections.request(pairs, DEFAULT_LIMITS, ended=True)
    assert (read.method, read.path, read.query, read.host) == (parsed.method, parsed.path, parsed.query, parsed.host)
    assert [(f.name, f.value) for f in read.fields if f.name.startswith(b"x-")] == [
        (f.name, f.value) for f in parsed.fields if f.name.startswith(b"x-")
    ]


@settings(max_examples=200, deadline=None)
@given(st.integers(200, 599), st.lists(st.tuples(names, values), max_size=8))
def test_a_response_says_the_same_as_a_head_and_as_a_block(status: int, fields: list[tuple[str, str]]) -> None:
    head = f"HTTP/1.1 {status} Why\r\nContent-Length: 3\r\nConnection: close\r\n"
    head += "".join(f"{n}: {v}\r\n" for n, v in fields) + "\r\n"
    parsed = parse_response(head.encode()[:-4])
    read = field_sections.response(
        Decoder(1 << 16).decode(field_sections.response_block(head.encode())), ended=False, head_only=False
    )
    assert (read.status, read.length) == (parsed.status, 3)
    assert [(f.name, f.value) for f in read.fields] == [(f.name, f.value) for f in parsed.fields if f.name != b"connection"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=20)), max_size=6), st.booleans())
def test_whatever_a_block_says_becomes_lines_only_if_lines_can_say_it(pairs: list[tuple[bytes, bytes]], ended: bool) -> None:
    """The heart of it: what passes is parsed by the strict parser of heads as the very same fields."""
    said = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"), *pairs]
    try:
        request = field_sections.request(said, DEFAULT_LIMITS, ended=ended)
    except (Malformed, ProtocolError):
        return
    lines = [field.line for field in request.fields if field.name != b"host"]
    head = b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines])
    again = parse_request(head)
    assert [(f.name, f.value) for f in again.fields if f.name != b"host"] == [
        (f.name, f.value) for f in request.fields if f.name != b"host"
    ]
    assert again.length == request.length


@pytest.mark.parametrize(
    ("pairs", "length"),
    [([], CHUNKED), ([(b"content-length", b"7")], 7), ([(b"content-length", b"0")], 0)],
)
def test_lengths(pairs: list[Any], length: int) -> None:
    said = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"), *pairs]
    assert field_sections.request(said, DEFAULT_LIMITS, ended=False).length == length


def test_a_decoder_knows_when_its_table_has_changed() -> None:
    decoder = Decoder(1 << 16)
    before = decoder.version
    decoder.decode(VALID)
    assert decoder.version == before  # what we send never enters a table
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.version != before
    again = decoder.version
    decoder.decode(b"\x20")  # a table of nothing
    assert decoder.version != again


def test_budget_is_given_back_by_work() -> None:
    async def inner() -> Wire:
        made, wire = connection()
        made.data_received(HELLO)
        backend = made.listener_port.backends("b")
        for n in range(1, 3001, 2):  # many more PINGs than the budget, but a request for each
            made.listener_port.backends("b")  # has a kept connection each time that it is asked for
            (pool,) = backend.endpoints
            peer = pool.idle[-1]
            made.data_received(frame(6, 0, 0, b"x" * 8) + frame(1, 5, n, VALID))
            peer.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return wire

    assert not asyncio.run(inner()).closed
