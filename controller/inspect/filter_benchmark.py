"""What a filter costs a request: the same requests with and without it, in turns, and the least of each.

Inline, real protocols on transports that drop what they are given: nothing but the worker's own work is timed. In a
process of its own, what counts is how long a request waits, so those go through real sockets.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from typing import Any

import msgspec

from controller.ports import free_ports
from gateway.downstream.http1 import DownstreamHttp1
from gateway.runtime.runtime import Runtime
from gateway.snapshot import (
    Attachment,
    Backend,
    Change,
    Endpoint,
    Listener,
    Match,
    Order,
    Part,
    PathMatch,
    Rule,
    Script,
    Scripted,
    Target,
)
from gateway.upstream.http1 import Http1UpstreamConnection
from gateway.upstream.http1_pool import Http1Pool

EACH, ROUNDS, TURNS = 400, 10, 300
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n\r\nfrom the backend\n"


class Cost(msgspec.Struct):
    """Microseconds a request: of CPU without and with it inline; of time without and with it in a process."""

    without: float
    inline: float
    without_turn: float
    process: float


class Transport:
    """Takes bytes and drops them."""

    def __init__(self) -> None:
        self.write = deque[bytes](maxlen=1).append

    def get_extra_info(self, name: str) -> tuple[str, int]:
        """The address of nobody."""
        return ("127.0.0.1", 1)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """All is taken."""
        return 0

    def nothing(self) -> None:
        """What is asked of it matters not here."""

    pause_reading = resume_reading = abort = close = write_eof = can_write_eof = nothing


def head(path: bytes, number: int) -> bytes:
    """A browser's request, with a value that nobody has sent before."""
    return b"\r\n".join((
        b"GET %b HTTP/1.1" % path, b"Host: demo.example.com", b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/130.0",
        b"Accept: text/html,*/*;q=0.8", b"Accept-Language: en-US,en;q=0.5", b"Accept-Encoding: gzip, deflate, br",
        b"Cache-Control: no-cache", b"X-Request-Id: %016x" % number, b"Cookie: session=abcdef0123456789", b"DNT: 1", b"", b"",
    ))  # fmt: skip


def _parts(part: Script, port: int) -> tuple[Part, ...]:
    """A rule with the filter at /with, and one without at /."""
    at, target = (Attachment("l", ""),), (Target(1, "b"),)
    return (
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", port),)), part, Rule("plain", Order(), at, targets=target),
        Rule("with", Order(), at, (Match(PathMatch("PathPrefix", "/with")),), (Scripted(part.name),), target),
    )  # fmt: skip


async def cost(part: Script) -> Cost:
    """Measure."""
    without, inline = await _inline(_parts(msgspec.structs.replace(part, execution="inline"), 1))
    return Cost(without, inline, *await _turns(msgspec.structs.replace(part, execution="process")))


async def inline_cost(part: Script) -> float:
    """Microseconds of CPU that a filter in the worker adds to a request."""
    without, inline = await _inline(_parts(msgspec.structs.replace(part, execution="inline"), 1))
    return inline - without


async def rule_cost(target: Target, **rule: Any) -> float:
    """Microseconds of CPU that what a rule says besides (retries, sessions …), or a target, adds to a request."""
    at = (Attachment("l", ""),)
    without, inline = await _inline((
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", 1),)), Rule("plain", Order(), at, targets=(Target(1, "b"),)),
        Rule("with", Order(), at, (Match(PathMatch("PathPrefix", "/with")),), targets=(target,), **rule),
    ))  # fmt: skip
    return inline - without


async def _inline(parts: tuple[Part, ...]) -> tuple[float, float]:
    (port,) = free_ports(1)
    runtime = Runtime(bind="127.0.0.1", port_offset=port - 80)
    await runtime.apply(Change(put=parts))
    listener_port = runtime.ports.tcp[80].listener_port
    pool = next(iter(runtime.backends.get("b").endpoints))
    assert isinstance(pool, Http1Pool)
    least = {b"/": float("inf"), b"/with": float("inf")}
    number = 0
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for path in least:
                client, upstream = DownstreamHttp1(listener_port), Http1UpstreamConnection(pool)
                client.connection_made(Transport())  # type: ignore[arg-type]
                upstream.connection_made(Transport())  # type: ignore[arg-type]
                pool.idle.append(upstream)
                heads = [head(path, number + n) for n in range(EACH)]
                number += EACH
                started = time.perf_counter()
                for data in heads:
                    client.data_received(data)
                    if upstream.user is not None:
                        upstream.data_received(RESPONSE)
                    elif not client.is_idle:
                        await asyncio.sleep(0)
                        if upstream.user is not None:
                            upstream.data_received(RESPONSE)
                least[path] = min(least[path], (time.perf_counter() - started) / EACH)
                pool.idle.clear()
    finally:
        gc.enable()
    runtime.close()
    return least[b"/"] * 1e6, least[b"/with"] * 1e6


async def _turns(part: Script) -> tuple[float, float]:
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(RESPONSE)
        except asyncio.IncompleteReadError:
            writer.close()
            ended.set()

    backend = await asyncio.start_server(answer, "127.0.0.1", 0)
    (port,) = free_ports(1)
    runtime = Runtime(bind="127.0.0.1", port_offset=port - 80)
    await runtime.apply(Change(put=_parts(part, backend.sockets[0].getsockname()[1])))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    durations: dict[bytes, list[float]] = {b"/": [], b"/with": []}
    for number in range(TURNS):
        for path, took in durations.items():
            started = time.perf_counter()
            writer.write(head(path, number))
            data = await reader.readuntil(b"\r\n\r\n")
            length = data.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length or 0))
            took.append(time.perf_counter() - started)
    writer.close()
    runtime.close()
    for address in list(runtime.backends.get("b").endpoints):
        for upstream in address.idle:
            upstream.abort()
    await ended.wait()
    backend.close()
    await runtime.programs.stop()
    middle = {path: sorted(took)[len(took) // 2] * 1e6 for path, took in durations.items()}
    return middle[b"/"], middle[b"/with"]
