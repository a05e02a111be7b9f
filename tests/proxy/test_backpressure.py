"""What a client can make us hold, and for how long: it does not read, it says half of something, it makes many small pieces."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable

import pytest
import trustme
from support.http2_bytes import BOTH, GET, HELLO, block
from support.http2_peers import client, until
from support.proxy import OK, Proxy, Server, make_rule

from gateway.downstream import http2 as downstream_http2
from gateway.downstream.port import ListenerPort
from gateway.http import http2, http2_frames
from gateway.http.chunked import Chunks
from gateway.http.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    number,
)
from gateway.runtime import ports
from gateway.snapshot import Certificate, Limits, Listener

LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 24000000\r\n\r\n" + b"x" * 24_000_000


def deaf(port: int) -> socket.socket:
    """A client that writes and never reads."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", port))
    made.setblocking(False)
    return made


async def pour(connection: socket.socket, data: bytes, most: int) -> int:
    """Write this again and again until so much is written or nothing more is taken."""
    loop = asyncio.get_running_loop()
    sent = 0
    try:
        async with asyncio.timeout(3):
            while sent < most:
                await loop.sock_sendall(connection, data)
                sent += len(data)
    except (TimeoutError, ConnectionError):
        pass
    return sent


@pytest.mark.parametrize(
    ("data", "opening"),
    [
        (b"GET /x HTTP/1.1\r\nHost: nowhere.example\r\n\r\n" * 500, b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 500, b""),
        (frame(PING, 0, 0, b"x" * 8) * 500, HELLO),
        (frame(SETTINGS, 0, 0) * 500, HELLO),
    ],
    ids=["404s", "answers", "PING", "SETTINGS"],
)
async def test_a_client_that_does_not_read_is_not_read(proxy: Proxy, server: Server, data: bytes, opening: bytes) -> None:
    await proxy.route(server, hostname="a")
    connection = deaf(proxy.port)
    await asyncio.get_running_loop().sock_sendall(connection, opening)
    await pour(connection, data, 40 << 20)
    held = sum(one.unsent() for one in proxy.runtime.ports.tcp[80].listener_port.connections)  # type: ignore[attr-defined]
    assert held < 2 << 20
    connection.close()


async def test_requests_on_streams_that_are_not_read(proxy: Proxy, server: Server) -> None:
    """404s on HTTP/2: each is owed, and nothing more is read while too many are."""
    await proxy.route(server, hostname="a")
    connection = deaf(proxy.port)
    await asyncio.get_running_loop().sock_sendall(connection, HELLO)
    for start in range(1, 400_001, 1000):
        asked = b"".join(frame(HEADERS, BOTH, n, block(authority="nowhere.example")) for n in range(start, start + 1000, 2))
        if not await pour(connection, asked, 1):
            break
    (one,) = proxy.runtime.ports.tcp[80].listener_port.connections
    assert one.unsent() < 2 << 20  # type: ignore[attr-defined]
    connection.close()


