"""Bodies of any size in little memory, both ways; upgrades; and what holds through changes."""

from __future__ import annotations

import asyncio
import random
import resource
from pathlib import Path

import pytest
from support.proxy import OK, Proxy, Server, make_rule

from gateway.snapshot import Backend, Endpoint, Listener, Target

MEGABYTE = 1 << 20


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_a_slow_client_slows_the_backend(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    sent = 0

    async def stream(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 * MEGABYTE))
        for _ in range(256):
            writer.write(b"x" * MEGABYTE)
            await writer.drain()
            sent += MEGABYTE

    server.default = stream
    reader, writer = await proxy.connect()
    before = memory()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    got = 0
    while got < 256 * MEGABYTE:
        got += len(await reader.read(4 * MEGABYTE))
        if got < 8 * MEGABYTE:
            await asyncio.sleep(0.02)
            assert sent - got < 48 * MEGABYTE
    assert memory() - before < 40 * MEGABYTE
    writer.close()


async def test_a_slow_backend_slows_the_client(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        await go.wait()
        got = 0
        while got < 64 * MEGABYTE:
            got += len(await reader.read(MEGABYTE))
        writer.write(OK)

    server.default = slow
    reader, writer = await proxy.connect()
    before = memory()
    writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MEGABYTE))

    async def send() -> None:
        for _ in range(64):
            writer.write(b"x" * MEGABYTE)
            await writer.drain()

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.2)
    assert not sending.done()
    assert memory() - before < 40 * MEGABYTE
    go.set()
    await sending
    assert await reader.readexactly(len(OK)) == OK
    writer.close()


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
    while data := await reader.read(65536):
        writer.write(data.upper())
    writer.write(b"bye")


HANDSHAKE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"


async def test_upgrades_become_tunnels(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    server.default = upgrade
    reader, writer = await proxy.connect()
    writer.write(HANDSHAKE + b"early")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    assert await reader.readexactly(10) == b"helloEARLY"
    assert b"\r\nUpgrade: websocket\r\n" in server.seen[0]
    assert b"\r\nConnection: Upgrade\r\n" in server.seen[0]
    writer.write_eof()
    assert await reader.read() == b"bye"
    writer.close()


async def test_an_upgrade_that_is_refused_is_an_ordinary_answer(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    reader, writer = await proxy.connect()
    for _ in range(2):
        writer.write(HANDSHAKE)
        assert await reader.readexactly(len(OK)) == OK
    writer.close()


async def test_h2c_is_not_offered_to_backends(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    await proxy.talk(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    )
    assert b"pgrade" not in server.seen[0]
    assert b"HTTP2-Settings" not in server.seen[0]


async def test_tunnels_and_downloads_survive_200_changes(proxy: Proxy, server: Server, other: Server) -> None:
    """Of the route, its endpoints and its listener's other hosts; with a request on every change."""
    await proxy.route(server)
    server.replies = [upgrade]
    reader, writer = await proxy.connect()
    writer.write(HANDSHAKE)
    await reader.readuntil(b"hello")
    more = asyncio.Event()

    async def download(_: asyncio.StreamReader, out: asyncio.StreamWriter, __: bytes) -> None:
        out.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(200):
            await more.wait()
            more.clear()
            out.write(b"3\r\n%03d\r\n" % number)
        out.write(b"0\r\n\r\n")

    server.replies = [download]
    down_reader, down_writer = await proxy.connect()
    down_writer.write(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
    await down_reader.readuntil(b"\r\n\r\n")
    await proxy.apply(Backend("b-2", (Endpoint("127.0.0.1", other.port),)))
    for number in range(200):
        weight = number % 100
        await proxy.apply(
            make_rule("r", targets=(Target(weight, "b-2"), Target(100 - weight, "b-r"))),
            make_rule(f"host-{number}", f"h{number}.example", targets=(Target(1, "b-2"),)),
            Backend("b-r", (Endpoint("127.0.0.1", other.port if number % 3 else server.port),)),
            Listener(f"listener-{number % 7}", 80, hostname=f"l{number}.example"),
        )
        assert (await proxy.get())[0] == 200
        writer.write(b"a")
        assert await reader.readexactly(1) == b"A"
        more.set()
        assert await down_reader.readexactly(8) == b"3\r\n%03d\r\n" % number
    assert await down_reader.readexactly(5) == b"0\r\n\r\n"
    for one in (writer, down_writer):
        one.close()


async def test_listeners_open_and_close_without_touching_connections(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await reader.readexactly(len(OK)) == OK
    await proxy.apply(drop=(("listener", "l"),))
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await reader.read()
    assert b"Connection: close" in answer
    try:
        await proxy.connect()
        raise AssertionError("the port is still open")
    except OSError:
        pass
    writer.close()


async def test_draining(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    release = asyncio.Event()

    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        await release.wait()
        writer.write(OK)

    server.replies = [slow]
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(5):
        while not server.seen:
            await asyncio.sleep(0.005)
    proxy.runtime.drain()
    assert (await proxy.get())[0] == 200  # new connections are still served
    assert proxy.runtime.ports.busy() == 1
    proxy.runtime.close()
    release.set()
    async with asyncio.timeout(5):
        assert b"Connection: close" in await reader.read()
        await proxy.runtime.wait_idle()
    writer.close()


@pytest.mark.parametrize("pause", [0.0, 0.002])
async def test_large_bodies_pass_whole_at_any_pace(proxy: Proxy, server: Server, pause: float) -> None:
    """Bodies that pass in bulk (gateway/upstream/bulk_body.py): first with a head to be parsed, then with one that is known."""
    await proxy.route(server)
    body = random.Random(1).randbytes(3 << 20)
    server.default = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: x\r\n\r\n" % len(body) + body
    reader, writer = await proxy.connect()
    for number in range(4):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Id: %d\r\n\r\n" % number)
        await reader.readuntil(b"\r\n\r\n")
        received = b""
        while len(received) < len(body):
            received += await reader.read(100_000)
            await asyncio.sleep(pause)
        assert received == body
    writer.close()
    assert server.connections == 1, "the backend's connection is used again after a body in bulk"


async def test_a_large_body_that_ends_early_is_cut(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def half(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 2_000_000)
        await writer.drain()
        writer.close()

    server.default = half
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(3_000_000)
    writer.close()
