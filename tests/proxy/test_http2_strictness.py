"""HTTP/2 by the byte: what is refused, with which error, and what it costs those who flood."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support.http2_bytes import BOTH, GET, HELLO, block
from support.http2_peers import until
from support.proxy import OK, Proxy, Server

from gateway.http import http2_frames
from gateway.http.field_sections import encoded
from gateway.http.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    number,
)


class Raw:
    """A connection of which every byte is ours."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def read(self) -> tuple[int, int, int, bytes] | None:
        """The next frame: type, flags, stream, payload; None at the end."""
        try:
            async with asyncio.timeout(5):
                head = await self.reader.readexactly(9)
                high, low, kind, flags, stream = struct.unpack(">BHBBI", head)
                return kind, flags, stream, await self.reader.readexactly(high << 16 | low)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def until(self, *kinds: int) -> tuple[int, int, int, bytes]:
        """The next frame of one of these types."""
        while (got := await self.read()) is not None:
            if got[0] in kinds:
                return got
        raise AssertionError("the connection ended")

    async def verdict(self) -> int:
        """The error code that the connection ends with."""
        kind, _, _, payload = await self.until(GOAWAY)
        assert kind == GOAWAY
        while await self.read() is not None:
            pass
        return int.from_bytes(payload[4:8], "big")


Connect = Callable[..., Awaitable[Raw]]


@pytest.fixture
async def raw(proxy: Proxy) -> AsyncIterator[Connect]:
    """Connections that begin with these bytes, closed at the end of the test."""
    made: list[Raw] = []

    async def connect(*data: bytes) -> Raw:
        made.append(Raw(*await proxy.connect()))
        made[-1].send(*data)
        return made[-1]

    yield connect
    for one in made:
        one.writer.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (PREFACE + frame(PING, 0, 0, b"x" * 8), http2_frames.PROTOCOL_ERROR),  # SETTINGS come first
        (HELLO + frame(DATA, 0, 0, b"x"), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(DATA, 0, 1, b"x"), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(HEADERS, BOTH, 0, block()), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(HEADERS, BOTH, 2, block()), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(HEADERS, BOTH, 3, block()) + frame(HEADERS, BOTH, 1, block()), http2_frames.STREAM_CLOSED),
        (HELLO + frame(HEADERS, BOTH, 1, b"\xff\xff\xff\xff\xff\xff"), http2_frames.COMPRESSION_ERROR),
        (HELLO + frame(HEADERS, BOTH, 1, encoded(b"x" * 9000, b"y" * 60000)[:16384]), http2_frames.COMPRESSION_ERROR),
        (HELLO + frame(HEADERS, END_STREAM, 1, block()) + frame(PING, 0, 0, b"x" * 8), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(CONTINUATION, END_HEADERS, 1, b""), http2_frames.PROTOCOL_ERROR),
        (
            HELLO + frame(HEADERS, END_STREAM, 1, block()[:3]) + frame(CONTINUATION, 0, 1, b"") * 2,
            http2_frames.ENHANCE_YOUR_CALM,
        ),
        (HELLO + frame(HEADERS, END_STREAM, 1, b"") + frame(CONTINUATION, 0, 1, b"\0") * 30, http2_frames.ENHANCE_YOUR_CALM),
        (HELLO + frame(SETTINGS, 0, 1), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(SETTINGS, 0, 0, b"xxxxx"), http2_frames.FRAME_SIZE_ERROR),
        (HELLO + frame(SETTINGS, 1, 0, b"xxxxxx"), http2_frames.FRAME_SIZE_ERROR),
        (HELLO + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)), http2_frames.FLOW_CONTROL_ERROR),
        (HELLO + frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 100)), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 7)), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(PING, 0, 0, b"short"), http2_frames.FRAME_SIZE_ERROR),
        (HELLO + frame(PING, 0, 1, b"x" * 8), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(WINDOW_UPDATE, 0, 0, number(0)), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(WINDOW_UPDATE, 0, 0, number(2**31 - 1)), http2_frames.FLOW_CONTROL_ERROR),
        (HELLO + frame(WINDOW_UPDATE, 0, 9, number(1)), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(WINDOW_UPDATE, 0, 0, b"x"), http2_frames.FRAME_SIZE_ERROR),
        (HELLO + frame(RST_STREAM, 0, 9, number(8)), http2_frames.PROTOCOL_ERROR),
        (HELLO + frame(5, END_HEADERS, 1, number(2) + block()), http2_frames.PROTOCOL_ERROR),  # PUSH_PROMISE
        (HELLO + struct.pack(">BHBBI", 1, 0, DATA, 0, 1), http2_frames.FRAME_SIZE_ERROR),
        (HELLO + frame(PRIORITY, 0, 1, b"xxx"), http2_frames.FRAME_SIZE_ERROR),
        (
            HELLO + frame(HEADERS, BOTH | 0x20, 1, number(1) + b"\x10" + block()),
            http2_frames.PROTOCOL_ERROR,
        ),  # depends on itself
        (
            HELLO + frame(HEADERS, BOTH | 0x8, 1, b"\xff" + block()),
            http2_frames.PROTOCOL_ERROR,
        ),  # padding longer than the frame
        (HELLO + frame(PING, 0, 0, b"x" * 8) * 11_000, http2_frames.ENHANCE_YOUR_CALM),
        (HELLO + frame(SETTINGS, 0, 0) * 11_000, http2_frames.ENHANCE_YOUR_CALM),
        (HELLO + frame(PRIORITY, 0, 3, number(0) + b"\x10") * 11_000, http2_frames.ENHANCE_YOUR_CALM),
        (HELLO + frame(WINDOW_UPDATE, 0, 0, number(1)) * 11_000, http2_frames.ENHANCE_YOUR_CALM),
        (HELLO + frame(0xB, 0, 0, b"") * 11_000, http2_frames.ENHANCE_YOUR_CALM),
        (HELLO + frame(HEADERS, END_HEADERS, 1, block()) + frame(DATA, 0, 1) * 11_000, http2_frames.ENHANCE_YOUR_CALM),
    ],
)
async def test_connection_errors(proxy: Proxy, server: Server, raw: Connect, data: bytes, code: int) -> None:
    await proxy.route(server)
    assert await (await raw(data)).verdict() == code


