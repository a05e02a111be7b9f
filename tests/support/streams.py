"""Backends of TCP and UDP that say everything again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

Made = Callable[..., Awaitable[int]]


@pytest.fixture
async def echo() -> AsyncIterator[Made]:
    """Servers that say who they are, and then say everything again in upper case; TLS with a context."""
    servers: list[asyncio.Server] = []
    writers: set[asyncio.StreamWriter] = set()

    async def make(name: bytes, context: ssl.SSLContext | None = None) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            try:
                writer.write(name)
                while data := await reader.read(65536):
                    writer.write(data.upper())
                    await writer.drain()
                writer.write(b"bye")
            except (ConnectionError, ssl.SSLError):
                pass
            finally:
                writers.discard(writer)
                writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield make
    for server in servers:
        server.close()
    for writer in list(writers):
        writer.transport.abort()
    await asyncio.sleep(0)


class Datagram(asyncio.DatagramProtocol):
    """A backend that says its name before everything that it says again; or a client that keeps what it hears."""

    def __init__(self, name: bytes = b"") -> None:
        self.name = name
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.peers: set[object] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard.put_nowait(data)
        self.peers.add(addr)
        if self.name:
            self.transport.sendto(self.name + data, addr)  # type: ignore[attr-defined]

    async def ask(self, data: bytes) -> bytes:
        self.transport.sendto(data)  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            return await self.heard.get()

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])


@pytest.fixture
async def datagrams() -> AsyncIterator[Callable[..., Awaitable[Datagram]]]:
    made: list[Datagram] = []

    async def make(name: bytes = b"", to: int = 0) -> Datagram:
        where = {"remote_addr": ("127.0.0.1", to)} if to else {"local_addr": ("127.0.0.1", 0)}
        _, one = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Datagram(name), **where)
        made.append(one)
        return one

    yield make
    for one in made:
        one.transport.close()  # type: ignore[attr-defined]
    await asyncio.sleep(0)
