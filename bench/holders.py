"""Clients that wrk is not: transfers that are watched, connections that are held, sent byte by byte, or framed."""

from __future__ import annotations

import asyncio
import random
import sys
import time

import uvloop

from bench import rig
from bench.rig import HOST, Run, Side

CHUNK = b"x" * 65536
FRAME = b"\x82\xfd\0\0\0\0" + b"x" * 125  # a masked binary frame of 125 bytes, its mask zero
UPGRADE = (
    f"GET /echo HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


async def download(port: int, path: str) -> int:
    """GET; the number of body bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    size = 0
    while data := await reader.read(1 << 20):
        size += len(data)
    writer.close()
    return size


async def upload(port: int, path: str, size: int) -> int:
    """POST a body of this size; the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode())
    for _ in range(size // len(CHUNK)):
        writer.write(CHUNK)
        await writer.drain()
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    writer.close()
    return 200


async def hold(port: int, count: int) -> list[asyncio.StreamWriter]:
    """Connections that have made three requests each, as clients of their own, and then say nothing."""
    writers = []
    for start in range(0, count, 200):
        writers += await asyncio.gather(*(_visit(port) for _ in range(min(200, count - start))))
    return writers


async def _visit(port: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    agent, cookie = random.randbytes(20).hex(), random.randbytes(20).hex()
    for _ in range(3):
        writer.write(
            f"GET /p/{random.randint(1, 500)} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: Mozilla/5.0 {agent}\r\nAccept: text/html\r\n"
            f"Accept-Encoding: gzip\r\nCookie: session={cookie}\r\nX-Request-Id: {random.randbytes(8).hex()}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        await reader.readexactly(23)
    return writer


async def trickle(port: int, count: int, *, at_most: float) -> int:
    """Half of them send a head, half a body, a byte a second; how many were closed by the other side in time."""

    async def one(number: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        text = f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\n".encode()
        if number % 2:
            writer.write(text)
            text = b"x"
        deadline = time.monotonic() + at_most
        at = 0
        closed = asyncio.ensure_future(reader.read())
        try:
            while time.monotonic() < deadline and not closed.done():
                writer.write(text[at % len(text) : at % len(text) + 1])
                at += 1
                await asyncio.wait([closed], timeout=1)
            return closed.done()
        except ConnectionError:
            return True
        finally:
            closed.cancel()
            writer.close()

    return sum(await asyncio.gather(*(one(number) for number in range(count))))


class Pinger(asyncio.Protocol):
    """Sends a frame whenever one has come back."""

    def __init__(self, until: float) -> None:
        self.frames = 0
        self.done = asyncio.get_running_loop().create_future()
        self._until = until
        self._head = b""
        self._open = False
        self._due = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(UPGRADE)

    def data_received(self, data: bytes) -> None:
        if not self._open:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            assert self._head.startswith(b"HTTP/1.1 101 "), self._head
            self._open = True
            self._transport.write(FRAME)
            return
        self._due += len(data)
        if self._due < len(FRAME):
            return
        self._due -= len(FRAME)
        self.frames += 1
        if time.monotonic() < self._until:
            self._transport.write(FRAME)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(None)


async def frames(side: Side, seconds: float, connections: int = 64) -> Run:
    """WebSocket frames back and forth; a Run whose requests are frames."""
    return await _back_and_forth("frames", side, seconds, connections)


async def datagrams(side: Side, seconds: float, flows: int = 64) -> Run:
    """Datagrams back and forth; a Run whose requests are datagrams."""
    return await _back_and_forth("datagrams", side, seconds, flows)


async def _back_and_forth(what: str, side: Side, seconds: float, connections: int) -> Run:
    """Sent from core 1 by a process of its own."""
    before = rig.cpu_seconds(side.pid)
    count = int(
        await rig.run(
            "taskset", "-c", "1", sys.executable, "-m", "bench.holders", what, str(side.port), str(seconds), str(connections),
            at_most=seconds + 30,
        )
    )  # fmt: skip
    after = rig.cpu_seconds(side.pid)
    user, system = ((a - b) * 1e6 / count for a, b in zip(after, before, strict=True))
    return Run(count / seconds, user, system, 0)


async def _send_frames(port: int, seconds: float, connections: int) -> int:
    loop = asyncio.get_running_loop()
    until = time.monotonic() + seconds
    made = [(await loop.create_connection(lambda: Pinger(until), "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.gather(*(one.done for one in made))
    return sum(one.frames for one in made)


class DatagramPinger(asyncio.DatagramProtocol):
    """Sends a datagram, and the next one when it comes back."""

    def __init__(self, until: float) -> None:
        self._until = until
        self.count = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.sendto(FRAME[:125])  # type: ignore[attr-defined]

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.count += 1
        if time.monotonic() < self._until:
            self._transport.sendto(data)  # type: ignore[attr-defined]
        elif not self.done.done():
            self.done.set_result(None)


async def _send_datagrams(port: int, seconds: float, flows: int) -> int:
    loop = asyncio.get_running_loop()
    until = time.monotonic() + seconds
    where = ("127.0.0.1", port)
    made = [(await loop.create_datagram_endpoint(lambda: DatagramPinger(until), remote_addr=where))[1] for _ in range(flows)]
    await asyncio.wait([one.done for one in made], timeout=seconds + 2)  # one that was lost is not waited for
    return sum(one.count for one in made)


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)  # type: ignore[attr-defined]


async def _udp_echo(port: int) -> None:
    """On TCP too, so that whoever started it can tell that it listens."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(DatagramEcho, local_addr=("127.0.0.1", port))
    await _echo(port)


class Echo(asyncio.Protocol):
    """Answers the upgrade, then sends back what comes."""

    def __init__(self) -> None:
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._open:
            self._transport.write(data)
        else:
            self._open = True
            self._transport.write(SWITCHED)


async def _echo(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["echo", port]:
            uvloop.run(_echo(int(port)))
        case ["udp", port]:
            uvloop.run(_udp_echo(int(port)))
        case ["datagrams", port, seconds, flows]:
            print(uvloop.run(_send_datagrams(int(port), float(seconds), int(flows))))
        case ["frames", port, seconds, connections]:
            print(uvloop.run(_send_frames(int(port), float(seconds), int(connections))))
