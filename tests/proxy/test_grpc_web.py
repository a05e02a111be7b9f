"""gRPC-Web over both versions of HTTP, as it is and as text, with grpcio behind."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import grpc
import msgspec
import pytest
from support.grpc_service import Service
from support.http2_peers import client
from support.proxy import Proxy, make_rule, parsed

from gateway.snapshot import Backend, Endpoint, Listener, Match, PathMatch, Target


def message(data: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(data).to_bytes(4, "big") + data


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Flags and contents."""
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append((data[0], data[5 : 5 + size]))
        data = data[5 + size :]
    return found


def dechunked(body: bytes) -> bytes:
    payload = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        payload, body = payload + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return payload


def untexted(body: bytes) -> bytes:
    return b"".join(
        base64.b64decode(piece + b"=" * (-len(piece) % 4))
        for piece in body.replace(b"=", b"= ").replace(b"= =", b"==").split(b" ")
    )


@pytest.fixture
async def calls(proxy: Proxy) -> AsyncIterator[Service]:
    service = Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    rule = make_rule("r", targets=(Target(1, "g"),), matches=(Match(PathMatch("PathPrefix", "/test.Test")),))
    await proxy.apply(
        Listener("l", 80), Backend("g", (Endpoint("127.0.0.1", port),), "h2c"), msgspec.structs.replace(rule, grpc=True)
    )
    yield service
    await server.stop(0)


async def call(proxy: Proxy, version: str, name: str, body: bytes, kind: str) -> tuple[int, dict[str, str], bytes]:
    """Status, fields, content without framing."""
    if version == "2":
        me = await client(proxy.port)
        stream = me.ask(f"/test.Test/{name}", method="POST", more=[("content-type", kind)], end=False)
        await me.send(stream, body, end=True)
        answer = await me.answer(stream)
        return answer.status, answer.headers, answer.body
    head = f"POST /test.Test/{name} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nConnection: close\r\n".encode()
    if version == "1.1":
        request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        pieces = [body[at : at + 3] for at in range(0, len(body), 3)]
        request = head + b"Transfer-Encoding: chunked\r\n\r\n"
        request += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    status, fields, content = parsed(await proxy.talk(request))
    return status, fields, dechunked(content) if fields.get("transfer-encoding") == "chunked" else content


VERSIONS = ["1.1", "1.1 chunked", "2"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("text", [False, True])
async def test_unary(proxy: Proxy, calls: Service, version: str, text: bool) -> None:
    kind = "application/grpc-web-text+proto" if text else "application/grpc-web+proto"
    body = message(b"hello there")
    status, fields, content = await call(proxy, version, "Unary", base64.b64encode(body) if text else body, kind)
    assert (status, fields["content-type"]) == (200, kind)
    got = frames(untexted(content) if text else content)
    assert got[0] == (0, b"hello there")
    assert got[1][0] == 0x80
    assert b"grpc-status: 0\r\n" in got[1][1]


@pytest.mark.parametrize("version", VERSIONS)
async def test_server_streaming(proxy: Proxy, calls: Service, version: str) -> None:
    _, _, content = await call(proxy, version, "Spread", message(b""), "application/grpc-web")
    got = frames(content)
    assert [len(data) for flag, data in got if not flag] == [31415, 9, 2653, 58979]
    assert got[-1][0] == 0x80


@pytest.mark.parametrize("version", VERSIONS)
async def test_errors(proxy: Proxy, calls: Service, version: str) -> None:
    _, fields, content = await call(proxy, version, "Fail", message(b"no"), "application/grpc-web")
    said = (
        fields
        if "grpc-status" in fields
        else dict(line.split(": ") for line in frames(content)[-1][1].decode().split("\r\n") if line)
    )
    assert (said["grpc-status"], said["grpc-message"]) == ("2", "no")
    await proxy.apply(Backend("g", (), "h2c"))
    status, fields, content = await call(proxy, version, "Unary", message(b"x"), "application/grpc-web")
    assert (status, fields["grpc-status"], fields["content-type"], content) == (200, "14", "application/grpc-web", b"")


async def test_text_that_is_none(proxy: Proxy, calls: Service) -> None:
    _, fields, _ = await call(proxy, "2", "Unary", b"!!!!", "application/grpc-web-text")
    assert fields["grpc-status"] == "13"


def test_text_may_be_padded_anywhere() -> None:
    from gateway.http.http1 import Field, Request
    from gateway.proxy.grpc_web import GrpcWebTranslation

    kind = Field(0, b"content-type", b"application/grpc-web-text", b"content-type: application/grpc-web-text")
    said = base64.b64encode(b"a") + base64.b64encode(b"bcde") + base64.b64encode(b"fgh")
    for cut in range(len(said)):
        web = GrpcWebTranslation(Request(b"POST", b"/", None, False, [kind]), framed=False)
        assert web.incoming(said[:cut]) + web.incoming(said[cut:]) == b"abcdefgh"
