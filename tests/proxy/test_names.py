"""Fields whose names backends cannot tell from others: `X_User` beside `X-User` (RFC 3875 §4.1.18).

What stands for a field that the gateway, a filter or an authorization server writes never goes on; other names with an
underscore do as the Gateway says. On every way that a head can take.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from support import framing_readers as reading
from support.http2_peers import Backend2, client, until
from support.proxy import OK, Proxy, Server, make_rule, parsed

from gateway.snapshot import (
    Backend,
    Endpoint,
    ExternalAuth,
    Limits,
    Listener,
    Mirror,
    RequestHeaders,
    Script,
    Scripted,
    Target,
)

FIELDS = (b"X_User: admin", b"X-User: me", b"x.user: admin", b"Content_Length: 5", b"X_Forwarded_For: 6.6.6.6", b"X_Trace: 1")
BARE = "def request(request):\n    request.headers['X-User'] = 'filter'\n"
ASYNC = "async def request(request):\n    request.headers['X-User'] = 'filter'\n"
POPS = "def request(request):\n    request.headers.pop('X-User', None)\n"


async def repeated(proxy: Proxy, *fields: bytes, times: int = 6) -> list[bytes]:
    """The same head but for one value, on one connection: after the second it takes the fast path, where the rule allows it."""
    reader, writer = await proxy.connect()
    for n in range(times):
        writer.write(b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", b"X-Id: %d" % n, *fields, b"", b""]))
        assert await reader.readexactly(len(OK)) == OK
    writer.close()
    return fields  # type: ignore[return-value]


def names(head: bytes) -> set[bytes]:
    return {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]}


@pytest.mark.parametrize("execution", ["inline", "process"])
@pytest.mark.parametrize("source", ["", BARE, ASYNC, POPS], ids=["edit", "plain", "async", "pop"])
async def test_edited_fields_on_the_short_way_and_in_full(
    proxy: Proxy, server: Server, source: str, execution: Literal["inline", "process"]
) -> None:
    if source:
        await proxy.apply(Script("f", source, execution=execution, is_tried=False))
    await proxy.route(server, filters=(Scripted("f") if source else RequestHeaders(set=(("X-User", "filter"),)),))
    await repeated(proxy, *FIELDS)
    me = await client(proxy.port)
    for _ in range(2):
        await me.get(more=[(name.lower().decode(), value.decode()) for name, _, value in (f.partition(b": ") for f in FIELDS)])
    assert len(server.seen) == 8
    for head in server.seen:
        assert b"admin" not in head
        assert b"6.6.6.6" not in head
        assert names(head).isdisjoint({b"x_user", b"x.user", b"content_length", b"x_forwarded_for"})
        assert b"x_trace: 1\r\n" in head.lower()
        assert (b"x-user: filter\r\n" in head.lower()) == (source != POPS)


@pytest.mark.parametrize("execution", ["inline", "process"])
async def test_an_edit_with_only_a_look_alike(proxy: Proxy, server: Server, execution: Literal["inline", "process"]) -> None:
    """A filter that removes a field which is not there has removed what stands for it."""
    await proxy.apply(Script("f", POPS, execution=execution, is_tried=False))
    await proxy.route(server, filters=(Scripted("f"),))
    await repeated(proxy, b"X_User: admin")
    assert all(b"admin" not in head for head in server.seen)


@pytest.mark.parametrize("version", ["1", "2"])
async def test_what_an_authorization_server_says(proxy: Proxy, server: Server, other: Server, version: str) -> None:
    other.default = b"HTTP/1.1 200 OK\r\nX-User: auth\r\nX_Group: staff\r\nContent-Length: 0\r\n\r\n"
    await proxy.apply(Backend("auth", (Endpoint("127.0.0.1", other.port),)))
    await proxy.route(server, filters=(ExternalAuth("auth"),))
    if version == "1":
        await repeated(proxy, *FIELDS, b"X_Group: root", b"X-Group: root", times=1)
    else:
        me = await client(proxy.port)
        await me.get(more=[("x_user", "admin"), ("x.user", "admin"), ("x-user", "me"), ("x_group", "root")])
    (head,) = server.seen
    assert b"admin" not in head
    assert b"\r\nX-User: auth\r\n" in head
    assert b"\r\nX_Group: staff\r\n" in head
    assert b"x_group: root" not in head.lower()


@pytest.mark.parametrize("delayed", [False, True])
async def test_trailers_in_place_of_what_an_authorization_server_says(proxy: Proxy, other: Server, delayed: bool) -> None:
    """Whether the body has ended before its answer comes, or after that."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def auth(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        asked.set()
        if delayed:
            await ended.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nX-User: auth\r\nContent-Length: 0\r\n\r\n")

    other.default = auth
    backend = await reading.Backend(reading.STRICT).start()
    await proxy.apply(
        Listener("l", 80), Backend("auth", (Endpoint("127.0.0.1", other.port),)), Backend("b", (Endpoint("127.0.0.1", backend.port),)),
        make_rule(hostname="a", targets=(Target(1, "b"),), filters=(ExternalAuth("auth"),)),
    )  # fmt: skip
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await asked.wait()
    if not delayed:
        await until(lambda: backend.streams)
    writer.write(b"0\r\nX-User: admin\r\nX_User: admin\r\nX-Sum: 1\r\n\r\n")
    if delayed:
        assert (await proxy.get(host="nobody"))[0] == 404  # a round trip later it is there
        ended.set()
    assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    (seen,) = backend.seen(reading.STRICT)
    assert (seen.values(b"x-user"), seen.body) == ([b"auth"], b"hello")
    assert seen.trailers == ([] if delayed else [(b"x-sum", b"1")])
    await backend.stop()