MALFORMED = [
    block(("X-Upper", "1")), block(("connection", "close")), block(("transfer-encoding", "chunked")), block(("upgrade", "x")),
    block(("keep-alive", "1")), block(("proxy-connection", "1")), block(("te", "gzip")), block((":path", "/again")),
    block((":unknown", "1")), block(("x", "1"), (":path", "/")), block(path=None), block(scheme=None), block(method=None),
    block(path=""), block(path="no-slash"), block(path="/a b"), block(path="/a#b"), block(path="/a\r\nX: y"), block(method="G T"),
    block(("x", "a\r\nb: c")), block(("x", "a\nb")), block(("x", "a\0b")), block(("x", " a")), block(("x", "a ")), block(("a b", "c")),
    block(("", "c")), block(authority=None), block(authority="a b"), block(authority="u@a"), block(("host", "other")),
    block(("content-length", "1")), block(("content-length", "0"), ("content-length", "0")), block(("content-length", "+0")),
    block(scheme="ftp"), block(protocol="websocket"), block(path="/%zz"), block(path="/a/../../b"), block(("x", "é\x7f")),
]  # fmt: skip


@pytest.mark.parametrize("said", MALFORMED)
async def test_malformed_requests_are_answered_and_never_passed_on(
    proxy: Proxy, server: Server, raw: Connect, said: bytes
) -> None:
    await proxy.route(server)
    me = await raw(HELLO, frame(HEADERS, BOTH, 1, said))
    kind, _, stream, payload = await me.until(HEADERS, RST_STREAM)
    assert (kind, stream) == (HEADERS, 1)
    assert payload.startswith(b"\x8c")  # :status 400
    # The connection goes on.
    me.send(frame(HEADERS, BOTH, 3, block()))
    while True:
        kind, _, stream, payload = await me.until(HEADERS, GOAWAY)
        if (kind, stream) == (HEADERS, 3):
            break
    assert payload.startswith(b"\x88")  # :status 200
    assert len(server.seen) == 1


async def test_connect_is_not_a_way_out(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)
    me = await raw(HELLO, frame(HEADERS, BOTH, 1, block(method="CONNECT", path=None, scheme=None, authority="a:443")))
    kind, _, _, payload = await me.until(HEADERS, RST_STREAM)
    assert kind == HEADERS
    assert payload[:1] == b"\x08"  # a :status that is not in the static table: 501
    assert not server.seen


async def test_less_content_than_said_reaches_no_backend_as_a_whole(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)
    me = await raw(
        HELLO, frame(HEADERS, END_HEADERS, 1, block(("content-length", "5"), method="POST")), frame(DATA, END_STREAM, 1, b"abc")
    )  # fmt: skip
    assert (await me.until(RST_STREAM))[3] == number(http2_frames.PROTOCOL_ERROR)


async def test_more_content_than_said(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)
    me = await raw(
        HELLO, frame(HEADERS, END_HEADERS, 1, block(("content-length", "2"), method="POST")), frame(DATA, 0, 1, b"GET / HTTP/1.1")
    )  # fmt: skip
    assert (await me.until(RST_STREAM))[3] == number(http2_frames.PROTOCOL_ERROR)
    assert not any(b"GET / HTTP" in seen for seen in server.seen)


async def test_rapid_reset(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)

    async def never(*_: object) -> None:
        await asyncio.sleep(5)

    server.default = never
    attack = b"".join(frame(HEADERS, BOTH, n, block()) + frame(RST_STREAM, 0, n, number(8)) for n in range(1, 2401, 2))
    me = await raw(HELLO, attack)
    assert await me.verdict() == http2_frames.ENHANCE_YOUR_CALM
    assert server.connections < 200


