"""ExternalAuth: a backend says who may pass, by HTTP and by gRPC."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.http2_peers import client
from support.proxy import OK, Proxy, Server, parsed

from gateway.proxy.external_auth import protobuf
from gateway.proxy.external_auth.protobuf import Message
from gateway.snapshot import Backend, Cors, Endpoint, ExternalAuth, Fault, Redirect, Timeouts

YES = b"HTTP/1.1 200 OK\r\nX-Id: 7\r\nX-Other: no\r\nContent-Length: 3\r\n\r\nyes"
NO = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno"


async def guarded(proxy: Proxy, server: Server, other: Server, **spec: Any) -> None:
    await proxy.apply(Backend("auth", (Endpoint("127.0.0.1", other.port),)))
    await proxy.route(server, filters=(ExternalAuth("auth", **spec),))


async def test_who_may_pass(proxy: Proxy, server: Server, other: Server) -> None:
    other.default = YES
    await guarded(proxy, server, other, path="/check/", allowed_headers=("x-user",), allowed_response_headers=("x-id",))
    status, _, body = await proxy.get("/a?b", x_user="me", x_secret="s", authorization="Bearer x", x_id="forged")
    assert (status, body) == (200, b"ok")
    question = other.seen[0]
    assert question.startswith(b"GET /check/a?b HTTP/1.1\r\nHost: example.com\r\n")
    assert b"\r\nx-user: me\r\n" in question
    assert b"\r\nauthorization: Bearer x\r\n" in question
    assert b"x-secret" not in question
    passed = server.seen[0]
    assert b"\r\nX-Id: 7\r\n" in passed
    assert b"forged" not in passed
    assert b"X-Other" not in passed


async def test_who_may_not(proxy: Proxy, server: Server, other: Server) -> None:
    other.default = NO
    await guarded(proxy, server, other)
    status, fields, body = await proxy.get()
    assert (status, fields["www-authenticate"], body) == (401, "Basic", b"no")
    me = await client(proxy.port)
    answer = await me.get()
    assert (answer.status, answer.headers["www-authenticate"], answer.body) == (401, "Basic", b"no")
    assert not server.seen


@pytest.mark.parametrize(
    "reply", [b"not HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, b""]
)
async def test_no_answer_is_a_no(proxy: Proxy, server: Server, other: Server, reply: bytes) -> None:
    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.close()

    other.default = reply or cut
    await guarded(proxy, server, other)
    assert (await proxy.get())[0] == 503
    await proxy.apply(Backend("auth"))
    assert (await proxy.get())[0] == 503
    assert not server.seen


async def test_silence_is_a_no(proxy: Proxy, server: Server, other: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.sleep(5)

    monkeypatch.setattr("gateway.proxy.external_auth.check.PATIENCE", 0.05)
    other.default = never
    await guarded(proxy, server, other)
    assert (await proxy.get())[0] == 503


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("limit", "shown"), [(0, b""), (3, b"hel"), (100, b"hello")])
async def test_bodies(proxy: Proxy, server: Server, other: Server, limit: int, shown: bytes, chunked: bool) -> None:
    other.default = YES
    await guarded(proxy, server, other, body_bytes=limit)
    if chunked:
        sent = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    else:
        sent = b"Content-Length: 5\r\n\r\nhello"
    assert parsed(await proxy.talk(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + sent))[0] == 200
    assert other.seen[0].endswith(b"\r\n\r\n" + shown)
    assert server.seen[0].endswith(b"5\r\nhello\r\n0\r\n\r\n" if chunked else b"\r\n\r\nhello")


async def test_a_large_body_waits_for_the_answer_and_passes(proxy: Proxy, server: Server, other: Server) -> None:
    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        await asyncio.sleep(0.1)
        writer.write(YES)

    other.default = late
    await guarded(proxy, server, other)
    body = b"x" * 3_000_000
    reader, writer = await proxy.connect()
    writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert await asyncio.wait_for(reader.readexactly(len(OK)), 5) == OK
    assert server.seen[0].endswith(body)
    writer.close()


async def test_a_client_that_waits_to_be_asked_for_its_body(proxy: Proxy, server: Server, other: Server) -> None:
    other.default = YES
    await guarded(proxy, server, other, body_bytes=100)
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(len(OK)), 5) == OK
    assert other.seen[0].endswith(b"hello")
    assert b"Expect" not in server.seen[0]
    writer.close()


async def test_the_route_s_time_is_for_the_question_too(proxy: Proxy, server: Server, other: Server) -> None:
    async def never(*_: object) -> None:
        await asyncio.sleep(5)

    other.default = never
    await proxy.apply(Backend("auth", (Endpoint("127.0.0.1", other.port),)))
    await proxy.route(server, filters=(ExternalAuth("auth"),), timeouts=Timeouts(request=0.05))
    assert (await proxy.get())[0] == 504


async def test_a_client_that_leaves_takes_its_question_along(proxy: Proxy, server: Server, other: Server) -> None:
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter, __: bytes) -> None:
        try:
            await reader.read()
        except ConnectionError:
            pass
        gone.set()

    other.default = wait
    await guarded(proxy, server, other)
    _, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(5):
        while not other.seen:
            await asyncio.sleep(0.001)
        # A reset: a client that only closes its half may still wait for the answer.
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await gone.wait()


# --- gRPC ---


class Checker(grpc.GenericRpcHandler):
    """envoy.service.auth.v3.Authorization."""

    def __init__(self) -> None:
        self.answer = Message()
        self.asked: list[protobuf.ParsedMessage] = []

    def service(self, details: Any) -> Any:
        if details.method == "/envoy.service.auth.v3.Authorization/Check":
            return grpc.unary_unary_rpc_method_handler(self.check)
        return None

    async def check(self, request: bytes, _: Any) -> bytes:
        attributes = protobuf.read(protobuf.read(request).first(1))
        self.asked.append(protobuf.read(protobuf.read(attributes.first(4)).first(2)))
        return bytes(self.answer)


@pytest.fixture
async def checker(proxy: Proxy, server: Server) -> AsyncIterator[Checker]:
    made = Checker()
    running = grpc.aio.server()
    running.add_generic_rpc_handlers((made,))
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    await proxy.apply(Backend("auth", (Endpoint("127.0.0.1", port),), "h2c"))
    await proxy.route(server, filters=(ExternalAuth("auth", "GRPC", body_bytes=3),))
    yield made
    await running.stop(0)


def option(name: bytes, value: bytes) -> Message:
    return Message().put(1, Message().put(1, name).put(2, value))


async def test_grpc_who_may_pass(proxy: Proxy, server: Server, checker: Checker) -> None:
    checker.answer = Message().put(1, Message()).put(3, Message().put(2, option(b"x-id", b"7")).put(5, b"X-Secret"))
    request = b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-Secret: s\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    assert parsed(await proxy.talk(request))[0] == 200
    (asked,) = checker.asked
    assert (asked.first(2), asked.first(4), asked.first(5), asked.first(12)) == (b"POST", b"/a?b", b"h", b"hel")
    headers = {protobuf.read(entry).first(1): protobuf.read(entry).first(2) for entry in asked.all(3)}
    assert headers[b"x-secret"] == b"s"
    assert b"\r\nx-id: 7\r\n" in server.seen[0]
    assert b"X-Secret" not in server.seen[0]
    assert server.seen[0].endswith(b"hello")


async def test_grpc_who_may_not(proxy: Proxy, server: Server, checker: Checker) -> None:
    denied = Message().put(1, Message().put(1, 429)).put(2, option(b"retry-after", b"9")).put(3, b"slow down")
    checker.answer = Message().put(1, Message().put(1, 7)).put(2, denied)
    status, fields, body = await proxy.get()
    assert (status, fields["retry-after"], body) == (429, "9", b"slow down")
    checker.answer = Message().put(1, Message().put(1, 7))
    assert (await proxy.get())[0] == 403
    bad = Message().put(1, Message().put(1, 404)).put(2, option(b"x", b"a\r\nb: c"))
    checker.answer = Message().put(1, Message().put(1, 7)).put(2, bad)
    status, fields, _ = await proxy.get()
    assert (status, "b" in fields) == (404, False)
    assert not server.seen


async def test_all_are_asked(proxy: Proxy, server: Server, other: Server) -> None:
    """The listener's and the rule's are two parties': neither takes the other's place, and one no is enough."""
    third = await Server().start()
    try:
        await proxy.apply(
            Backend("first", (Endpoint("127.0.0.1", other.port),)), Backend("second", (Endpoint("127.0.0.1", third.port),))
        )
        both = (ExternalAuth("first", allowed_response_headers=("x-id",)), ExternalAuth("second", allowed_headers=("x-id",)))
        await proxy.route(server, filters=both)
        for first, second, status in ((YES, YES, 200), (NO, YES, 401), (YES, NO, 401), (NO, NO, 401)):
            other.default, third.default = first, second
            for seen in (other.seen, third.seen, server.seen):
                seen.clear()
            assert (await proxy.get())[0] == status
            me = await client(proxy.port)
            assert (await me.get()).status == status
            assert (len(other.seen), len(third.seen), len(server.seen)) == (
                2,
                2 if first == YES else 0,
                2 if status == 200 else 0,
            )
            if status == 200:
                assert all(b"\r\nx-id: 7\r\n" in seen.lower() for seen in third.seen), "what one has added, the next one sees"
    finally:
        await third.stop()


@pytest.mark.parametrize("sizes", [(10, 200_000), (200_000, 10), (100, 100), (0, 5), (5, 0)])
async def test_all_are_shown_the_body_that_they_want(
    proxy: Proxy, server: Server, other: Server, sizes: tuple[int, int]
) -> None:
    third = await Server().start()
    try:
        other.default = third.default = YES
        await proxy.apply(
            Backend("first", (Endpoint("127.0.0.1", other.port),)), Backend("second", (Endpoint("127.0.0.1", third.port),))
        )
        await proxy.route(
            server, filters=(ExternalAuth("first", body_bytes=sizes[0]), ExternalAuth("second", body_bytes=sizes[1]))
        )
        body = b"x" * 300_000
        answer = await proxy.talk(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n" + body, half_close=False
        )
        assert parsed(answer)[0] == 200
        for one, size in zip((other, third), sizes, strict=True):
            assert len(one.seen[0].partition(b"\r\n\r\n")[2]) == size
        assert server.seen[0].endswith(body)
    finally:
        await third.stop()


async def test_nothing_answers_before_a_fault(proxy: Proxy, server: Server) -> None:
    """A filter that must be there and is not: no redirect, no preflight is answered as if it were."""
    allow = Cors(("https://a.example",), allow_methods=("GET",))
    await proxy.route(server, filters=(Fault(500, "not valid"), allow, Redirect(hostname="other.example")))
    assert (await proxy.get())[0] == 500
    preflight = b"OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\nConnection: close\r\n\r\n"
    assert parsed(await proxy.talk(preflight))[0] == 500
    await proxy.route(server, filters=(Redirect(hostname="other.example"),), targets=())
    assert (await proxy.get())[0] == 302
