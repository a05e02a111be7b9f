"""Nothing that follows a request for another protocol reaches a backend before both sides have changed to it.

A backend that does not upgrade reads whatever follows the head as its next request: routed by nobody, filtered by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.http2_peers import Answer, Backend2, Client, client, until
from support.proxy import OK, Proxy, Server, parsed
from support.websocket import SWITCH, WEBSOCKET

from gateway.snapshot import Backend, Endpoint, Mirror, Retry, Script, Scripted

FORGED = b"GET /forged HTTP/1.1\r\nHost: internal\r\nX-User: admin\r\n\r\n"


Backs = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


async def opened(proxy: Proxy) -> Client:
    me = await client(proxy.port)
    await until(lambda: me.h2.remote_settings.enable_connect_protocol)
    return me


async def ask(me: Client, *ahead: bytes, end: bool = False) -> tuple[int, Answer]:
    """An extended CONNECT with content sent at once behind its head."""
    stream = me.ask("/chat", method="CONNECT", more=WEBSOCKET, end=False)
    for data in ahead:
        me.h2.send_data(stream, data)
    if end:
        me.h2.end_stream(stream)
    me.flush()
    return stream, me.answers[stream]


def remembering(seen: list[bytes], *answers: bytes) -> Backs:
    """A backend that collects every byte of a connection, and answers each head that it finds in them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        seen.append(head)
        for answer in answers:
            writer.write(answer)
        while data := await reader.read(65536):
            seen[-1] += data

    return serve


@pytest.mark.parametrize("status", [200, 204, 206, 299])
async def test_success_without_a_change_is_an_error(proxy: Proxy, server: Server, status: int) -> None:
    """RFC 8441 §5: a 2xx means that the tunnel is open, and nobody opened one."""
    seen: list[bytes] = []
    server.default = remembering(seen, b"HTTP/1.1 %d OK\r\nContent-Length: 0\r\n\r\n" % status)
    await proxy.route(server)
    me = await opened(proxy)
    for _ in range(20):
        stream, _ = await ask(me, FORGED)
        answer = await me.answer(stream)
        assert (answer.status, b"101" in answer.body or b"change" in answer.body) == (502, True)
    assert all(head.startswith(b"GET /chat HTTP/1.1\r\n") and head.count(b"HTTP/1.1") == 1 for head in seen)
    assert len(seen) == 20


@pytest.mark.parametrize("ended", [False, True])
async def test_success_is_an_error_as_well_where_its_head_is_known_from_before(
    proxy: Proxy, server: Server, ended: bool
) -> None:
    """Responses whose heads have passed before go on unread; to whoever asked for another protocol they never do."""
    server.default = OK
    await proxy.route(server)
    me = await opened(proxy)
    for _ in range(5):
        assert (await me.get("/plain")).status == 200
        stream, _ = await ask(me, FORGED, end=ended)
        assert (await me.answer(stream)).status == 502
    assert [head.split(b" ")[1] for head in server.seen] == [b"/plain", b"/chat"] * 5
    assert server.connections == 5  # none on which another protocol was asked for is used again


@pytest.mark.parametrize("status", [301, 403, 404, 500])
async def test_a_refusal_is_passed_on_and_what_was_sent_ahead_is_dropped(proxy: Proxy, server: Server, status: int) -> None:
    server.default = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status
    await proxy.route(server)
    me = await opened(proxy)
    for ended in (False, True):
        stream, _ = await ask(me, FORGED, FORGED, end=ended)
        answer = await me.answer(stream)
        assert (answer.status, answer.body) == (status, b"no")
    assert (await me.get("/next")).status == status  # the connection to the backend is still in step
    assert [head.split(b" ")[1] for head in server.seen] == [b"/chat", b"/chat", b"/next"]
    assert server.connections == 1


