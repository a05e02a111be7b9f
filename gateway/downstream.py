"""Client connections: HTTP/1.1 on the server's side (RFC 9112).

One exchange at a time; what a client pipelines behind it waits, and once too much waits the client is no longer
read. Whatever cannot be parsed beyond doubt is refused and the connection closed: after an error nobody can say
where the next request begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from gateway.exchange import Exchange
from gateway.http1 import CHUNKED, MAX_HEAD, Chunks, ProtocolError, Request, answer, parse_request
from gateway.peers import Peer
from gateway.prepared import Backend, Route
from gateway.routing import Table

PIPELINED: Final = 65536  # bytes kept of requests that wait their turn
HEAD_TIMEOUT: Final = 10.0  # seconds for a head to be complete once it has begun
IDLE_TIMEOUT: Final = 75.0  # seconds between requests
STALL_TIMEOUT: Final = 300.0  # seconds without a byte either way inside a request
LINGER: Final = 2.0  # seconds to read what a refused client still sends, so that it can read the answer


class Clock(Protocol):
    """Time as of the last tick, in seconds."""

    now: float


class Door:
    """What all connections of one port share. `table` is swapped whole; a request keeps the one it started with."""

    def __init__(
        self, port: int, clock: Clock, backends: Callable[[str], Backend], splice: Splice, ended: Callable[[], None]
    ) -> None:
        self.port = port
        self.clock = clock
        self.backends = backends
        self.splice = splice
        self.ended = ended  # called when a connection or tunnel has ended
        self.table: Table[Route] = Table({}, {})
        self.scheme = b"http"
        self.connections: set[Downstream] = set()
        self.tunnels = 0
        self.unmatched = 0  # requests that no rule took: 404
        self.refused = 0  # requests that were not HTTP enough: 4xx and 5xx of our own
        self.draining = False


class Splice(Protocol):
    """Joins two connections for good."""

    def __call__(self, one: asyncio.Transport, other: asyncio.Transport, done: Callable[[], None]) -> None: ...


class Downstream(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "__weakref__", "_body", "_buffer", "_closing", "_door", "_exchange", "_left", "_lingering", "_reading_stopped",
        "_transport", "_write_stopped", "address", "deadline", "port", "scheme", "write",
    )  # fmt: skip

    def __init__(self, door: Door) -> None:
        # Connection.
        self._door = door
        self._transport: asyncio.Transport
        self.address = b""
        self.scheme = door.scheme
        self.port = door.port
        self.deadline = door.clock.now + IDLE_TIMEOUT
        self._buffer = b""
        self._closing = False
        self._lingering = False
        self._reading_stopped = False
        self._write_stopped = False
        # Request.
        self._exchange: Exchange | None = None
        self._body: int | Chunks = 0  # octets left of the request's body, or what finds its end

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        self.write = self._transport.write
        peer = transport.get_extra_info("peername")
        self.address = peer[0].removeprefix("::ffff:").encode() if peer else b"unknown"
        self._door.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None:
            self._receive_body(data)
        elif self._lingering:
            return  # read and dropped, so that the answer is not lost to a reset
        else:
            self._receive_head(self._buffer + data if self._buffer else data, looked_at=len(self._buffer))

    def eof_received(self) -> bool:
        # A client may close its half and still wait for the answer (RFC 9112 §9.6).
        if self._exchange is not None and self._exchange.request_done:
            self._closing = True
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.discard(self)
        self._closing = True
        exchange = self._exchange
        if exchange is not None:
            exchange.client_lost()
        self._door.ended()

    def pause_writing(self) -> None:
        self._write_stopped = True
        exchange = self._exchange
        if exchange is not None and exchange.peer is not None:
            exchange.peer.pause_reading()

    def resume_writing(self) -> None:
        self._write_stopped = False
        exchange = self._exchange
        if exchange is not None and exchange.peer is not None:
            exchange.peer.resume_reading()
        elif exchange is None and self._buffer:
            asyncio.get_running_loop().call_soon(self._next)

    # --- heads ---

    def _receive_head(self, data: bytes, looked_at: int = 0) -> None:
        # RFC 9112 §2.2: one empty line before a request line is forgiven.
        start = 2 if data[:2] == b"\r\n" else 0
        # A head that trickles in is searched once, not anew with each byte.
        end = data.find(b"\r\n\r\n", max(start, looked_at - 3))
        if end < 0 or end - start > MAX_HEAD:
            self._wait_for_head(data)
            return
        self._buffer = b""
        try:
            request = parse_request(data[start:end])
        except ProtocolError as error:
            self._refuse(error)
            return
        self._begin(request, data[end + 4 :])

    def _wait_for_head(self, data: bytes) -> None:
        if len(data) > MAX_HEAD:
            line_is_whole = data.find(b"\r\n", 2) > 0
            self._refuse(
                ProtocolError(431, f"the header section is longer than {MAX_HEAD} bytes")
                if line_is_whole
                else ProtocolError(414, f"the request line is longer than {MAX_HEAD} bytes")
            )
            return
        if not self._buffer:
            self.deadline = self._door.clock.now + HEAD_TIMEOUT
        self._buffer = data

    def _begin(self, request: Request, rest: bytes) -> None:
        door = self._door
        self.deadline = door.clock.now + STALL_TIMEOUT
        if not request.keep_alive or door.draining:
            self._closing = True
        entry = door.table.find(request)
        if entry is None:
            door.unmatched += 1
            self._not_found(request, rest)
            return
        exchange = self._exchange = Exchange(self, request, entry, door.backends)
        length = request.length
        if length == CHUNKED:
            self._body = Chunks()
        elif length > 0:
            self._body = length
        else:
            exchange.request_done = True
            self._buffer = rest
            exchange.start()
            return
        exchange.start()
        if rest:
            self._receive_body(rest)

    def _not_found(self, request: Request, rest: bytes) -> None:
        head_only = request.method == b"HEAD"
        has_body = request.length > 0 or request.length == CHUNKED
        close = has_body or self._closing
        keep_10 = request.http10 and not close
        text = "no rule matches this host, path, method, headers and query"
        self.write(answer(404, text, close=close, head_only=head_only, keep_alive_10=keep_10))
        if close:
            self._linger()
        else:
            self._buffer = rest
            self.deadline = self._door.clock.now + IDLE_TIMEOUT
            if rest:
                asyncio.get_running_loop().call_soon(self._next)

    def _refuse(self, error: ProtocolError) -> None:
        self._door.refused += 1
        self.write(answer(error.status, error.reason, close=True))
        self._linger()

    # --- bodies ---

    def _receive_body(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # answered while its body was still coming
            if not self._lingering:
                self._receive_head(self._buffer + data)
            return
        if exchange.request_done:
            self._buffer += data
            if len(self._buffer) > PIPELINED:
                self.pause_reading()
            return
        self.deadline = self._door.clock.now + STALL_TIMEOUT
        body = self._body
        if isinstance(body, int):
            end = min(body, len(data))
            self._body = body - end
            done = end == body
        else:
            try:
                end = body.feed(data)
            except ProtocolError as error:
                self._door.refused += 1
                exchange.refuse(error.status, error.reason)
                return
            done = end >= 0
            if not done:
                end = len(data)
        rest = data[end:]
        if done:
            exchange.end()
        exchange.data(data[:end] if rest else data)
        if rest:
            self._receive_body(rest)

    # --- Client, for the exchange ---

    @property
    def draining(self) -> bool:
        """Whether answers should say `Connection: close`."""
        return self._door.draining

    def progress(self) -> None:
        """The response moves."""
        self.deadline = self._door.clock.now + STALL_TIMEOUT
        if self._write_stopped and self._exchange is not None and self._exchange.peer is not None:
            self._exchange.peer.pause_reading()

    def pause_reading(self) -> None:
        """Take no more of the request for now."""
        if not self._reading_stopped and not self._transport.is_closing():
            self._reading_stopped = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more of the request."""
        if self._reading_stopped and not self._transport.is_closing():
            self._reading_stopped = False
            self._transport.resume_reading()

    def finished(self, *, reuse: bool) -> None:
        """The exchange is over; go on with the next request, or close."""
        exchange, self._exchange = self._exchange, None
        if self._transport.is_closing():
            return
        if not reuse or self._closing:
            if exchange is not None and not exchange.request_done:
                self._linger()
            else:
                self._transport.close()
            return
        self.deadline = self._door.clock.now + IDLE_TIMEOUT
        if self._reading_stopped:
            self.resume_reading()
        if self._buffer and not self._write_stopped:
            asyncio.get_running_loop().call_soon(self._next)

    def abort(self) -> None:
        """Cut the connection: the client must see that the response is not whole."""
        self._transport.abort()

    def tunnel(self, peer: Peer, head: bytes) -> None:
        """Both sides changed protocols: their bytes pass unread from here on."""
        self._exchange = None
        door = self._door
        door.connections.discard(self)
        door.tunnels += 1
        other, answered = peer.give_away()
        early, self._buffer = self._buffer, b""
        self._transport.write(head + answered)
        if early:
            other.write(early)
        ended = 0

        def done() -> None:
            nonlocal ended
            ended += 1
            if ended == 2:
                door.tunnels -= 1
                door.ended()

        door.splice(self._transport, other, done)

    # --- endings ---

    def _next(self) -> None:
        if self._exchange is None and self._buffer and not self._transport.is_closing() and not self._lingering:
            data, self._buffer = self._buffer, b""
            self._receive_head(data)

    def _linger(self) -> None:
        """Close our half, and read on for a moment: closing with unread bytes resets the answer away."""
        self._lingering = True
        self._closing = True
        self._buffer = b""
        self.deadline = self._door.clock.now + LINGER
        self.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def close_if_idle(self) -> None:
        """At the end of draining: nothing is lost by closing a connection between two requests."""
        if self._exchange is None:
            self._transport.close()

    @property
    def is_idle(self) -> bool:
        """Between two requests."""
        return self._exchange is None

    def expired(self) -> None:
        """Called when the deadline has passed."""
        if self._exchange is not None:
            self._exchange.expired()
        elif self._buffer:
            self._refuse(ProtocolError(408, f"the request's head took longer than {HEAD_TIMEOUT:g} s"))
        else:
            self._transport.close()
