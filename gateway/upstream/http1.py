"""A connection to a backend that speaks HTTP/1.1 (RFC 9112): at most one request at a time, and its response as it comes."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from gateway.base.clock import Clock
from gateway.http import early_faults
from gateway.http.chunked import Chunks, chunk, last_chunk
from gateway.http.head_templates import ResponseShape
from gateway.http.http1 import BODILESS, CHUNKED, NO_LENGTH, Field, Interim, ProtocolError, Response, parse_response
from gateway.interfaces import Endpoint, ResponseHeads, ResponseSink, UpstreamHandler
from gateway.snapshot import DEFAULT_LIMITS
from gateway.tls.contexts import unread
from gateway.transport.turns import Turns
from gateway.upstream.bulk_body import SHARED, SIZE, WORTH, BulkReader

MAX_HEAD: Final = 65536  # bytes of a response's head


class ConnectionPool(Endpoint, Protocol):
    """Where a connection waits for its next request: what it needs of `Http1Pool`."""

    clock: Clock
    turns: Turns
    open: int  # connections
    head_size: int
    varying: bytes
    shape: ResponseShape | None

    def put(self, upstream: Http1UpstreamConnection) -> None:
        """Keep it for the next request."""

    def forget(self, upstream: Http1UpstreamConnection) -> None:
        """The connection was closed while it was idle."""

    def learn(self, response: Response) -> None:
        """Compare its response's head with the one before it."""


