"""Endpoints that do not answer stand aside, and come back; endpoints that have less to do, or that a client belongs to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.http2_peers import until
from support.proxy import Proxy, Server, make_rule

from gateway.snapshot import Backend, Endpoint, Health, HealthMatch, Listener, Target


async def serve(proxy: Proxy, *servers: Server, hashed: bool = False, **options: Any) -> None:
    endpoints = tuple(Endpoint("127.0.0.1", server.port) for server in servers)
    await proxy.apply(
        Listener("l", 80), Backend("b", endpoints, **options), make_rule("r", targets=(Target(1, "b", hashed=hashed),))
    )


def asked(server: Server) -> int:
    return sum(b"GET /health" not in one for one in server.seen)


def answer(status: int, body: bytes = b"", *lines: bytes) -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(body), *lines])
    return head + b"\r\n\r\n" + body


async def is_asked(proxy: Proxy, server: Server, times: int = 4) -> bool:
    """Whether an endpoint gets requests."""
    before = asked(server)
    for _ in range(times):
        await proxy.get()
    return asked(server) > before


@pytest.mark.parametrize(
    ("bad", "matches"),
    [
        (answer(503), ()),
        (answer(200, b"no"), (HealthMatch(body="well"),)),
        (answer(204), (HealthMatch((200,)),)),
        (answer(200, b"well"), (HealthMatch((200,), "well", (("x-state", "up"),)),)),
    ],
    ids=["status", "body", "another status", "field"],
)
async def test_an_endpoint_that_is_not_well_stands_aside(
    proxy: Proxy, server: Server, other: Server, bad: bytes, matches: tuple[HealthMatch, ...]
) -> None:
    good = answer(200, b"well", b"X-State: up")
    server.default = other.default = good
    await serve(proxy, server, other, health=Health(0.02, 2, path="/health", matches=matches))
    await until(lambda: server.seen and other.seen)
    assert await is_asked(proxy, server)
    server.default = bad
    async with asyncio.timeout(5):
        while await is_asked(proxy, server):
            pass
    assert await is_asked(proxy, other)
    server.default = good
    async with asyncio.timeout(5):
        while not await is_asked(proxy, server):
            pass


async def test_an_endpoint_that_takes_no_connections_stands_aside(proxy: Proxy, server: Server, other: Server) -> None:
    await other.stop()
    await serve(proxy, server, other, health=Health(0.02, 1))
    endpoints = proxy.runtime.backends.get("b").endpoints
    await until(lambda: len({next(endpoints.turns) for _ in range(4)}) == 1)
    assert (await proxy.get())[0] == 200


async def test_without_an_interval_requests_tell(proxy: Proxy, server: Server, other: Server) -> None:
    await other.stop()
    await serve(proxy, server, other, health=Health(0, 2, 30.0))
    endpoints = proxy.runtime.backends.get("b").endpoints
    for _ in range(3):
        assert (await proxy.get())[0] == 200  # moved to who is there
    await until(lambda: len({next(endpoints.turns) for _ in range(4)}) == 1)


async def test_where_nobody_is_well_everybody_is_asked(proxy: Proxy, server: Server) -> None:
    server.default = answer(500)
    await serve(proxy, server, health=Health(0.02, 1, path="/health"))
    await until(lambda: server.seen)
    assert (await proxy.get())[0] == 500


async def test_checks_end_with_the_policy(proxy: Proxy, server: Server) -> None:
    await serve(proxy, server, health=Health(0.02, 1, path="/health"))
    await until(lambda: len(server.seen) > 2)
    checks = proxy.runtime.backends.get("b").checks
    await serve(proxy, server)
    assert proxy.runtime.backends.get("b").checks is None
    assert checks is not None
    assert not checks._tasks


async def test_the_endpoint_with_the_least_to_do_is_asked(proxy: Proxy, server: Server, other: Server) -> None:
    await serve(proxy, server, other, balance="LeastLoad")
    go = asyncio.Event()

    async def held(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        await go.wait()
        writer.write(answer(200, b"ok"))

    server.default = held
    waiting = [asyncio.create_task(proxy.get()) for _ in range(2)]
    await until(lambda: server.seen and other.seen)
    for _ in range(6):
        assert (await proxy.get())[0] == 200
    assert (len(server.seen), len(other.seen)) == (1, 7)
    go.set()
    assert [(await one)[0] for one in waiting] == [200, 200]
    server.default = answer(200, b"ok")
    for _ in range(4):
        await proxy.get()
    assert len(server.seen) > 1  # nothing is under way any more


async def test_requests_of_a_client_go_to_one_endpoint(proxy: Proxy, server: Server, other: Server) -> None:
    await serve(proxy, server, other, hashed=True)
    for _ in range(8):
        assert (await proxy.get())[0] == 200
    assert sorted([len(server.seen), len(other.seen)]) == [0, 8]
    mine = server if server.seen else other
    await mine.stop()
    assert (await proxy.get())[0] == 200  # another one, while it is not there
