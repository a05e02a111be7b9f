"""Connections to backends, and the pools that keep them.

A pool belongs to an address, not to a Service: two Services that select the same pods share connections, and a
route that moves between them moves no connection. Idle connections are used last in, first out, and are given
up before common servers do (uvicorn and Node close after 5 s), which keeps the race between a request and a
server's close small.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from gateway.http1 import CHUNKED, MAX_HEAD, NO_LENGTH, Chunks, ProtocolError, parse_response
from gateway.peers import User

IDLE: Final = 4.0  # seconds that an unused connection is kept
CONNECT: Final = 2.0  # seconds to make one
MAX_IDLE: Final = 512  # kept per address


class Clock(Protocol):
    """Time as of the last tick, in seconds: cheap to read, coarse enough for idleness."""

    now: float


class Pool:
    """Connections to one address."""

    __slots__ = ("_address", "_clock", "_connecting", "_idle", "_port", "name", "retired")

    def __init__(self, address: str, port: int, clock: Clock) -> None:
        self._address = address
        self._port = port
        self._clock = clock
        self._idle: list[Upstream] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self.name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.retired = False

    def __repr__(self) -> str:
        return f"<Pool {self.name} idle={len(self._idle)}>"

    def take(self, user: User) -> Upstream | None:
        """An idle connection, now the user's."""
        idle = self._idle
        if not idle:
            return None
        upstream = idle.pop()
        upstream.user = user
        return upstream

    def connect(self, user: User) -> None:
        """Make a connection for the user; it hears of it by `connected` or `connect_failed`."""
        task = asyncio.get_running_loop().create_task(self._connect(user))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, user: User) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT):
                _, upstream = await loop.create_connection(lambda: Upstream(self), self._address, self._port)
        except TimeoutError:
            self._failed(user, f"no answer within {CONNECT:g} s")
            return
        except OSError as error:
            self._failed(user, error.strerror or str(error))
            return
        if user.abandoned:
            upstream.abort()
            return
        upstream.user = user
        user.connected(upstream)

    def _failed(self, user: User, reason: str) -> None:
        if not user.abandoned:
            user.connect_failed(f"{self.name}: {reason}")

    def put(self, upstream: Upstream) -> None:
        """Keep a connection for the next request."""
        if self.retired or len(self._idle) >= MAX_IDLE:
            upstream.abort()
        else:
            upstream.idle_since = self._clock.now
            self._idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """An idle connection was closed by its server."""
        if upstream in self._idle:
            self._idle.remove(upstream)

    def sweep(self) -> None:
        """Close what has idled too long. The oldest lie at the bottom."""
        limit = self._clock.now - IDLE
        stale = 0
        while stale < len(self._idle) and self._idle[stale].idle_since < limit:
            stale += 1
        old, self._idle[:stale] = self._idle[:stale], []
        for upstream in old:
            upstream.abort()

    def retire(self) -> None:
        """The address is gone: close what is idle, let requests in flight finish."""
        self.retired = True
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.abort()