async def test_mirrors_get_no_more(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.apply(Backend("m", (Endpoint("127.0.0.1", other.port),)))
    await proxy.route(server, filters=(Mirror("m"), RequestHeaders(remove=("X-User",))))
    await repeated(proxy, *FIELDS)
    for head in (*server.seen, *other.seen):
        assert b"admin" not in head
        assert b"content_length" not in head.lower()


async def test_the_gateways_choice_is_in_force_for_connections_that_stand(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    reader, writer = await proxy.connect()
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX_Trace: 1\r\n\r\n"
    for how in ("Allow", "Drop", "Allow"):
        await proxy.apply(Listener("l", 80, limits=Limits(underscores=how)))  # type: ignore[arg-type]
        for _ in range(4):
            writer.write(request)
            assert await reader.readexactly(len(OK)) == OK
            assert (b"X_Trace: 1\r\n" in server.seen[-1]) == (how == "Allow")
    await proxy.apply(Listener("l", 80, limits=Limits(underscores="Reject")))
    writer.write(request)
    answer = parsed(await reader.read())
    assert answer[0] == 400
    assert answer[2] == b"the name of a field has an underscore: x_trace\n"
    writer.close()


async def test_metadata_of_honest_grpc_clients_arrives(proxy: Proxy) -> None:
    """Names with an underscore are legal there and in use (gRPC over HTTP/2, Custom-Metadata), so they pass by default."""
    backend = await Backend2().start()
    await proxy.apply(
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", backend.port),), "h2c"), make_rule(targets=(Target(1, "b"),))
    )  # fmt: skip
    me = await client(proxy.port)
    stream = me.ask(
        "/pkg.Svc/Call",
        method="POST",
        more=[("content-type", "application/grpc"), ("user_id", "7"), ("te", "trailers")],
        end=False,
    )
    await me.send(stream, b"\0\0\0\0\0", end=True)
    assert (await me.answer(stream)).status == 200
    assert backend.seen[0].headers["user_id"] == "7"
    await backend.stop()
