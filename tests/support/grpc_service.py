"""A gRPC service with real servers and clients (grpcio)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

LARGE = 271_828
RESPONSE = 314_159


def raw(data: bytes) -> bytes:
    return data


class Service(grpc.GenericRpcHandler):
    """`test.Test`, of which messages are plain bytes."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str | bytes]] = []

    def service(self, details: Any) -> Any:
        self.seen.append(dict(details.invocation_metadata))
        name = details.method.rpartition("/")[2]
        return {
            "Empty": grpc.unary_unary_rpc_method_handler(self.empty, raw, raw),
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary, raw, raw),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect, raw, raw),
            "Spread": grpc.unary_stream_rpc_method_handler(self.spread, raw, raw),
            "PingPong": grpc.stream_stream_rpc_method_handler(self.ping_pong, raw, raw),
            "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep, raw, raw),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail, raw, raw),
        }.get(name)

    async def empty(self, request: bytes, context: Any) -> bytes:
        return b""

    async def unary(self, request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        if "x-initial" in metadata:
            await context.send_initial_metadata((("x-initial", metadata["x-initial"]),))
            context.set_trailing_metadata((("x-trailing-bin", metadata["x-trailing-bin"]),))
        return b"y" * RESPONSE if len(request) == LARGE else request

    async def collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return str(sum([len(one) async for one in requests])).encode()

    async def spread(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for size in (31415, 9, 2653, 58979):
            yield b"z" * size

    async def ping_pong(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for one in requests:
            yield one[::-1]

    async def sleep(self, request: bytes, context: Any) -> bytes:
        await asyncio.sleep(10)
        return b""

    async def fail(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.UNKNOWN, request.decode())
        return b""
