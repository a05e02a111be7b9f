"""Whoever is paused is resumed when there is room again, and not before; what an end finds put off is read first."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest
import trustme
from support.http2_peers import Asked, Backend2, client, until
from support.proxy import Proxy, Server, make_rule, parsed

from controller.ports import free_ports
from gateway.http.http2_frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame
from gateway.http.http2_stream import HIGH_WATER
from gateway.snapshot import (
    Attachment,
    Backend,
    BackendTLS,
    Certificate,
    Endpoint,
    Listener,
    Order,
    Part,
    Relay,
    Script,
    Scripted,
    Target,
)
from gateway.transport.turns import Turns

MEGABYTE = 1 << 20


async def test_a_body_goes_on_at_the_endpoint_that_is_there(proxy: Proxy, server: Server) -> None:
    """The first endpoint refuses, after more of the body has come than is kept; the other has an idle connection."""
    (nobody,) = free_ports(1)
    await proxy.route(server)
    assert (await proxy.get())[0] == 200
    ends = (Endpoint("127.0.0.1", nobody), Endpoint("127.0.0.1", server.port))
    await proxy.apply(Backend("b-r", ends))
    for _ in range(2):  # each endpoint has its turn
        body = b"x" * MEGABYTE
        answer = await proxy.talk(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body,
            half_close=False,
        )
        assert answer.startswith(b"HTTP/1.1 200")
        assert server.seen[-1].endswith(body)


PASSES = """
def request_body(chunk):
    return chunk.data

def response_body(chunk):
    return chunk.data