async def test_streams_that_take_nothing_are_refused_beyond_a_mark(proxy: Proxy, server: Server) -> None:
    all_asked = asyncio.Event()

    async def answer_once_all_have_asked(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        if len(server.seen) == 90:
            all_asked.set()
        await all_asked.wait()
        writer.write(LARGE)

    server.default = answer_once_all_have_asked
    await proxy.route(server)
    me = await client(proxy.port, INITIAL_WINDOW_SIZE=0)
    asked = [me.ask() for _ in range(90)]
    (one,) = proxy.runtime.ports.tcp[80].listener_port.connections
    await until(lambda: one.owed > downstream_http2.MAX_OWED_BYTES)  # type: ignore[attr-defined]
    answer = await me.get()
    assert answer.reset == http2_frames.REFUSED_STREAM
    me.h2.increment_flow_control_window(1 << 24)
    assert {me.answers[stream].reset for stream in asked} == {None}
    me.transport.abort()
    await until(lambda: not proxy.runtime.ports.tcp[80].listener_port.connections)
    assert proxy.runtime.ports.tcp[80].listener_port.unsent.total == 0


def _owing(listener_port: ListenerPort) -> int:
    """Connections of HTTP/1.1, and streams, that have much to take."""
    streams = [stream for one in listener_port.connections for stream in getattr(one, "streams", {}).values()]
    waiting = [one for one in listener_port.connections if not hasattr(one, "streams") and one.unsent() > 65536]  # type: ignore[attr-defined]
    return len(waiting) + sum(stream.owed > 65536 for stream in streams)


@pytest.mark.parametrize("front", [1, 2])
async def test_who_takes_nothing_gives_way_where_too_much_is_owed(proxy: Proxy, server: Server, front: int) -> None:
    server.default = LARGE
    await proxy.route(server)
    listener_port = proxy.runtime.ports.tcp[80].listener_port
    if front == 1:
        connections = [deaf(proxy.port) for _ in range(3)]
        for connection in connections:
            connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    else:
        me = await client(proxy.port, INITIAL_WINDOW_SIZE=0)
        streams = [me.ask() for _ in range(3)]
    await until(lambda: _owing(listener_port) == 3 and listener_port.unsent.total > 3 * 65536)
    listener_port.limit(Limits(unsent_bytes=listener_port.unsent.total - 1))
    now = listener_port.clock.now
    proxy.runtime.tick(now + 4)
    assert _owing(listener_port) == 3
    for later in range(5, 20):
        proxy.runtime.tick(now + later)
    assert listener_port.unsent.total <= listener_port.limits.unsent_bytes
    await until(lambda: 0 < len(server._serving) < 3)
    if front == 1:
        for connection in connections:
            connection.close()
    else:
        ended = [me.answers[stream].reset for stream in streams if me.answers[stream].ended.is_set()]
        assert set(ended) == {http2_frames.ENHANCE_YOUR_CALM}
        server.default = OK
        me.h2.update_settings({4: 65535})
        me.flush()
        assert (await me.get()).status == 200


HALVES = {
    "a head on HTTP/1.1": b"GET / HTTP/1.1\r\nHost: a\r\nX:",
    "HEADERS without an end": HELLO + frame(HEADERS, END_STREAM, 1, block()[:3]),
    "CONTINUATION without an end": HELLO + frame(HEADERS, END_STREAM, 1, block()[:3]) + frame(CONTINUATION, 0, 1, block()[3:5]),
    "half a frame of HEADERS": HELLO + frame(HEADERS, BOTH, 1, block())[:12],
    "half a preface": PREFACE[:20],
    "a preface and no SETTINGS": PREFACE,
    "half a head behind a request": HELLO + GET + frame(HEADERS, END_STREAM, 3, block()[:3]),
}


@pytest.mark.parametrize("said", HALVES.values(), ids=HALVES)
async def test_half_a_head_stands_for_head_seconds(proxy: Proxy, server: Server, said: bytes) -> None:
    await proxy.route(server)
    reader, writer = await proxy.connect()
    writer.write(said)
    listener_port = proxy.runtime.ports.tcp[80].listener_port
    await until(lambda: listener_port.connections and (GET not in said or server.seen))
    await asyncio.sleep(0.05)
    now = asyncio.get_running_loop().time()
    proxy.runtime.tick(now + 8)
    assert listener_port.connections
    for later in (11, 14, 15):
        proxy.runtime.tick(now + later)
        await asyncio.sleep(0.01)
    async with asyncio.timeout(3):
        await reader.read()
    assert not listener_port.connections
    writer.close()


@pytest.mark.parametrize(
    ("fields", "is_cut"),
    [((), True), ((("content-length", "100000"),), True), ((("content-type", "application/grpc"),), False)],
    ids=["of unknown length", "of known length", "a call of gRPC"],
)
async def test_a_body_that_trickles_on_http2(
    proxy: Proxy, server: Server, fields: tuple[tuple[str, str], ...], is_cut: bool
) -> None:
    """`bodySeconds` and `bodyRate`, whether or not other requests come meanwhile."""

    async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        if b"GET" in head:
            writer.write(OK)
        else:
            await reader.read()

    server.default = reads
    await proxy.route(server)
    me = await client(proxy.port)
    stream = me.ask("/upload", method="POST", more=fields, end=False)
    await until(lambda: server.seen)
    now = proxy.runtime.clock.now
    for second in range(1, 40):
        proxy.runtime.tick(now + second)
        if stream in me.answers and me.answers[stream].ended.is_set():
            break
        await me.send(stream, b"x")
        await me.get()
    assert (me.answers[stream].status == 408) is is_cut


async def test_a_handshake_has_as_long_as_a_head(monkeypatch: pytest.MonkeyPatch, proxy: Proxy, server: Server) -> None:
    monkeypatch.setattr(ports, "HANDSHAKE", 0.2)
    issued = trustme.CA().issue_cert("a")
    certificate = Certificate("c", issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode(), ("a",))
    await proxy.apply(Listener("l", 80, protocol="HTTPS", certificates=("c",)), certificate, make_rule())
    hello = ssl.MemoryBIO()
    me = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="a")
    with pytest.raises(ssl.SSLWantReadError):
        me.do_handshake()
    reader, writer = await proxy.connect()
    writer.write(hello.read()[:50])
    async with asyncio.timeout(3):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("kind", ["DATA", "CONTINUATION", "requests"])
async def test_a_turn_of_many_frames_is_cut_into_turns(proxy: Proxy, server: Server, kind: str) -> None:
    """Others are answered before all of it is read."""
    await proxy.route(server, hostname="a")
    _, writer = await proxy.connect()
    if kind == "requests":
        said = b"".join(frame(HEADERS, BOTH, n, block(authority="none")) for n in range(1, 20_001, 2))
    elif kind == "DATA":
        said = frame(HEADERS, END_HEADERS, 1, block(method="POST")) + frame(DATA, 0, 1, b"x") * 20_000
    else:
        said = b"".join(
            frame(HEADERS, END_STREAM, n, block(authority="none")[:9])
            + frame(CONTINUATION, END_HEADERS, n, block(authority="none")[9:])
            for n in range(1, 10_001, 2)
        )
    counted = 0
    receive = http2.Http2Connection.receive

    def counting(self: http2.Http2Connection, data: bytes) -> bool:
        nonlocal counted
        counted += 1
        waits = receive(self, data)
        assert self.turn > -100
        return waits

    http2.Http2Connection.receive = counting  # type: ignore[method-assign]
    try:
        writer.write(HELLO + said)
        await until(lambda: counted > 20)
    finally:
        http2.Http2Connection.receive = receive  # type: ignore[method-assign]
    writer.close()