class Http1UpstreamConnection(asyncio.Protocol):
    """One connection to a backend: at most one request at a time."""

    __slots__ = (
        "_buffer",
        "_chunks",
        "_interim",
        "_keep",
        "_left",
        "_paused",
        "_ready",
        "_state",
        "_status_class",
        "_transport",
        "_waits",
        "endpoint",
        "idle_since",
        "user",
        "write",
    )  # fmt: skip
    _HEAD, _LENGTH, _CHUNKED, _TO_END = range(4)

    def __init__(self, pool: ConnectionPool) -> None:
        # Connection.
        self.endpoint = pool
        self._transport: asyncio.Transport
        self.user: ResponseSink | None = None
        self.idle_since = 0.0  # 0 on its first request
        self._paused = False  # its client takes no more for now
        self._waits = False  # for its turn to be read
        # Response.
        self._ready = True  # at the beginning of a response
        self._state = self._HEAD
        self._status_class = 0  # of its status, while a body follows a head that was known from before
        self._buffer = b""
        self._left = 0
        self._chunks: Chunks | None = None
        self._interim: Interim | None = None  # once there was one
        self._keep = False

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        self.write = self._transport.write
        self.endpoint.open += 1

    def data_received(self, data: bytes) -> None:
        sender = self.user
        if sender is None:
            self._transport.abort()  # a server has nothing to say unasked
            return
        answers = sender.answers
        if answers is not None:
            if self._ready:
                size = self.endpoint.head_size
                known = answers.known.get(data[:size]) if size else None
                if known is not None:
                    rest = known[1] - len(data)
                    if not rest:
                        # As in Pool.put, which a call would make dearer.
                        self.user = None
                        pool = self.endpoint
                        self.idle_since = pool.clock.now
                        pool.idle.append(self)
                        sender.answered(known[0] + data[size:], known[2])
                        return
                    if self._begin(sender, known[0] + data[size:], known[2], rest):
                        return
                elif self.endpoint.shape is not None and self._take_shaped(sender, answers, self.endpoint.shape, data):
                    return
            elif self._status_class and self._continue(sender, data):
                return
        self._receive(sender.promote(), data)

    def _take_shaped(self, sender: ResponseSink, answers: ResponseHeads, shape: ResponseShape, data: bytes) -> bool:
        """Take a response whose head has a known shape; False where it must be parsed."""
        parts = shape.read(data)
        if parts is None:
            return False
        varying, end, length = parts
        rest = end + length - len(data)
        out = answers.fill(shape, varying)
        if out is None or rest < 0:
            return False
        pool = self.endpoint
        if varying == pool.varying:  # twice in a row: worth remembering as it is
            answers.remember(data[:end], out, length, shape.status)
            pool.head_size = end
        else:
            pool.varying = varying
            pool.head_size = 0  # heads that do not repeat are not even looked up
        if rest:
            return self._begin(sender, out + data[end:], shape.status // 100, rest)
        self.user = None
        pool.put(self)
        sender.answered(out + data[end:], shape.status // 100)
        return True

    def _begin(self, sender: ResponseSink, data: bytes, status_class: int, left: int) -> bool:
        """A known head, and `left` octets of its body still to come; False where there are more than it says."""
        if left < 0:
            return False
        self._ready = False
        self._state = self._LENGTH
        self._keep = True
        self._left = left
        self._status_class = status_class
        sender.begun(data, status_class)
        self._lend()
        self._share(len(data))
        return True

    def _continue(self, sender: ResponseSink, data: bytes) -> bool:
        """More of the body of a response with a known head; False where there is more than it should be."""
        left = self._left - len(data)
        if left < 0:
            return False
        self._left = left
        if left:
            sender.continued(data)
            self._share(len(data))
            return True
        status_class, self._status_class = self._status_class, 0
        self._state = self._HEAD
        self._ready = True
        self.user = None
        self.endpoint.put(self)
        sender.ended(data, status_class)
        return True

    def _receive(self, user: UpstreamHandler, data: bytes) -> None:
        self._ready = False
        self._status_class = 0
        if self._state == self._HEAD:
            self._receive_head(user, data)
        elif self._buffer:
            self._buffer += data  # was on its way when reading was paused
        else:
            self._receive_body(user, data)

    def eof_received(self) -> bool:
        # An end comes while reading is paused: what was put off had come before it.
        while (user := self.user) is not None and self._buffer and self._state == self._CHUNKED:
            self._read_put_off(user)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.open -= 1
        if self.user is not None:
            if data := unread(self._transport):
                self.data_received(data)
            self.eof_received()
        user = self.user
        if user is None:
            self.endpoint.forget(self)
            return
        clean = self._state == self._TO_END and exc is None
        full = user.promote()
        self.user = None
        full.response_lost(str(exc or "closed"), clean=clean)

    def pause_writing(self) -> None:
        if self.user is not None:
            self.user.promote().pause_sending()

    def resume_writing(self) -> None:
        if self.user is not None:
            self.user.promote().resume_sending()

    # --- Peer ---

    @property
    def reused(self) -> bool:
        """Whether it has served a request before this one."""
        return self.idle_since > 0

    def open(self, head: bytes) -> None:
        """As `write`: everything is framed here."""
        self.write(head)

    def content(self, data: bytes) -> None:
        """As one chunk."""
        self.write(chunk(data))

    def finish(self, trailers: list[Field] | None = None) -> None:
        """The last chunk."""
        self.write(last_chunk(trailers or ()))

    def pause_reading(self) -> None:
        """The client takes the response more slowly than the backend sends it."""
        if not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The client has caught up."""
        if not self._transport.is_closing():
            self._paused = False
            if (self._buffer and self._state == self._CHUNKED) or (self._left > WORTH and self.endpoint.turns.is_crowded):
                self._wait()
            elif not self._waits:
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
        self.endpoint.open -= 1
        self.user = None
        self._paused = True  # when it is read is not decided here any more
        early, self._buffer = self._buffer, b""
        return self._transport, early

    # --- large bodies ---

    def _lend(self) -> None:
        """Where much of a body is still to come, let it pass in bulk."""
        if self._left > WORTH and self.user is not None:
            self._change_reader(BulkReader(self))

    def left(self) -> int:
        """Octets of the body still to come."""
        return self._left

    def owes(self) -> int:
        """Octets of it that the client has not taken."""
        return self.user.owes() if self.user is not None else 1

    def share(self) -> int:
        """Octets of it that may be read at once."""
        return SHARED if self.endpoint.turns.is_crowded else SIZE

    def bulk(self, data: memoryview) -> bool:
        """A piece from the middle of a body; False where the client has not taken all of it yet."""
        sender = self.user
        if sender is None:
            return False
        self._left -= len(data)
        sender.continued(data)
        self._share(len(data))
        return not sender.owes()

    def bulk_done(self) -> None:
        """The end of the body is read as usual."""
        if not self._transport.is_closing():
            self._change_reader(self)

    def _change_reader(self, reader: asyncio.BaseProtocol) -> None:
        # uvloop chooses how to read when reading starts.
        self._transport.pause_reading()
        self._transport.set_protocol(reader)
        if not self._paused and not self._waits:
            self._transport.resume_reading()

    # --- the response ---

    def _receive_head(self, user: UpstreamHandler, data: bytes) -> None:
        looked_at = len(self._buffer)
        data = self._buffer + data
        self._buffer = b""
        start = 0
        while True:
            end = data.find(b"\r\n\r\n", start)
            if end < 0 or end - start > MAX_HEAD:
                self._buffer = data[start:]
                fault = early_faults.of_response(self._buffer, looked_at if not start else 0)
                if fault is not None:
                    self._invalid(fault)
                elif len(self._buffer) > MAX_HEAD:
                    self._invalid(ProtocolError(502, "the backend's response head is too long"))
                return
            try:
                response = parse_response(data[start:end])
                if response.status < 200:
                    self._interim = self._interim or Interim()
                    self._interim.count(end - start)
            except ProtocolError as error:
                self._invalid(error)
                return
            if response.status == 101:
                self._buffer = data[end + 4 :]  # the first bytes of the tunnel
                user.response(response, data[start : end + 4])
                return
            self.endpoint.head_size = end + 4 - start
            user.response(response, data[start : end + 4])
            if self.user is not user:
                return
            start = end + 4
            if response.status >= 200:
                break
            if start == len(data):
                return
        rest = data[start:]
        self._interim = None
        self._keep = response.keep_alive
        length = response.length
        if user.head_only or response.status in BODILESS:
            length = 0
        elif length >= 0 and self._keep:
            self.endpoint.learn(response)
        if length == CHUNKED:
            self._state = self._CHUNKED
            self._chunks = Chunks(DEFAULT_LIMITS)
        elif length == NO_LENGTH:
            self._state = self._TO_END
        else:
            self._state = self._LENGTH
            self._left = length
        if rest or not length:
            self._receive_body(user, rest)
        user.flush()

    def _receive_body(self, user: UpstreamHandler, data: bytes) -> None:
        if self._state == self._LENGTH:
            if len(data) < self._left:
                self._left -= len(data)
                user.response_data(data)
                self._lend()
                self._share(len(data))
                return
            surplus = len(data) > self._left
            if data:
                user.response_data(data[: self._left] if surplus else data)
        elif self._state == self._CHUNKED:
            chunks = self._chunks
            assert chunks is not None
            try:
                end, taken = chunks.feed_some(data)
            except ProtocolError as error:
                self._invalid(ProtocolError(502, f"the backend's response: {error.reason}"))
                return
            body = chunks.taken() if user.wants_payload else chunks.framed()
            if body:
                user.response_data(body)
            if end < 0:
                if taken < len(data) and self.user is user:
                    self._postpone(data[taken:])
                else:
                    self._share(len(data))
                return
            if chunks.trailers and user.wants_payload:
                user.response_trailers(chunks.trailers)
            surplus = end < len(data)
        else:
            user.response_data(data)
            self._share(len(data))
            return
        if self.user is user:
            self._done(user, surplus=surplus)

    def _postpone(self, data: bytes) -> None:
        """Read this when others have had their turn, and meanwhile nothing more."""
        self._buffer = data
        self._transport.pause_reading()
        self._wait()

    def _share(self, octets: int) -> None:
        """Much is read from many at once: let others have their turn before the rest of this body is."""
        if self.endpoint.turns.is_due(octets) and self.user is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._wait()

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self.endpoint.turns.wait(self._read_on, self._transport)

    def _read_on(self) -> None:
        self._waits = False
        if self._transport.is_closing() or self._paused:
            return  # `resume_reading` goes on
        if self._buffer and self._state == self._CHUNKED and self.user is not None:
            self._read_put_off(self.user)
        if not self._waits and not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _read_put_off(self, user: ResponseSink) -> None:
        data, self._buffer = self._buffer, b""
        self._receive_body(user.promote(), data)

    def _done(self, user: UpstreamHandler, *, surplus: bool) -> None:
        self.user = None
        self._state = self._HEAD
        self._ready = True
        self._chunks = None
        # Bytes behind the response, or a response before the whole request was taken, leave the connection in doubt.
        is_over = self._transport.is_closing() or not user.is_sent or self._transport.get_write_buffer_size() > 0
        if self._keep and not surplus and not is_over:
            self._waits = False  # if it still stands in the queue, it will find nothing to do
            self.resume_reading()
            self.endpoint.put(self)
        else:
            self._transport.abort()
        user.response_end()

    def _invalid(self, error: ProtocolError) -> None:
        user, self.user = self.user, None
        self._transport.abort()
        if user is not None:
            user.promote().response_invalid(error)