"""


def owed(proxy: Proxy) -> int:
    """Octets that wait for backends that speak HTTP/2."""
    return sum(link.owed for pool in proxy.runtime.backends.pools._pools.values() for link in pool._links)  # type: ignore[union-attr]


@pytest.mark.parametrize("filtered", ["", "inline", "process"])
@pytest.mark.parametrize("front", [1, 2])
async def test_a_backend_that_takes_nothing_is_not_sent_without_end(
    proxy: Proxy, front: int, filtered: Literal["", "inline", "process"]
) -> None:
    """What came while its connection was made fills its window: the client has to wait on."""
    backend = await Backend2().start()
    asked_for = asyncio.Event()

    async def takes_nothing(asked: Asked) -> None:
        asked.speaker.auto = False
        asked_for.set()

    backend.default = takes_nothing
    body = b"x" * (32 * MEGABYTE)
    await proxy.apply(
        Script("f", PASSES, execution=filtered or "inline"), Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", backend.port),), "h2c"),
        make_rule(targets=(Target(1, "b"),), filters=(Scripted("f"),) if filtered else ()),
    )  # fmt: skip
    transport: asyncio.WriteTransport
    if front == 1:
        _, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        sending = asyncio.create_task(writer.drain())
        transport = writer.transport
    else:
        me = await client(proxy.port)
        sending = asyncio.create_task(me.send(me.ask(method="POST", end=False), body))
        transport = me.transport
    await asyncio.wait_for(asked_for.wait(), 5)
    most = 0
    for _ in range(300):  # turns of the loop: many more than it takes to send it all
        await asyncio.sleep(0.001)
        most = max(most, owed(proxy))
    assert HIGH_WATER < most < 2 * MEGABYTE
    assert not sending.done()
    sending.cancel()
    transport.abort()
    await backend.stop()


@pytest.mark.parametrize("execution", ["inline", "process"])
@pytest.mark.parametrize("front", [1, 2])
async def test_a_client_that_takes_nothing_of_a_filtered_answer(
    proxy: Proxy, server: Server, front: int, execution: Literal["inline", "process"]
) -> None:
    """What a filter has let pass is no reason to read more, while the client takes nothing."""
    sent = 0

    async def pours(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MEGABYTE))
        for _ in range(1024):
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    server.default = pours
    await proxy.route(server, filters=(Scripted("f"),))
    await proxy.apply(Script("f", PASSES, execution=execution))
    if front == 1:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", proxy.port))
        deaf.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    else:
        me = await client(proxy.port, INITIAL_WINDOW_SIZE=0)
        me.ask()
    listener_port = proxy.runtime.ports.tcp[80].listener_port
    await until(lambda: sent)
    most = 0
    for _ in range(500):
        await asyncio.sleep(0.001)
        most = max(most, *(one.unsent() for one in listener_port.connections))  # type: ignore[attr-defined]
    assert HIGH_WATER < most < 2 * MEGABYTE
    assert sent < 64 * MEGABYTE
    if front == 1:
        deaf.close()
    else:
        me.transport.abort()


def by_hand(
    context: ssl.SSLContext, *said: bytes, is_h2: bool = False, goes_on: asyncio.Event | None = None
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A backend that speaks TLS by hand, so that the last of its answer, the end of TLS and that of TCP are one piece. Where there
    are two pieces, the second comes when it `goes_on`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)

        async def step(do: Callable[[], object]) -> object:
            while True:
                try:
                    return do()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    if not (data := await reader.read(65536)):
                        raise ConnectionError from None
                    incoming.write(data)
                finally:
                    if do != tls.unwrap:
                        writer.write(outgoing.read())

        await step(tls.do_handshake)
        if is_h2:
            tls.write(frame(SETTINGS, 0, 0))
            await step(lambda: tls.read(len(PREFACE)))
            kind = -1
            while kind != HEADERS:
                high, low, kind, _, _ = struct.unpack(">BHBBI", bytes(await step(lambda: tls.read(9))))  # type: ignore[call-overload]
                size = high << 16 | low
                if size:
                    await step(lambda size=size: tls.read(size))  # type: ignore[misc]
        else:
            await step(lambda: tls.read(65536))
        tls.write(said[0])
        if goes_on is not None:
            writer.write(outgoing.read())
            await goes_on.wait()
            tls.write(said[1])
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        writer.write(outgoing.read())
        writer.close()

    return serve


@pytest.mark.parametrize("protocol", ["http", "h2c"])
async def test_an_end_by_tls_loses_nothing_of_what_was_put_off(proxy: Proxy, protocol: Literal["http", "h2c"]) -> None:
    """TLS says that all has come while reading is paused: what waits for its turn was said before that."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2" if protocol == "h2c" else "http/1.1"])
    authority.issue_cert("b.internal").configure_cert(context)
    chunks = 6000
    if protocol == "h2c":
        said = frame(HEADERS, END_HEADERS, 1, b"\x88") + frame(DATA, 0, 1, b"x") * chunks + frame(DATA, END_STREAM, 1)
    else:
        said = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            + b"1\r\nx\r\n" * chunks
            + b"0\r\n\r\n"
        )

    backend = await asyncio.start_server(by_hand(context, said, is_h2=protocol == "h2c"), "127.0.0.1", 0)
    port = backend.sockets[0].getsockname()[1]
    tls = BackendTLS("b.internal", authority.cert_pem.bytes().decode())
    await proxy.apply(
        Listener("l", 80), make_rule(targets=(Target(1, "b"),)), Backend("b", (Endpoint("127.0.0.1", port),), protocol, tls)
    )
    me = await client(proxy.port)
    try:
        answer = await me.get()
        assert (answer.status, answer.reset, len(answer.body)) == (200, None, chunks)
    finally:
        me.transport.abort()
        backend.close()


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
MORE = 150_000  # octets: uvloop reads so much ahead, however paused it is
PAUSED = {
    "to its end": ("http", HEAD + b"\r\n" + b"x" * MORE, b"x" * MORE),
    "of known length": ("http", HEAD + b"Content-Length: %d\r\n\r\n" % (2 * MORE) + b"x" * MORE, b"x" * MORE),
    "of much length": ("http", HEAD + b"Content-Length: 3000000\r\n\r\n" + b"x" * (3_000_000 - MORE), b"x" * MORE),
    "in chunks": ("http", HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 6000, b"1\r\nx\r\n" * 6000 + b"0\r\n\r\n"),
    "on HTTP/2": (
        "h2c",
        frame(HEADERS, END_HEADERS, 1, b"\x88") + frame(DATA, 0, 1, b"x" * 10000) * 5,
        frame(DATA, 0, 1, b"x") * 1000 + frame(DATA, END_STREAM, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("protocol", "first", "second"), PAUSED.values(), ids=PAUSED)
async def test_an_end_by_tls_while_reading_is_paused_loses_nothing(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, protocol: Literal["http", "h2c"], first: bytes, second: bytes
) -> None:
    """It comes before the connection has had its turn."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2" if protocol == "h2c" else "http/1.1"])
    authority.issue_cert("b.internal").configure_cert(context)
    goes_on = asyncio.Event()
    backend = await asyncio.start_server(
        by_hand(context, first, second, is_h2=protocol == "h2c", goes_on=goes_on), "127.0.0.1", 0
    )
    port = backend.sockets[0].getsockname()[1]
    tls = BackendTLS("b.internal", authority.cert_pem.bytes().decode())
    await proxy.apply(
        Listener("l", 80), make_rule(targets=(Target(1, "b"),)), Backend("b", (Endpoint("127.0.0.1", port),), protocol, tls)
    )
    monkeypatch.setattr(Turns, "OCTETS", 0)
    monkeypatch.setattr(Turns, "wait", lambda _, go_on, transport: waiting.append(go_on))
    waiting: list[Callable[[], None]] = []
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    taken, whole = 0, (first + second).count(b"x")

    async def take(most: int) -> None:
        nonlocal taken
        while taken < most and (data := await reader.read(65536)):
            taken += data.count(b"x")

    async with asyncio.timeout(5):
        if len(first) > 2 * MORE:  # it has its turns until all of the first piece has been read
            taking = asyncio.create_task(take(first.count(b"x")))
            while not taking.done():
                while waiting:
                    waiting.pop(0)()
                await asyncio.sleep(0)
        else:
            await until(lambda: waiting)
        goes_on.set()
        await take(whole)
    assert taken == whole
    writer.close()
    backend.close()


@pytest.mark.parametrize("reads", ["at once", "slowly"])
@pytest.mark.parametrize("length", [b"Content-Length: %d\r\n" % (3 * MEGABYTE), b""])
async def test_large_answers_that_end_with_their_tls_are_whole(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, length: bytes, reads: str
) -> None:
    """However often each waits for its turn."""
    monkeypatch.setattr(Turns, "OCTETS", 0)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("b.internal").configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"Connection: close\r\n\r\n" + b"x" * 3 * MEGABYTE)
        writer.close()

    backend = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = backend.sockets[0].getsockname()[1]
    tls = BackendTLS("b.internal", authority.cert_pem.bytes().decode())
    await proxy.apply(
        Listener("l", 80), make_rule(targets=(Target(1, "b"),)), Backend("b", (Endpoint("127.0.0.1", port),), "http", tls)
    )

    async def take() -> int:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        taken = 0
        while data := await reader.read(65536):
            taken += data.count(b"x")
            if reads == "slowly":
                await asyncio.sleep(0.005)
        writer.close()
        return taken

    assert set(await asyncio.gather(*(take() for _ in range(8)))) == {3 * MEGABYTE}
    backend.close()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("front", [1, 2])
async def test_a_filter_that_keeps_all_to_the_end_sees_all(proxy: Proxy, server: Server, front: int, is_async: bool) -> None:
    """That it lets nothing pass yet is no reason to read no more; the middle of a large answer is not passed around it."""
    word, wait = ("async def", "await __import__('asyncio').sleep(0)") if is_async else ("def", "pass")
    source = f"""
{word} request_body(chunk):
    {wait}
    state = chunk.request.state
    state["asked"] = state.get("asked", 0) + len(chunk.data)
    return b"%d" % state["asked"] if chunk.is_last else b""

{word} response_body(chunk):
    {wait}
    state = chunk.request.state
    state["answered"] = state.get("answered", 0) + len(chunk.data)
    return b"%d" % state["answered"] if chunk.is_last else b""
"""
    server.default = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000
    await proxy.apply(Script("f", source, execution="process" if is_async else "inline"))
    await proxy.route(server, filters=(Scripted("f"),))
    body = b"x" * (4 * MEGABYTE)
    if front == 1:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        answer = parsed(await proxy.talk(head + body, half_close=False))[2]
        assert answer == b"7\r\n3000000\r\n0\r\n\r\n"
    else:
        me = await client(proxy.port)
        stream = me.ask(method="POST", end=False)
        async with asyncio.timeout(5):
            await me.send(stream, body, end=True)
        assert (await me.answer(stream)).body == b"3000000"
        me.transport.abort()
    assert server.seen[0].endswith(b"\r\n\r\n7\r\n4194304\r\n0\r\n\r\n")


async def test_a_large_answer_to_a_filter_s_own_request(proxy: Proxy, server: Server, other: Server) -> None:
    other.default = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    source = f"""
from gateway.filters.api import http

async def request(request):
    reply = await http.get("http://127.0.0.1:{other.port}/")
    request.headers["x-got"] = str(len(reply.body))
"""
    await proxy.apply(Script("f", source, network=("*",)))
    await proxy.route(server, filters=(Scripted("f"),))
    await proxy.get()
    assert b"\r\nx-got: 1000000\r\n" in server.seen[0].lower()


def relayed(source: str, port: int, listener: Listener) -> tuple[Part, ...]:
    line = Relay("t", Order("", "t"), (Attachment("l"),), (Target(1, "b"),), (Scripted("f"),))
    return Script("f", source, execution="inline"), listener, Backend("b", (Endpoint("127.0.0.1", port),), "tcp"), line


WAITS = """
import asyncio

async def data(data):
    await asyncio.sleep(0)
"""


async def test_a_relay_s_filter_is_no_reason_to_read_on(proxy: Proxy) -> None:
    async def reads_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    backend = await asyncio.start_server(reads_nothing, "127.0.0.1", 0)
    await proxy.apply(*relayed(WAITS, backend.sockets[0].getsockname()[1], Listener("l", 80, "TCP")))
    _, writer = await proxy.connect()
    writer.write(b"x" * (64 * MEGABYTE))
    for _ in range(500):
        await asyncio.sleep(0.001)
    waiting = writer.transport.get_write_buffer_size()
    for one in (writer, *writers):
        one.transport.abort()
    backend.close()
    assert waiting > 32 * MEGABYTE


async def test_a_relay_s_filter_has_what_came_before_the_end_of_tls(proxy: Proxy) -> None:
    came: list[bytes] = []
    over = asyncio.Event()

    async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            came.append(await reader.read())
        over.set()
        writer.close()

    authority = trustme.CA()
    issued = authority.issue_cert("a.example")
    certificate = Certificate("c", issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode())
    backend = await asyncio.start_server(reads, "127.0.0.1", 0)
    listener = Listener("l", 80, "TLS", "", ("c",))
    await proxy.apply(certificate, *relayed(WAITS, backend.sockets[0].getsockname()[1], listener))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="a.example")
    writer.write(b"x" * 200_000)
    writer.close()
    async with asyncio.timeout(5):
        await over.wait()
    assert [len(data) for data in came] == [200_000]
    await until(lambda: not proxy.runtime.ports.tcp[80].stream_listener.open)
    backend.close()


async def test_a_stream_that_is_answered_early_ends_with_its_answer(proxy: Proxy, server: Server) -> None:
    """RFC 9113 §8.1: also where the answer waits for its client's window."""

    async def answers(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)

    server.default = answers
    await proxy.route(server)
    me = await client(proxy.port)
    stream = me.ask(method="POST", end=False)
    answer = await me.answer(stream)
    await until(lambda: answer.reset is not None)
    assert (answer.status, len(answer.body), answer.reset) == (200, 500_000, 0)
    (one,) = proxy.runtime.ports.tcp[80].listener_port.connections
    assert not one.streams  # type: ignore[attr-defined]
    me.transport.abort()