async def test_content_on_a_stream_that_its_client_closed(proxy: Proxy, server: Server) -> None:
    """RFC 9113 §5.1: after both sides have ended, a connection error; where we reset it first, nobody's fault."""
    await proxy.route(server, hostname="a")
    reader, writer = await proxy.connect()
    refused = frame(HEADERS, END_HEADERS, 1, block(authority="none", method="POST"))  # 404, and reset with NO_ERROR
    writer.write(HELLO + refused + frame(DATA, 0, 1, b"x") + frame(HEADERS, BOTH, 1, b""))
    writer.write(frame(HEADERS, BOTH, 3, block()))
    frames = await _frames(reader, lambda kind, flags, stream: stream == 3 and bool(flags & END_STREAM))
    assert (RST_STREAM, 1) in [(kind, stream) for kind, _, stream, _ in frames]
    writer.write(frame(DATA, 0, 3, b"x"))
    last = (await _frames(reader, lambda kind, *_: kind == GOAWAY))[-1]
    assert last[3][4:8] == number(http2_frames.STREAM_CLOSED)
    writer.close()


async def _frames(reader: asyncio.StreamReader, until_: Callable[[int, int, int], bool]) -> list[tuple[int, int, int, bytes]]:
    found = []
    async with asyncio.timeout(5):
        while not found or not until_(*found[-1][:3]):
            high, low, kind, flags, stream = struct.unpack(">BHBBI", await reader.readexactly(9))
            found.append((kind, flags, stream, await reader.readexactly(high << 16 | low)))
    return found


async def test_what_nobody_wants_holds_the_connection_back_and_comes_back(proxy: Proxy) -> None:
    """A backend takes nothing of one request: what waits for it counts against its connection until the request is over."""

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    server = await Server().start()
    server.default = never
    try:
        await proxy.route(server)
        me = await client(proxy.port)
        streams = [me.ask(method="POST", end=False) for _ in range(40)]
        await until(lambda: len(server.seen) == 40)
        (one,) = proxy.runtime.ports.tcp[80].listener_port.connections
        for stream in streams:
            while (room := min(me.h2.local_flow_control_window(stream), 16384)) > 0:
                me.h2.send_data(stream, b"x" * room)
                me.flush()
                await asyncio.sleep(0)
        kept = sum(stream.kept for stream in one.streams.values())  # type: ignore[attr-defined]
        assert me.h2.outbound_flow_control_window < http2.CONNECTION_WINDOW // 8
        assert kept + one._credit + one._untold == http2.CONNECTION_WINDOW  # type: ignore[attr-defined]
        for stream in streams:
            me.h2.reset_stream(stream)
        me.flush()
        await until(lambda: not one.streams)  # type: ignore[attr-defined]
        assert one._credit + one._untold == http2.CONNECTION_WINDOW  # type: ignore[attr-defined]
    finally:
        await server.stop()


@pytest.mark.parametrize("size", [1, 100, 5000, 100_000])
async def test_chunks_of_any_size_arrive_whole_both_ways(proxy: Proxy, server: Server, size: int) -> None:
    """Small ones are read in turns; what arrives is the same."""
    content = bytes(n % 251 for n in range(300_000))
    body = b"".join(
        b"%x\r\n%b\r\n" % (len(content[at : at + size]), content[at : at + size]) for at in range(0, len(content), size)
    )
    body += b"0\r\n\r\n"

    async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        came = Chunks()
        while came.feed(await reader.read(1 << 20)) < 0:
            pass
        assert came.taken() == content
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)

    server.default = echoes
    await proxy.route(server)
    for _ in range(2):
        said = await proxy.talk(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body,
            half_close=size == 100,
        )
        head, _, rest = said.partition(b"\r\n\r\n")
        came = Chunks()
        assert came.feed(rest) == len(rest)
        assert came.taken() == content
        assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("front", [True, False], ids=["from clients", "from backends"])
async def test_small_chunks_are_read_in_turns(
    proxy: Proxy, server: Server, front: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many have come, a few are read before others are."""
    dense = b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    pieces: list[int] = []
    feed_some = Chunks.feed_some

    def counting(self: Chunks, data: bytes) -> tuple[int, int]:
        before = len(self.payload)
        found = feed_some(self, data)
        pieces.append(len(self.payload) - before)
        return found

    monkeypatch.setattr(Chunks, "feed_some", counting)

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        if front:
            while not (await reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
                pass
            writer.write(OK)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + dense)

    server.default = answers
    await proxy.route(server)
    asked = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + dense
        if front
        else b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    assert b"200 OK" in await proxy.talk(asked, half_close=True)
    assert max(pieces) < 4000
    assert len(pieces) > 50
