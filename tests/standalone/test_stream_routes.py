"""`fsm run` with routes of bytes: a listener, a route and an echo appear in files, and are there."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.standalone import Running

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "streams"


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.transport.sendto(data.upper(), addr)  # type: ignore[attr-defined]


class Asking(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard.put_nowait(data)


@pytest.fixture
async def echo() -> AsyncIterator[tuple[int, int]]:
    """Ports that say everything again in upper case: of TCP, of UDP."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    yield server.sockets[0].getsockname()[1], transport.get_extra_info("sockname")[1]
    server.close()
    transport.close()
    await asyncio.sleep(0)


async def test_streams(running: Running, tmp_path: Path, echo: tuple[int, int]) -> None:
    folder = tmp_path / "streams"
    shutil.copytree(EXAMPLE, folder)
    services = (folder / "services.yaml").read_text()
    for port, actual in ((15432, echo[0]), (15433, echo[0]), (10053, echo[1])):
        services = services.replace(f"port: {port}", f"port: {actual}")
    (folder / "services.yaml").write_text(services)
    running.folder = folder
    await running.start()
    offset = running.port - 80
    reader, writer = await asyncio.open_connection("127.0.0.1", 5432 + offset)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"HELLO"
    transport, asking = await asyncio.get_running_loop().create_datagram_endpoint(
        Asking, remote_addr=("127.0.0.1", 5300 + offset)
    )  # fmt: skip
    transport.sendto(b"names")
    assert await asyncio.wait_for(asking.heard.get(), 5) == b"NAMES"
    # The route goes: new connections are refused, those that stand go on.
    routes = (folder / "routes.yaml").read_text()
    (folder / "routes.yaml").write_text(routes.split("---")[1])

    async def refused() -> bool:
        try:
            other, closing = await asyncio.open_connection("127.0.0.1", 5432 + offset)
            closing.write(b"x")
            gone = await asyncio.wait_for(other.read(1), 5) == b""
            closing.close()
        except ConnectionError:
            return True
        return gone

    await running.until(refused)
    writer.write(b"still")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"STILL"
    writer.close()
    transport.close()
