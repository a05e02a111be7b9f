"""The backends that attacks lead to, in a process of their own: what they cost is not felt by whoever measures.

python -m bench.attacked

Prints three ports: of short answers, of large ones, and of gRPC; ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any, Final

import grpc
import uvloop

from bench import rig

OCTETS: Final = 8 << 20  # of a large answer
PIECE: Final = b"x" * 65536
BACKLOG: Final = 4096  # whoever finds no room asks again after a second, and that is not what is asked here


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A service whose messages are plain bytes."""

    def service(self, details: Any) -> Any:
        async def echo(request: bytes, _: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo, bytes, bytes)


class Short(asyncio.Protocol):
    """Short answers: at once to what has no content, to what has some not before its last chunk."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET ") or data.endswith(b"0\r\n\r\n"):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def _large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % OCTETS)
            for _ in range(OCTETS // len(PIECE)):
                writer.write(PIECE)
                await writer.drain()
    writer.close()


async def serve() -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    short = await loop.create_server(Short, "127.0.0.1", 0, backlog=BACKLOG)
    large = await asyncio.start_server(_large, "127.0.0.1", 0, backlog=BACKLOG)
    calls = grpc.aio.server()
    calls.add_generic_rpc_handlers((Calls(),))
    calls_port = calls.add_insecure_port("127.0.0.1:0")
    await calls.start()
    print(short.sockets[0].getsockname()[1], large.sockets[0].getsockname()[1], calls_port, flush=True)
    await stop.wait()
    await calls.stop(None)


if __name__ == "__main__":
    rig.stand_back()
    uvloop.run(serve())
