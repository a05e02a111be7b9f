"""One side of a tunnel has said all, the other goes on: at the reader's pace, to its end, and to nobody's memory."""

from __future__ import annotations

import asyncio

from support.http2_peers import client, until
from support.proxy import Proxy, Server
from support.websocket import SWITCH, WEBSOCKET

MEGABYTE = 1 << 20


class Slow:
    """A backend that changes protocols, says all that it has to say, and reads when it is told to."""

    def __init__(self, *, says_all: bool) -> None:
        self.may_read = asyncio.Event()
        self.got = 0
        self.ended = asyncio.Event()
        self._says_all = says_all

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(SWITCH + b"hello")
        if self._says_all:
            writer.write_eof()
        await self.may_read.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while data := await reader.read(65536):
            self.got += len(data)
        self.ended.set()


def kept(proxy: Proxy) -> int:
    """Octets of a tunnel that the gateway keeps, of what came on streams."""
    (one,) = proxy.runtime.ports.tcp[80].listener_port.connections
    total = 0
    for stream in one.streams.values():  # type: ignore[attr-defined]
        tunnel = stream._tunnel
        total += sum(map(len, tunnel._early))
        if tunnel._protocol is not None:
            total += tunnel._protocol.other.transport.get_write_buffer_size()
    return total


async def talk(proxy: Proxy, server: Server, *, says_all: bool) -> None:
    slow = Slow(says_all=says_all)
    server.default = slow.serve
    await proxy.route(server)
    me = await client(proxy.port)
    await until(lambda: me.h2.remote_settings.enable_connect_protocol)
    stream = me.ask("/chat", method="CONNECT", more=WEBSOCKET, end=False)
    await me.answers[stream].head_came.wait()
    if says_all:
        await me.answer(stream)
    size = 24 * MEGABYTE
    sending = asyncio.create_task(me.send(stream, b"x" * size, end=True))
    most = 0
    for _ in range(200):
        await asyncio.sleep(0.001)
        most = max(most, kept(proxy))
    try:
        assert not sending.done()
        assert most < 2 * MEGABYTE
        slow.may_read.set()
        async with asyncio.timeout(10):
            while not slow.ended.is_set():
                await asyncio.sleep(0.001)
                if me.h2.streams.get(stream) is not None and proxy.runtime.ports.tcp[80].listener_port.connections:
                    most = max(most, kept(proxy))
        assert slow.got == size
        assert most < 2 * MEGABYTE
        await until(lambda: proxy.runtime.ports.tcp[80].listener_port.tunnels == 0)
    finally:
        sending.cancel()
        me.transport.abort()


async def test_a_slow_backend_holds_a_websocket_back(proxy: Proxy, server: Server) -> None:
    await talk(proxy, server, says_all=False)


async def test_a_slow_backend_that_has_said_all_holds_a_websocket_back(proxy: Proxy, server: Server) -> None:
    await talk(proxy, server, says_all=True)
