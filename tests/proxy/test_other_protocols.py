"""Who speaks another protocol never ends a head; that is known from its first octets, and nobody waits."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.proxy import OK, Proxy, Server, parsed

from gateway.http import early_faults

SSH = b"SSH-2.0-OpenSSH_9.2\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (SSH, b'the backend does not speak HTTP/1.1: it began with "S'),
        (b"220 mail.example ESMTP\r\n", b"the backend does not speak HTTP/1.1"),
        (HELLO, b"the backend does not speak HTTP/1.1"),
        (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64", b"the backend does not speak HTTP/1.1"),  # the SETTINGS of HTTP/2
        (b"HTTP/2", b"the backend does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"the backend's lines end in LF alone"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok", b"the backend's lines end in LF alone"),
        (b"HTTP/1.1 100 Continue\r\n\r\nSSH", b"the backend does not speak HTTP/1.1"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_backend(proxy: Proxy, server: Server, said: bytes, words: bytes, at_once: bool) -> None:
    async def other(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        for piece in [said] if at_once else [said[at : at + 1] for at in range(len(said))]:
            if not writer.is_closing():
                writer.write(piece)
                await asyncio.sleep(0)
        await asyncio.sleep(30)

    server.default = other
    await proxy.route(server)
    began = time.monotonic()
    status, _, body = await proxy.get()
    assert status == 502
    assert words in body
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        (SSH, 400, b"malformed request line"),
        (HELLO, 400, b"this is TLS, and the port speaks HTTP in the clear"),
        (b"\x05\x01\x00", 400, b'"\\u0005\\u0001\\u0000" is no HTTP request'),  # SOCKS
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, b"a line ends in LF alone"),
        (b"GET / HTTP/1.1\r\nHost: a\n\n", 400, b"a line ends in LF alone"),
        (b"GET /\r\n", 400, b"HTTP/0.9 is not spoken here"),
        (b"GET / HTTP/3.0\r\n", 505, b"only HTTP/1.0 and HTTP/1.1"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_client(proxy: Proxy, server: Server, said: bytes, status: int, words: bytes, at_once: bool) -> None:
    await proxy.route(server)
    reader, writer = await proxy.connect()
    began = time.monotonic()
    try:
        for piece in [said] if at_once else [said[at : at + 1] for at in range(len(said))]:
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass  # it was answered before all of it was sent
    async with asyncio.timeout(2):
        found, _, body = parsed(await reader.read())
    writer.close()
    assert (found, words in body) == (status, True), body
    assert time.monotonic() - began < 2
    assert not server.seen


async def test_who_is_slow_is_waited_for(proxy: Proxy, server: Server) -> None:
    """Octet by octet, an empty line first: nothing of it is wrong."""

    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        for at in range(len(OK)):
            writer.write(OK[at : at + 1])
            await asyncio.sleep(0)

    server.default = slow
    await proxy.route(server)
    reader, writer = await proxy.connect()
    for octet in b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n":
        writer.write(bytes((octet,)))
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize(
    "head", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\nGET / HTTP/1.1\r\nHost: a\r\nX: y\r\n", b"OPTIONS * HTTP/1.0\r\n"]
)
def test_what_is_whole_in_the_end_is_never_wrong_before(head: bytes) -> None:
    start = 2 if head.startswith(b"\r\n") else 0
    for end in range(len(head) + 1):
        for looked_at in range(max(start, end - 2), end + 1):
            assert early_faults.of_request(head[:end], min(start, end), looked_at) is None, head[:end]
    for end in range(len(OK)):
        assert early_faults.of_response(OK[:end], max(end - 1, 0)) is None
