"""HTTP/2 on both sides, with the `h2` library at the other ends: what passes, in which order, at whose pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h2.errors
import pytest
from support.http2_peers import Asked, Backend2, Client, client, says_ok, until
from support.proxy import OK, Proxy, Server, make_rule

from gateway.snapshot import Backend, Endpoint, Listener, RequestHeaders, ResponseHeaders, Rewrite, Target, Timeouts

MEGABYTE = 1 << 20


@pytest.fixture
async def backend() -> AsyncIterator[Backend2]:
    made = await Backend2().start()
    yield made
    await made.stop()


second = backend


async def route2(proxy: Proxy, *backends: Backend2, **rule: object) -> None:
    """One rule to one backend of these, which speak HTTP/2."""
    endpoints = tuple(Endpoint("127.0.0.1", one.port) for one in backends)
    await proxy.apply(
        Listener("l", 80), Backend("b2", endpoints, "h2c"), make_rule("r", targets=(Target(1, "b2"),), **rule)
    )  # fmt: skip


async def opened(proxy: Proxy, **settings: int) -> Client:
    return await client(proxy.port, **settings)


# --- in front, HTTP/1.1 behind ---


async def test_a_request_becomes_http11(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    me = await opened(proxy)
    answer = await me.get("/a?b=c", more=[("x-more", "1"), ("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")])
    assert (answer.status, answer.body, answer.headers) == (200, b"ok", {"content-length": "2"})
    head = server.seen[0]
    assert head.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\n")
    assert b"cookie: a=1; b=2\r\n" in head
    assert b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: example.com\r\n" in head
    assert b"te:" not in head


async def test_the_same_again_takes_the_short_way_to_the_same_end(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, filters=(RequestHeaders(add=(("x-added", "1"),)), ResponseHeaders(set=(("x-set", "2"),))))
    me = await opened(proxy)
    answers = [await me.get("/same", more=[("x-client", "me")]) for _ in range(5)]
    assert len({(a.status, a.body, tuple(a.headers.items())) for a in answers}) == 1
    assert answers[0].headers["x-set"] == "2"
    assert len(set(server.seen)) == 1
    assert b"\r\nx-added: 1\r\n" in server.seen[0]
    assert server.connections == 1


async def test_streams_do_not_wait_for_each_other(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    go = asyncio.Event()

    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        await go.wait()
        writer.write(OK)

    server.replies = [late]
    me = await opened(proxy)
    slow = me.ask("/slow")
    await until(lambda: server.seen)
    assert (await me.get("/quick")).status == 200
    go.set()
    assert (await me.answer(slow)).status == 200


async def test_content_of_known_length(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    me = await opened(proxy)
    stream = me.ask(method="POST", more=[("content-length", "5")], end=False)
    await me.send(stream, b"hello", end=True)
    assert (await me.answer(stream)).status == 200
    assert server.seen[0].endswith(b"\r\n\r\nhello")
    assert b"content-length: 5\r\n" in server.seen[0]


async def test_content_of_unknown_length_and_its_trailers_become_chunks(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    got = asyncio.get_running_loop().create_future()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        got.set_result(await reader.readuntil(b"x-sum: 1\r\n\r\n"))
        writer.write(OK)

    server.default = read
    me = await opened(proxy)
    stream = me.ask(method="POST", end=False)
    await me.send(stream, b"hello")
    me.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
    me.flush()
    assert (await me.answer(stream)).status == 200
    assert b"Transfer-Encoding: chunked\r\n" in server.seen[0]
    assert await got == b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "status", "body", "trailers"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok", {}),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", 200, b"ok", {"x-sum": "1"}),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", {}),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", {}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n", 200, b"", {}),
    ],
)
async def test_responses(
    proxy: Proxy, server: Server, reply: bytes, status: int, body: bytes, trailers: dict[str, str]
) -> None:
    await proxy.route(server)
    server.default = reply
    me = await opened(proxy)
    for _ in range(3):
        answer = await me.get()
        assert (answer.status, answer.body, answer.trailers) == (status, body, trailers)
        assert not answer.headers.keys() & {"transfer-encoding", "connection", "keep-alive", "x-hop"}


async def test_a_response_that_ends_with_the_connection(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def bare(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    server.default = bare
    me = await opened(proxy)
    answer = await me.get()
    assert (answer.status, answer.body, answer.reset) == (200, b"all of it", None)


async def test_head(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    server.default = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    answer = await (await opened(proxy)).get(method="HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "7", b"")


async def test_interim_responses(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    server.default = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
    answer = await (await opened(proxy)).get()
    assert (answer.interim, answer.status) == ([103], 200)


async def test_what_no_rule_takes(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, hostname="example.com")
    me = await opened(proxy)
    assert (await me.get(host="other.example")).status == 404
    assert (await me.get()).status == 200


async def test_rewrite_and_timeout(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, filters=(Rewrite("inner.example"),), timeouts=Timeouts(request=0.05))

    async def never(*_: object) -> None:
        await asyncio.sleep(5)

    server.replies = [OK, never]
    me = await opened(proxy)
    assert (await me.get()).status == 200
    assert b"Host: inner.example\r\n" in server.seen[0]
    assert (await me.get()).status == 504


async def test_a_megabyte_both_ways(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    body = bytes(range(256)) * 4096

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        got = await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(got) + got)

    server.default = echo
    me = await opened(proxy)
    for _ in range(3):
        stream = me.ask(method="PUT", more=[("content-length", str(len(body)))], end=False)
        await me.send(stream, body, end=True)
        assert (await me.answer(stream)).body == body


async def test_a_client_that_takes_nothing_stops_the_backend(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MEGABYTE))
        for _ in range(64):
            writer.write(b"x" * MEGABYTE)
            await writer.drain()
            sent += MEGABYTE

    server.default = pour
    me = await opened(proxy)
    me.auto = False
    stream = me.ask()
    await me.answers[stream].head_came.wait()
    await until(lambda: len(me.answers[stream].body) == 65535)
    before = -1
    while before != sent:  # until it stands still
        before = sent
        await asyncio.sleep(0.05)
    assert sent < 32 * MEGABYTE  # what fits into the kernel's buffers
    (connection,) = proxy.runtime.ports.tcp[80].listener_port.connections
    (held,) = connection.streams.values()  # type: ignore[attr-defined]
    assert held.owed < 2 * MEGABYTE
    # Another stream is held up by the connection's window only for its content.
    me.auto = True
    me.h2.increment_flow_control_window(10 * MEGABYTE)
    me.h2.increment_flow_control_window(10 * MEGABYTE, stream)
    me.flush()
    await until(lambda: len(me.answers[stream].body) > 5 * MEGABYTE)


async def test_a_backend_that_takes_nothing_stops_the_client(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        await go.wait()
        await reader.readexactly(64 * MEGABYTE)
        writer.write(OK)

    server.default = slow
    me = await opened(proxy)
    stream = me.ask(method="PUT", more=[("content-length", str(64 * MEGABYTE))], end=False)
    sending = asyncio.create_task(me.send(stream, b"x" * (64 * MEGABYTE), end=True))
    await asyncio.sleep(0.2)
    assert not sending.done()
    assert me.h2.local_flow_control_window(stream) < 300_000
    go.set()
    await sending
    assert (await me.answer(stream)).status == 200


async def test_a_reset_reaches_the_backend(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    lost = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter, __: bytes) -> None:
        try:
            await reader.read()
        except ConnectionError:
            pass
        lost.set()

    server.replies = [wait]
    me = await opened(proxy)
    stream = me.ask()
    await until(lambda: server.seen)
    me.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    me.flush()
    await asyncio.wait_for(lost.wait(), 5)
    assert (await me.get()).status == 200  # the connection goes on


async def test_a_backend_that_breaks_off_breaks_the_stream(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def half(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server.replies = [half]
    me = await opened(proxy)
    answer = await me.get()
    assert (answer.status, answer.body, answer.reset) == (200, b"half", h2.errors.ErrorCodes.INTERNAL_ERROR)
    assert (await me.get()).status == 200


async def test_an_early_answer_ends_the_request(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def early(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()

    server.default = early
    me = await opened(proxy)
    stream = me.ask(method="POST", end=False)
    answer = await me.answer(stream)
    assert (answer.status, answer.body) == (403, b"no")


async def test_a_change_of_rules_reaches_connections_that_stand(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.route(server)
    me = await opened(proxy)
    for _ in range(3):
        await me.get()
    await proxy.route(other)
    seen = len(server.seen)
    assert (await me.get()).status == 200
    assert (len(server.seen), len(other.seen)) == (seen, 1)


async def test_websocket_by_extended_connect(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        assert b"upgrade: websocket" in head.lower()
        assert b"connection: upgrade" in head.lower()
        assert b"sec-websocket-key: " in head.lower()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhi"
        )
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.write(b"bye")
        writer.write_eof()

    server.default = upgrade
    me = await opened(proxy)
    await until(lambda: me.h2.remote_settings.enable_connect_protocol)
    stream = me.ask("/chat", method="CONNECT", more=[(":protocol", "websocket"), ("sec-websocket-version", "13")], end=False)
    await me.answers[stream].head_came.wait()
    assert me.answers[stream].status == 200
    assert "sec-websocket-accept" not in me.answers[stream].headers
    await me.send(stream, b"hello")
    await until(lambda: me.answers[stream].body == b"hiHELLO")
    for n in range(200):  # held through changes of routes and endpoints
        await proxy.route(server, name=f"r{n % 7}", hostname=f"h{n}.example")
        await proxy.apply(Backend("b-r", (Endpoint("127.0.0.1", server.port), Endpoint("127.0.0.9", 1000 + n))))
        await me.send(stream, b"x")
        await until(lambda n=n: me.answers[stream].body.endswith(b"X") and len(me.answers[stream].body) == 7 + n + 1)
    await me.send(stream, b"again", end=True)
    answer = await me.answer(stream)
    assert answer.body == b"hiHELLO" + b"X" * 200 + b"AGAINbye"


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_websocket_to_a_backend_that_speaks_http2(proxy: Proxy, backend: Backend2, version: str) -> None:
    async def echo(asked: Asked) -> None:
        asked.reply(200, [("sec-websocket-protocol", "chat")])
        done = 0
        while not asked.ended.is_set() or done < len(asked.body):
            if done < len(asked.body):
                data, done = asked.body[done:], len(asked.body)
                await asked.send(data.upper())
            await asyncio.sleep(0.001)
        asked.speaker.h2.end_stream(asked.stream)
        asked.speaker.flush()

    backend.default = echo
    backend.settings = {"ENABLE_CONNECT_PROTOCOL": 1}
    await route2(proxy, backend)
    if version == "2":
        me = await opened(proxy)
        await until(lambda: me.h2.remote_settings.enable_connect_protocol)
        stream = me.ask(
            "/chat", method="CONNECT", more=[(":protocol", "websocket"), ("sec-websocket-version", "13")], end=False
        )
        await me.answers[stream].head_came.wait()
        await me.send(stream, b"hello")
        await until(lambda: me.answers[stream].body == b"HELLO")
        await me.send(stream, b"!", end=True)
        answer = await me.answer(stream)
        assert (answer.status, answer.body, answer.headers["sec-websocket-protocol"]) == (200, b"HELLO!", "chat")
    else:
        reader, writer = await proxy.connect()
        writer.write(
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head  # RFC 6455 §1.3
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"HELLO"
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    asked = backend.seen[0].headers
    assert (asked[":method"], asked[":protocol"], asked[":path"]) == ("CONNECT", "websocket", "/chat")
    assert not asked.keys() & {"sec-websocket-key", "upgrade", "connection", "te"}


async def test_websocket_to_a_backend_that_does_not_take_it(proxy: Proxy, backend: Backend2) -> None:
    await route2(proxy, backend)
    request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert (await proxy.talk(request)).startswith(b"HTTP/1.1 502 ")


# --- behind ---


async def test_http11_in_front_http2_behind(proxy: Proxy, backend: Backend2) -> None:
    await route2(proxy, backend)
    status, fields, body = await proxy.get("/a?b=c", x_more="1")
    assert (status, body, fields["content-length"]) == (200, b"ok", "2")
    asked = backend.seen[0].headers
    assert (asked[":method"], asked[":path"], asked[":authority"], asked[":scheme"]) == ("GET", "/a?b=c", "example.com", "http")
    assert (asked["x-more"], asked["x-forwarded-for"], asked["te"]) == ("1", "127.0.0.1", "trailers")
    assert "connection" not in asked


async def test_chunks_in_front_frames_behind(proxy: Proxy, backend: Backend2) -> None:
    async def trailing(asked: Asked) -> None:
        await asked.ended.wait()
        asked.reply(200)
        await asked.send(b"a" * 5)
        asked.finish([("x-sum", "5")])

    backend.default = trailing
    await route2(proxy, backend)
    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-t: 1\r\n\r\n"
    answer = await proxy.talk(request)
    assert answer.endswith(b"\r\n\r\n5\r\naaaaa\r\n0\r\nx-sum: 5\r\n\r\n")
    assert (backend.seen[0].body, backend.seen[0].trailers) == (b"abcde", {"x-t": "1"})
    assert "transfer-encoding" not in backend.seen[0].headers


async def test_http2_on_both_sides_streams_both_ways(proxy: Proxy, backend: Backend2) -> None:
    async def echo(asked: Asked) -> None:
        asked.reply(200, [("content-type", "application/grpc")])
        done = 0
        while not asked.ended.is_set() or done < len(asked.body):
            if done < len(asked.body):
                data, done = asked.body[done:], len(asked.body)
                await asked.send(data)
            await asyncio.sleep(0)
        asked.finish([("grpc-status", "0")])

    backend.default = echo
    await route2(proxy, backend)
    me = await opened(proxy)
    stream = me.ask(method="POST", more=[("content-type", "application/grpc"), ("te", "trailers")], end=False)
    await me.answers[stream].head_came.wait()  # before any content was sent
    for word in (b"one", b"two", b"three"):
        await me.send(stream, word)
        await until(lambda word=word: me.answers[stream].body.endswith(word))
    await me.send(stream, b"!", end=True)
    answer = await me.answer(stream)
    assert (answer.body, answer.trailers) == (b"onetwothree!", {"grpc-status": "0"})


async def test_one_connection_carries_many_requests(proxy: Proxy, backend: Backend2) -> None:
    await route2(proxy, backend)
    me = await opened(proxy)
    streams = [me.ask(f"/{n}") for n in range(50)]
    assert [(await me.answer(stream)).status for stream in streams] == [200] * 50
    assert len(backend.connections) == 1


async def test_as_many_at_a_time_as_the_backend_allows(proxy: Proxy, backend: Backend2) -> None:
    backend.settings = {"MAX_CONCURRENT_STREAMS": 2}
    most = 0

    async def count(asked: Asked) -> None:
        nonlocal most
        most = max(most, asked.speaker.h2.open_inbound_streams)
        await says_ok(asked)

    backend.default = count
    await route2(proxy, backend)
    me = await opened(proxy)
    assert (await me.get()).status == 200
    streams = [me.ask(f"/{n}") for n in range(20)]
    assert [(await me.answer(stream)).status for stream in streams] == [200] * 20
    assert most <= 2


async def test_a_refused_stream_is_asked_again(proxy: Proxy, backend: Backend2, second: Backend2) -> None:
    async def refuse(asked: Asked) -> None:
        asked.speaker.h2.reset_stream(asked.stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        asked.speaker.flush()

    backend.default = refuse
    await route2(proxy, backend, second)
    me = await opened(proxy)
    stream = me.ask(method="POST", more=[("content-length", "1")], end=False)
    await me.send(stream, b"x", end=True)
    assert (await me.answer(stream)).status == 200
    assert (len(backend.seen), len(second.seen)) in ((1, 1), (0, 1))


async def test_goaway_behind_loses_nothing(proxy: Proxy, backend: Backend2) -> None:
    await route2(proxy, backend)
    me = await opened(proxy)
    assert (await me.get()).status == 200
    connection = backend.connections[0]
    connection.h2.close_connection()
    connection.flush()
    assert [(await me.get()).status for _ in range(3)] == [200] * 3
    assert len(backend.connections) == 2


async def test_a_reset_in_front_is_seen_behind(proxy: Proxy, backend: Backend2) -> None:
    async def begin(asked: Asked) -> None:
        asked.reply(200)
        await asked.ended.wait()

    backend.default = begin
    await route2(proxy, backend)
    me = await opened(proxy)
    stream = me.ask(method="POST", end=False)
    await me.answers[stream].head_came.wait()
    me.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    me.flush()
    await until(lambda: backend.seen[0].reset == h2.errors.ErrorCodes.CANCEL)


async def test_a_reset_behind_is_seen_in_front(proxy: Proxy, backend: Backend2) -> None:
    async def half(asked: Asked) -> None:
        asked.reply(200)
        await asked.send(b"half")
        asked.speaker.h2.reset_stream(asked.stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        asked.speaker.flush()

    backend.default = half
    await route2(proxy, backend)
    answer = await (await opened(proxy)).get()
    assert (answer.status, answer.body, answer.reset) == (200, b"half", h2.errors.ErrorCodes.INTERNAL_ERROR)
    assert b"0\r\n\r\n" not in await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


async def test_nobody_there(proxy: Proxy) -> None:
    backend = await Backend2().start()
    await backend.stop()
    await route2(proxy, backend)
    assert (await (await opened(proxy)).get()).status == 503
    grpc = await (await opened(proxy)).get(method="POST", more=[("content-type", "application/grpc")])
    assert (grpc.status, grpc.headers["grpc-status"], grpc.body) == (200, "14", b"")


async def test_a_backend_that_speaks_something_else(proxy: Proxy, server: Server) -> None:
    await proxy.apply(
        Listener("l", 80), Backend("b2", (Endpoint("127.0.0.1", server.port),), "h2c"), make_rule(targets=(Target(1, "b2"),))
    )  # fmt: skip
    server.default = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert (await (await opened(proxy)).get()).status == 503


async def test_a_megabyte_both_ways_behind(proxy: Proxy, backend: Backend2) -> None:
    body = bytes(range(256)) * 4096

    async def echo(asked: Asked) -> None:
        await asked.ended.wait()
        asked.reply(200, [("content-length", str(len(asked.body)))])
        await asked.send(asked.body, end=True)

    backend.default = echo
    await route2(proxy, backend)
    me = await opened(proxy)
    streams = [me.ask(method="PUT", end=False) for _ in range(3)]
    await asyncio.gather(*(me.send(stream, body, end=True) for stream in streams))
    for stream in streams:
        assert (await me.answer(stream)).body == body


async def test_a_slow_client_stops_a_backend_behind(proxy: Proxy, backend: Backend2) -> None:
    sent = 0

    async def pour(asked: Asked) -> None:
        nonlocal sent
        asked.reply(200)
        for _ in range(1024):
            await asked.send(b"x" * 16384)
            sent += 16384

    backend.default = pour
    await route2(proxy, backend)
    me = await opened(proxy)
    me.auto = False
    stream = me.ask()
    await until(lambda: len(me.answers[stream].body) == 65535)
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.05)
    assert sent < MEGABYTE