async def test_too_many_streams_are_refused(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)

    async def never(*_: object) -> None:
        await asyncio.sleep(5)

    server.default = never
    me = await raw(HELLO, *(frame(HEADERS, BOTH, n, block()) for n in range(1, 205, 2)))
    _kind, _, stream, payload = await me.until(RST_STREAM)
    assert (stream, payload) == (201, number(http2_frames.REFUSED_STREAM))


async def test_a_header_list_that_is_too_large(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)
    big = block(*((f"x-{n}", "v" * 200) for n in range(400)))
    pieces = [big[at : at + 16384] for at in range(0, len(big), 16384)]
    frames = [frame(HEADERS, END_STREAM, 1, pieces[0])]
    frames += [frame(CONTINUATION, END_HEADERS if n == len(pieces) - 2 else 0, 1, p) for n, p in enumerate(pieces[1:])]
    assert await (await raw(HELLO, *frames)).verdict() == http2_frames.ENHANCE_YOUR_CALM


async def test_compression_bomb(proxy: Proxy, server: Server, raw: Connect) -> None:
    """One large entry in the table, named a thousand times in a thousand bytes."""
    await proxy.route(server)
    entry = b"\x40\x01x" + encoded(b"x", b"\x00" * 3000)[3:]  # the value as a literal of 3,000 octets
    me = await raw(HELLO, frame(HEADERS, BOTH, 1, block() + entry + b"\xbe" * 2000))
    assert await me.verdict() == http2_frames.ENHANCE_YOUR_CALM


async def test_bytes_may_come_one_by_one(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)
    me = await raw()
    pieces = frame(HEADERS, END_STREAM, 1, block()[:5]) + frame(CONTINUATION, END_HEADERS, 1, block()[5:])
    for byte in HELLO + pieces + frame(HEADERS, BOTH | 0x8, 3, b"\x02" + block() + b"\0\0"):
        me.send(bytes((byte,)))
        await asyncio.sleep(0)
    assert (await me.until(HEADERS))[2] == 1
    assert (await me.until(DATA))[3] == b"ok"
    assert (await me.until(HEADERS))[2] == 3


async def test_a_window_of_nothing_holds_content_back(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)
    me = await raw(PREFACE, frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)), GET)
    assert (await me.until(HEADERS))[2] == 1
    me.send(frame(WINDOW_UPDATE, 0, 1, number(1)))
    assert (await me.until(DATA))[3] == b"o"
    me.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 10)))
    _kind, flags, _, payload = await me.until(DATA)
    assert (payload, flags) == (b"k", END_STREAM)


async def test_draining_says_goodbye_twice_and_finishes_what_is_under_way(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)
    go = asyncio.Event()

    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        await go.wait()
        writer.write(OK)

    server.default = late
    me = await raw(HELLO, GET)
    await until(lambda: server.seen)
    proxy.runtime.drain()
    assert (await me.until(GOAWAY))[3][:4] == number(2**31 - 1)
    ping = await me.until(PING)
    me.send(frame(HEADERS, BOTH, 3, block()))  # was on its way
    await until(lambda: len(server.seen) == 2)
    me.send(frame(PING, 1, 0, ping[3]))
    assert (await me.until(GOAWAY))[3][:4] == number(3)
    me.send(frame(HEADERS, BOTH, 5, block()))
    assert (await me.until(RST_STREAM))[2:] == (5, number(http2_frames.REFUSED_STREAM))
    go.set()
    ended: set[int] = set()
    while ended != {1, 3}:
        _, flags, stream, _ = await me.until(DATA)
        if flags & END_STREAM:
            ended.add(stream)
    assert await me.read() is None


async def test_priority_is_ignored(proxy: Proxy, server: Server, raw: Connect) -> None:
    await proxy.route(server)
    me = await raw(
        HELLO, frame(PRIORITY, 0, 3, number(0) + b"\x10"), frame(HEADERS, BOTH | 0x20, 1, number(0) + b"\x10" + block())
    )
    assert (await me.until(HEADERS))[3].startswith(b"\x88")


async def test_the_table_that_grew_changes_what_the_same_bytes_mean(proxy: Proxy, server: Server, raw: Connect) -> None:
    """A remembered block is forgotten when the compression table has changed beneath it."""
    await proxy.route(server)
    indexed = block() + b"\xbe"  # names the newest entry of the dynamic table

    def adds(value: bytes) -> bytes:
        return block() + b"\x40\x01x\x01" + value

    me = await raw(HELLO)
    stream = 1
    for said in (adds(b"a"), indexed, indexed, indexed, adds(b"b"), indexed, indexed):
        me.send(frame(HEADERS, BOTH, stream, said))
        await me.until(HEADERS)
        stream += 2
    values = [seen.split(b"\r\nx: ")[1][:1] for seen in server.seen]
    assert values == [b"a", b"a", b"a", b"a", b"b", b"b", b"b"]