@pytest.mark.parametrize("ended", [False, True])
async def test_what_was_sent_ahead_waits_for_101(proxy: Proxy, server: Server, ended: bool) -> None:
    seen: list[bytes] = []
    may_switch = asyncio.Event()

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        reading = asyncio.create_task(reader.read(65536))
        seen.append(head)
        await may_switch.wait()
        assert not reading.done()
        writer.write(SWITCH)
        seen.append(await reading)
        while data := await reader.read(65536):
            seen[-1] += data
        writer.write(b"bye")
        writer.write_eof()

    server.default = upgrade
    await proxy.route(server, hostname="example.com")
    me = await opened(proxy)
    stream, answer = await ask(me, b"one ", b"two", end=ended)
    await until(lambda: seen)
    await me.get("/nowhere", host="elsewhere.example")  # a round trip: what was sent ahead has come
    may_switch.set()
    await answer.head_came.wait()
    assert answer.status == 200
    if not ended:
        await me.send(stream, b" three", end=True)
    assert (await me.answer(stream)).body == b"bye"
    assert seen[1] == (b"one two" if ended else b"one two three")


async def test_a_window_bounds_what_waits(proxy: Proxy, server: Server) -> None:
    """While nobody has agreed, the client is given no more credit than it began with."""
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        asked.set()
        await reader.read(1)

    server.default = silent
    await proxy.route(server, hostname="example.com")
    me = await opened(proxy)
    stream, _ = await ask(me)
    await asked.wait()
    sent = 0
    while (room := min(me.h2.local_flow_control_window(stream), 16384)) > 0:
        me.h2.send_data(stream, b"x" * room)
        me.flush()
        sent += room
    await me.get("/nowhere", host="elsewhere.example")
    assert me.h2.local_flow_control_window(stream) == 0
    assert sent == 1 << 18
    me.h2.reset_stream(stream)
    me.flush()
    seen = server.seen
    assert [head.count(b"HTTP/1.1") for head in seen] == [1]
    await until(lambda: not server._serving)  # and a client that gives up is followed by its backend


@pytest.mark.parametrize("chosen", [b"", b"Upgrade: h2c\r\n", b"Upgrade: websocket, other\r\n"])
@pytest.mark.parametrize("front", [1, 2])
async def test_a_change_to_what_nobody_asked_for(proxy: Proxy, server: Server, front: int, chosen: bytes) -> None:
    """RFC 9110 §7.8: a server changes only to a protocol that the request named."""
    seen: list[bytes] = []
    server.default = remembering(seen, b"HTTP/1.1 101 Switching Protocols\r\n" + chosen + b"Connection: Upgrade\r\n\r\n")
    await proxy.route(server)
    if front == 2:
        me = await opened(proxy)
        stream, _ = await ask(me, FORGED)
        assert (await me.answer(stream)).status == 502
    else:
        request = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert (await proxy.talk(request)).startswith(b"HTTP/1.1 502 ")
    assert len(seen) == 1
    assert b"forged" not in seen[0]


async def test_http1_what_was_sent_ahead_is_a_request_where_nobody_changed(proxy: Proxy, server: Server) -> None:
    """On HTTP/1.1 it is the client's next request: it is routed like any other, and not written behind the first."""
    await proxy.route(server, matches=(), name="none")
    await proxy.route(server)
    request = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    said = await proxy.talk(request + b"GET /next HTTP/1.1\r\nHost: a\r\nX-User: b\r\nConnection: close\r\n\r\n")
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert [head.split(b" ")[1] for head in server.seen] == [b"/chat", b"/next"]
    assert all(b"X-Forwarded-For: 127.0.0.1\r\n" in head for head in server.seen)


async def test_a_retry_says_the_head_only(proxy: Proxy, server: Server) -> None:
    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    seen: list[bytes] = []

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(SWITCH)
        seen.append(await reader.readexactly(5))
        writer.write_eof()

    server.replies = [closes, upgrade]
    await proxy.route(server, retry=Retry(codes=(503,), attempts=2))
    me = await opened(proxy)
    stream, _ = await ask(me, b"hello", end=True)
    assert (await me.answer(stream)).status == 200
    assert seen == [b"hello"]
    assert all(head.endswith(b"\r\n\r\n") for head in server.seen)


