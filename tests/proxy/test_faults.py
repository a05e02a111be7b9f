"""Broken clients, broken backends, and what everybody else sees of it: nothing."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from support.proxy import OK, Proxy, Server, parsed

from controller.ports import free_ports
from gateway.snapshot import Backend, Endpoint, Target, Timeouts


def dead_port() -> int:
    return free_ports(1)[0]


async def test_no_rule_is_404_and_the_connection_goes_on(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, hostname="known.example")
    answer = await proxy.talk(b"GET / HTTP/1.1\r\nHost: unknown\r\n\r\nGET / HTTP/1.1\r\nHost: known.example\r\n\r\n")
    assert answer.count(b"HTTP/1.1 404 Not Found") == 1
    assert answer.endswith(OK)


async def test_a_broken_reference_is_500_for_its_share(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, targets=(Target(1, "b-r"), Target(1, "", (), 500, "Service does not exist")))
    statuses = [(await proxy.get())[0] for _ in range(10)]
    assert sorted(statuses) == [200] * 5 + [500] * 5


async def test_no_endpoint_is_503_and_no_target_is_500(proxy: Proxy) -> None:
    await proxy.route()
    assert (await proxy.get())[0] == 503
    await proxy.route(targets=(Target(0, "b-r"),))
    assert (await proxy.get())[0] == 500


async def test_a_refused_connection_goes_to_another_endpoint(proxy: Proxy, server: Server) -> None:
    await proxy.apply(Backend("b-r", (Endpoint("127.0.0.1", dead_port()), Endpoint("127.0.0.1", server.port))))
    await proxy.route(server)
    await proxy.apply(Backend("b-r", (Endpoint("127.0.0.1", dead_port()), Endpoint("127.0.0.1", server.port))))
    for _ in range(20):
        answer = await proxy.talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        assert parsed(answer)[0] == 200
    assert len(server.seen) == 20


async def test_all_endpoints_refuse(proxy: Proxy) -> None:
    await proxy.route()
    await proxy.apply(Backend("b-r", (Endpoint("127.0.0.1", dead_port()), Endpoint("127.0.0.1", dead_port()))))
    assert (await proxy.get())[0] == 503


async def test_a_backend_that_hangs_up_unasked_is_tried_again_only_where_that_is_safe(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.close()

    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await reader.readexactly(len(OK)) == OK
    server.replies = [hang_up]
    writer.write(b"GET /again HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await reader.readexactly(len(OK)) == OK
    assert [head.split()[1] for head in server.seen] == [b"/", b"/again", b"/again"]
    server.replies = [hang_up]
    writer.write(b"POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 502 ")
    assert server.seen[-1].startswith(b"POST /once ")
    writer.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Field: x\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
    ],
)
async def test_a_backend_that_breaks_the_protocol_is_502(proxy: Proxy, server: Server, reply: bytes) -> None:
    await proxy.route(server)
    server.replies = [reply]
    assert (await proxy.get())[0] == 502
    assert (await proxy.get())[0] == 200  # and nothing of it leaks into the next answer


async def test_half_a_response_is_cut_not_completed(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def half(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server.default = half
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"half")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


async def test_surplus_bytes_of_a_response_do_not_reach_the_next_request(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    server.replies = [OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]
    reader, writer = await proxy.connect()
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reader.readexactly(len(OK)) == OK
    writer.close()
    assert server.connections == 2


@pytest.mark.parametrize(("field", "limit"), [("request", Timeouts(request=0.05)), ("backend", Timeouts(backend_request=0.05))])
async def test_timeouts_are_504(proxy: Proxy, server: Server, field: str, limit: Timeouts) -> None:
    await proxy.route(server, timeouts=limit)

    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter, ___: bytes) -> None:
        await asyncio.sleep(30)

    server.replies = [never]
    assert (await proxy.get())[0] == 504
    assert (await proxy.get())[0] == 200


@pytest.mark.parametrize(
    "limit", [Timeouts(request=0.15), Timeouts(backend_request=0.15), Timeouts(request=5, backend_request=0.15)]
)
async def test_timeouts_on_the_short_way(proxy: Proxy, server: Server, limit: Timeouts) -> None:
    await proxy.route(server, timeouts=limit)
    reader, writer = await proxy.connect()
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Id: %d\r\n\r\n"
    connection = next(iter(proxy.runtime.ports.tcp[80].listener_port.connections))
    for number in range(20):  # spread over more than one timeout, each in time
        writer.write(request % number)
        assert await reader.readexactly(len(OK)) == OK
        await asyncio.sleep(0.01)
    arrived = asyncio.Event()

    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter, ___: bytes) -> None:
        arrived.set()
        await asyncio.sleep(30)

    server.replies = [never]
    began = asyncio.get_running_loop().time()
    writer.write(request % 99)
    await arrived.wait()
    assert connection.peer is not None, "it took the fast path"
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 504 ")
    assert 0.1 < asyncio.get_running_loop().time() - began < 2
    writer.close()


async def test_a_client_that_goes_away_ends_the_backends_work(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter, __: bytes) -> None:
        try:
            await reader.read()
        finally:
            gone.set()

    server.replies = [wait]
    _, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(5):
        while not server.seen:
            await asyncio.sleep(0.005)
        # A reset, not a FIN: after a FIN a client may still want its answer.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await gone.wait()


async def test_an_answer_before_the_body_has_come_is_delivered(proxy: Proxy) -> None:
    await proxy.route()
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nConnection: close\r\n" in answer
    writer.close()


async def test_slow_heads_and_idle_connections_are_closed(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    slow_reader, slow_writer = await proxy.connect()
    slow_writer.write(b"GET / HTTP/1.1\r\nHo")
    idle_reader, idle_writer = await proxy.connect()
    await proxy.get()
    now = proxy.runtime.clock.now
    proxy.runtime.tick(now + 11)
    assert (await slow_reader.read()).startswith(b"HTTP/1.1 408 ")
    proxy.runtime.tick(now + 76)
    assert await idle_reader.read() == b""
    for writer in (slow_writer, idle_writer):
        writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000, 431),
        (b"GET /" + b"y" * 70_000, 414),
    ],
)
async def test_heads_are_limited(proxy: Proxy, server: Server, data: bytes, status: int) -> None:
    await proxy.route(server)
    assert parsed(await proxy.talk(data, half_close=False))[0] == status


async def test_a_body_that_breaks_after_the_answer_has_begun_cuts_the_answer(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await reader.read()

    server.default = early
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await reader.readuntil(b"half")
    writer.write(b"nonsense\r\n")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


async def test_the_backend_timeout_is_for_each_attempt(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, timeouts=Timeouts(backend_request=0.3))

    async def late_hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        await asyncio.sleep(0.2)
        writer.close()

    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        await asyncio.sleep(0.2)
        writer.write(OK)

    await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # a connection that can be reused, and lost
    server.replies = [late_hang_up, late]
    assert (await proxy.get())[0] == 200
    assert len(server.seen) == 3


async def test_what_was_sent_ahead_of_a_half_close_is_answered(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        await asyncio.sleep(0.02)
        writer.write(OK)

    server.default = late
    one = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for count in (1, 2, 5):
        assert await proxy.talk(one * count) == OK * count
    # What is not whole will never be.
    assert await proxy.talk(one + one[:-2]) == OK
    assert await proxy.talk(one + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc") == OK
    assert await proxy.talk(one[:-2]) == b""
