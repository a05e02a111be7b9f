"""Content that somebody puts in place of other content, or waits for: it ends once, and what is not wanted stays what it is."""

from __future__ import annotations

import textwrap
from typing import Any

import msgspec
import pytest
from support.http2_peers import client
from support.proxy import OK, Proxy, Server, make_rule, parsed

from gateway.snapshot import Backend, Endpoint, ExternalAuth, Listener, Part, Script, Scripted, Target

WEB = b"POST /a.B/C HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/grpc-web-text\r\n"


@pytest.fixture(params=["inline", "process"])
def execution(request: pytest.FixtureRequest) -> Any:
    return request.param


def filtered(server: Server, source: str, execution: Any) -> tuple[Part, ...]:
    source = "from gateway.filters.api import Response, log\n" + textwrap.dedent(source)
    rule = make_rule("r", targets=(Target(1, "b"),), filters=(Scripted("s"),))
    script = Script("s", source, execution=execution, is_tried=False)
    return Listener("l", 80), script, Backend("b", (Endpoint("127.0.0.1", server.port),)), rule


async def asked_by_grpc_web(proxy: Proxy, server: Server, *filters: Any) -> None:
    rule = make_rule("r", targets=(Target(1, "g"),), filters=filters)
    await proxy.apply(
        Listener("l", 80), Backend("g", (Endpoint("127.0.0.1", server.port),)), msgspec.structs.replace(rule, grpc=True)
    )


async def test_a_response_that_was_read_and_replaced_ends_once(proxy: Proxy, server: Server, execution: Any) -> None:
    """Its content is whole before the filter lets the head go on, and goes through those that see it in pieces."""
    source = """
        async def response(request, response):
            response.set_body(await response.body() + b"!")
        def response_body(chunk):
            return chunk.data.upper()
    """
    await proxy.apply(*filtered(server, source, execution))
    reader, writer = await proxy.connect()
    for _ in range(3):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\nOK!\r\n0\r\n\r\n"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


async def test_content_that_a_filter_replaced_is_no_request(proxy: Proxy, server: Server, execution: Any) -> None:
    """A client's content comes when the backend has long been told other content, and has answered."""
    source = """
        def request(request):
            request.set_body(b"hello")
        def request_body(chunk):
            return chunk.data.upper()
    """
    await proxy.apply(*filtered(server, source, execution))
    inner = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inner))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    writer.write(inner)
    writer.write_eof()
    rest = await reader.read()
    writer.close()
    assert b"HTTP/1.1" not in rest
    assert len(server.seen) == 1
    assert b"HELLO" in server.seen[0]
    assert b"evil" not in server.seen[0]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 4\r\n\r\n!!!!", b"Transfer-Encoding: chunked\r\n\r\n4\r\n!!!!\r\n0\r\n\r\n"]
)
async def test_text_that_is_none_while_somebody_is_asked(proxy: Proxy, server: Server, other: Server, framing: bytes) -> None:
    await proxy.apply(Backend("auth", (Endpoint("127.0.0.1", other.port),)))
    await asked_by_grpc_web(proxy, server, ExternalAuth("auth", body_bytes=100))
    assert parsed(await proxy.talk(WEB + framing))[0] in (200, 400)  # gRPC has its errors in trailers
    assert not server.seen


async def test_a_web_call_that_waited_goes_on_as_grpc(proxy: Proxy, server: Server, other: Server) -> None:
    """What came while somebody was asked is translated when it may pass."""
    await proxy.apply(Backend("auth", (Endpoint("127.0.0.1", other.port),)))
    await asked_by_grpc_web(proxy, server, ExternalAuth("auth", body_bytes=100))

    server.replies = [OK]
    assert parsed(await proxy.talk(WEB + b"Content-Length: 8\r\n\r\nAAAAAAA="))[0] == 200
    assert server.seen[0].endswith(b"5\r\n\0\0\0\0\0\r\n0\r\n\r\n")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n"])
async def test_a_web_call_that_is_answered_without_content(proxy: Proxy, server: Server, answer: bytes) -> None:
    server.default = answer
    await asked_by_grpc_web(proxy, server)
    said = await proxy.talk(WEB + b"Content-Length: 8\r\n\r\nAAAAAAA=")
    assert said.endswith(b"\r\n\r\n")
    assert not said.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("length", [True, False])
async def test_less_than_an_authorization_server_wants_to_see(
    proxy: Proxy, server: Server, other: Server, length: bool
) -> None:
    """On HTTP/2 the end comes by itself, also where the length was said."""
    await proxy.apply(Backend("auth", (Endpoint("127.0.0.1", other.port),)))
    await proxy.route(server, filters=(ExternalAuth("auth", body_bytes=100),))
    me = await client(proxy.port)
    stream = me.ask("/", method="POST", more=[("content-length", "3")] if length else [], end=False)
    await me.send(stream, b"ab")
    await me.send(stream, b"c", end=True)
    assert (await me.answer(stream)).status == 200
    assert other.seen[0].endswith(b"abc")