class Upstream(asyncio.Protocol):
    """One connection to a backend: at most one request at a time."""

    __slots__ = (
        "_buffer", "_chunks", "_head_size", "_keep", "_left", "_pool", "_state", "_transport", "idle_since", "reused",
        "user", "write",
    )  # fmt: skip
    _HEAD, _LENGTH, _CHUNKED, _TO_END = range(4)

    def __init__(self, pool: Pool) -> None:
        # Connection.
        self._pool = pool
        self._transport: asyncio.Transport
        self.user: User | None = None
        self.reused = False
        self.idle_since = 0.0
        self._head_size = 0  # of the last head: heads of one backend repeat
        # Response.
        self._state = self._HEAD
        self._buffer = b""
        self._left = 0
        self._chunks: Chunks | None = None
        self._keep = False

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        self.write = self._transport.write

    def data_received(self, data: bytes) -> None:
        user = self.user
        if user is None:
            self._transport.abort()  # a server has nothing to say unasked
            return
        if self._state == self._HEAD:
            memo = user.memo
            if memo is not None and not self._buffer and user.request_done:
                size = self._head_size
                known = memo.get(data[:size])
                if known is not None and known[1] == len(data):
                    self.user = None
                    self.reused = True
                    user.response_complete(known[0] + data[size:], int(data[9:12]))
                    self._pool.put(self)
                    return
            self._receive_head(data)
        else:
            self._receive_body(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        user, self.user = self.user, None
        if user is None:
            self._pool.forget(self)
            return
        clean = self._state == self._TO_END and exc is None
        user.response_lost(str(exc or "closed"), clean=clean)

    def pause_writing(self) -> None:
        if self.user is not None:
            self.user.pause_sending()

    def resume_writing(self) -> None:
        if self.user is not None:
            self.user.resume_sending()

    # --- Peer ---

    def pause_reading(self) -> None:
        """The client takes the response more slowly than the backend sends it."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The client has caught up."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def buffered(self) -> int:
        """Bytes that wait to be sent."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close at once; nobody is told."""
        self.user = None
        self._transport.abort()

    def give_away(self) -> tuple[asyncio.Transport, bytes]:
        """The connection, and what came behind a 101: from now on its bytes are somebody else's."""
        self.user = None
        early, self._buffer = self._buffer, b""
        return self._transport, early

    # --- the response ---

    def _receive_head(self, data: bytes) -> None:
        user = self.user
        assert user is not None
        data = self._buffer + data
        self._buffer = b""
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD:
            self._buffer = data
            if len(data) > MAX_HEAD:
                self._invalid(ProtocolError(502, "the backend's response head is too long"))
            return
        try:
            response = parse_response(data[:end])
        except ProtocolError as error:
            self._invalid(error)
            return
        rest = data[end + 4 :]
        if response.status == 101:
            self._buffer = rest  # the first bytes of the tunnel
            user.response(response, data[: end + 4])
            return
        self._head_size = end + 4
        user.response(response, data[: end + 4])
        if self.user is not user:
            return
        if response.status < 200:
            if rest:
                self._receive_head(rest)
            return
        self._keep = response.keep_alive
        length = response.length
        if user.head_only or response.status in (204, 304):
            length = 0
        if length == CHUNKED:
            self._state = self._CHUNKED
            self._chunks = Chunks(decode=user.wants_payload)
        elif length == NO_LENGTH:
            self._state = self._TO_END
        else:
            self._state = self._LENGTH
            self._left = length
        if rest or not length:
            self._receive_body(rest)

    def _receive_body(self, data: bytes) -> None:
        user = self.user
        assert user is not None
        if self._state == self._LENGTH:
            if len(data) < self._left:
                self._left -= len(data)
                user.response_data(data)
                return
            surplus = len(data) > self._left
            if data:
                user.response_data(data[: self._left] if surplus else data)
        elif self._state == self._CHUNKED:
            chunks = self._chunks
            assert chunks is not None
            try:
                end = chunks.feed(data)
            except ProtocolError as error:
                self._invalid(ProtocolError(502, f"the backend's response: {error.reason}"))
                return
            body = data if end < 0 else data[:end]
            if user.wants_payload:
                body = b"".join(chunks.payload)
                chunks.payload.clear()
            if body:
                user.response_data(body)
            if end < 0:
                return
            surplus = end < len(data)
        else:
            user.response_data(data)
            return
        if self.user is user:
            self._done(user, surplus=surplus)

    def _done(self, user: User, *, surplus: bool) -> None:
        self.user = None
        self._state = self._HEAD
        self._chunks = None
        self.reused = True
        # Bytes behind the response, or a response before the whole request, leave the connection in doubt.
        if self._keep and not surplus and user.request_done:
            self.resume_reading()
            self._pool.put(self)
        else:
            self._transport.abort()
        user.response_end()

    def _invalid(self, error: ProtocolError) -> None:
        user, self.user = self.user, None
        self._transport.abort()
        if user is not None:
            user.response_invalid(error)


class Pools:
    """The pool of every address in use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pools: dict[tuple[str, int], Pool] = {}

    def get(self, address: str, port: int) -> Pool:
        """The pool of an address."""
        pool = self._pools.get((address, port))
        if pool is None:
            pool = self._pools[address, port] = Pool(address, port, self._clock)
        return pool

    def retire(self, address: str, port: int) -> None:
        """Nobody wants an address any more."""
        pool = self._pools.pop((address, port), None)
        if pool is not None:
            pool.retire()

    def sweep(self) -> None:
        """Close idle connections that are past their time."""
        for pool in self._pools.values():
            pool.sweep()