async def test_mirrors_do_not_change_protocols(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.apply(Backend("mirror", (Endpoint("127.0.0.1", other.port),)))
    await proxy.route(server, filters=(Mirror("mirror"),))
    server.default = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    me = await opened(proxy)
    stream, _ = await ask(me, FORGED)
    assert (await me.answer(stream)).status == 404
    for _ in range(3):
        await me.get("/plain")
    await until(lambda: len(other.seen) == 3)
    assert {head.split(b" ")[1] for head in other.seen} == {b"/plain"}


@pytest.mark.parametrize(
    "source",
    [
        "from gateway.filters.api import Response\ndef request(request):\n    return Response(200, body='all is well')\n",
        "from gateway.filters.api import Response\nasync def request(request):\n    return Response(204)\n",
        "def response(request, response):\n    response.status = 200\n",
    ],
)
async def test_a_filter_cannot_say_that_a_tunnel_is_open(proxy: Proxy, server: Server, source: str) -> None:
    server.default = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    await proxy.apply(Script("f", source))
    await proxy.route(server, filters=(Scripted("f"),))
    me = await opened(proxy)
    stream, _ = await ask(me, FORGED)
    answer = await me.answer(stream)
    assert answer.status == 502
    assert b"another protocol was asked for" in answer.body
    assert (await me.get("/next")).status in (200, 204)


async def test_http2_behind(proxy: Proxy) -> None:
    """A backend that refuses the extended CONNECT gets nothing but its head."""
    content: list[bytes] = []

    async def refuses(asked: Any) -> None:
        asked.reply(403, end=True)
        content.append(bytes(asked.body))

    backend = Backend2(ENABLE_CONNECT_PROTOCOL=1)
    backend.settings = {"ENABLE_CONNECT_PROTOCOL": 1}
    await backend.start()
    backend.default = refuses
    try:
        await proxy.apply(Backend("b-r", (Endpoint("127.0.0.1", backend.port),), protocol="h2c"))
        await proxy.apply(*_route("b-r"))
        me = await opened(proxy)
        stream, _ = await ask(me, FORGED)
        assert (await me.answer(stream)).status == 403
        assert content == [b""]
    finally:
        await backend.stop()


def _route(backend: str) -> tuple[Any, ...]:
    from support.proxy import make_rule

    from gateway.snapshot import Listener, Target

    return Listener("l", 80), make_rule(targets=(Target(1, backend),))


class Halves:
    """A mirror that answers when it is told to, whatever it has been told so far, and remembers each connection's bytes."""

    def __init__(self) -> None:
        self.connections: list[bytes] = []
        self.may_answer = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        self.connections.append(head)
        mine = len(self.connections) - 1
        answering = asyncio.create_task(self.answer(writer))
        while data := await reader.read(65536):
            self.connections[mine] += data
        await answering

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        await self.may_answer.wait()
        writer.write(OK)


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_a_mirrored_request_that_breaks_off_ends_its_connection(
    proxy: Proxy, server: Server, other: Server, framing: bytes
) -> None:
    """The client goes away in the middle of the body, then the mirror answers: what is mirrored next is no part of that body."""
    halves = Halves()
    other.default = halves.serve
    reached = asyncio.Event()

    async def reads_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        reached.set()
        await reader.read()

    server.default = reads_on
    await proxy.apply(Backend("mirror", (Endpoint("127.0.0.1", other.port),)))
    await proxy.route(server, filters=(Mirror("mirror"),))
    _, writer = await proxy.connect()
    begun = b"5\r\nhello\r\n" if b"chunked" in framing else b"hello"
    writer.write(b"POST /first HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (framing, begun))
    await reached.wait()
    await until(lambda: halves.connections and halves.connections[0].endswith(begun))
    writer.transport.abort()
    await until(lambda: not server._serving)
    halves.may_answer.set()
    server.default = OK
    assert (await proxy.get("/second"))[0] == 200
    await until(lambda: b"/second" in b"".join(halves.connections))
    assert [one.split(b" ")[1] for one in halves.connections] == [b"/first", b"/second"]
    assert b"/second" not in halves.connections[0]


async def test_a_mirror_gets_what_came_while_a_filter_was_asked(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.apply(
        Backend("mirror", (Endpoint("127.0.0.1", other.port),)),
        Script("f", "import asyncio\nasync def request(request):\n    await asyncio.sleep(0)\n    await request.body()\n"),
    )
    await proxy.route(server, filters=(Scripted("f"), Mirror("mirror")))
    for framed in (b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"):
        said = await proxy.talk(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + framed)
        assert parsed(said)[0] == 200
    await until(lambda: len(other.seen) == 2)
    assert all(b"hello" in one for one in other.seen)
    assert [one.partition(b"\r\n\r\n")[2] for one in other.seen] == [one.partition(b"\r\n\r\n")[2] for one in server.seen]
