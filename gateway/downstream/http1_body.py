"""How the body of a client's request is read on HTTP/1.1 (RFC 9112 §6, §7), how much of it at once, and how slowly it may come.

Whatever comes behind the body was sent ahead; it is kept, and once too much is, the client is no longer read.
"""

from __future__ import annotations

import asyncio

from gateway.downstream.fast_path import FastPath
from gateway.downstream.port import ListenerPort
from gateway.http.chunked import Chunks
from gateway.http.http1 import ProtocolError


class RequestBodyReader(FastPath):
    """What a client's connection reads besides heads."""

    __slots__ = (
        "_body", "_body_bytes", "_body_since", "_buffer", "_is_half_closed", "_postponed", "_reading_stopped", "_transport",
        "_waits",
    )  # fmt: skip

    def __init__(self, listener_port: ListenerPort) -> None:
        super().__init__(listener_port)
        self._transport: asyncio.Transport
        self._buffer = b""  # was sent ahead, or is a part of a head
        self._is_half_closed = False  # the client sends nothing more
        self._reading_stopped = False
        self._waits = False  # for its turn to be read
        self._body: int | Chunks = 0  # octets left of the request's body, or what finds its end
        self._body_bytes = 0
        self._body_since = 0.0
        self._postponed = b""  # of a body that comes in more pieces than are read in one turn

    def _receive_body(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # answered as it began, and the connection is over
            return
        if exchange.request_done:
            self._keep(data)
            return
        body = self._body
        postponed = b""
        if isinstance(body, int):
            end = min(body, len(data))
            self._body = body - end
            done = end == body
        else:
            try:
                end, taken = body.feed_some(data)
            except ProtocolError as error:
                self._listener_port.refused += 1
                exchange.refuse(error.status, error.reason)
                return
            done = end >= 0
            if not done:
                data, postponed = data[:taken], data[taken:]
                end = taken
            most = self._listener_port.limits.body_bytes
            if most and self._body_bytes + end > most:
                self._listener_port.refused += 1
                exchange.refuse(413, f"the request's body is longer than {most} bytes")
                return
        self._body_bytes += end
        self._time_body()
        rest = data[end:]
        if done:
            self.deadline = self._listener_port.stalled_at
            self._keep(rest)  # the exchange may be over with its end
            exchange.end()
        if not isinstance(body, int):
            if body.trailers and done:
                body.trailers = exchange.passing(body.trailers)
            framed = body.framed()
            if framed:
                exchange.data(framed)
        else:
            exchange.data(data[:end] if rest else data)
        if postponed:
            self._postponed = postponed
            self._wait()
        elif not done and self._listener_port.turns.is_due(end):
            self._wait()

    def _keep(self, data: bytes) -> None:
        """Of what a client sends ahead; while that is more than may be kept, no more is read."""
        self._buffer += data
        if self._has_enough():
            self.pause_reading()

    def _has_enough(self) -> bool:
        return len(self._buffer) > self._listener_port.limits.buffered_bytes

    def _wait(self) -> None:
        """Read on when others have had their turn, and meanwhile nothing."""
        if not self._waits and not self._reading_stopped and not self._transport.is_closing():
            self._waits = True
            self._transport.pause_reading()
            self._listener_port.turns.wait(self._read_on, self._transport)

    def _read_on(self) -> None:
        self._waits = False
        if self._reading_stopped or self._transport.is_closing():
            return  # `resume_reading` goes on
        if self._postponed:
            data, self._postponed = self._postponed, b""
            self.receive(data)
            self._end_what_is_cut()
        if not self._waits and not self._reading_stopped and not self._transport.is_closing():
            self._transport.resume_reading()

    def _time_body(self) -> None:
        """A body may be slow, but not for ever: what has come so far buys its sender time for more."""
        limits = self._listener_port.limits
        if not self._body_bytes:
            self._body_since = self._listener_port.clock.now
        if limits.body_rate and not self._reading_stopped:
            self.deadline = self._body_since + limits.body_seconds + self._body_bytes / limits.body_rate
        else:
            self.deadline = self._listener_port.stalled_at

    def pause_reading(self) -> None:
        """Take no more of the request for now."""
        if not self._reading_stopped and not self._transport.is_closing():
            self._reading_stopped = True
            self.deadline = self._listener_port.stalled_at
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more of the request; of what comes behind it there may be enough."""
        if self._exchange is not None and self._exchange.request_done and self._has_enough():
            return
        if self._reading_stopped and not self._transport.is_closing():
            self._reading_stopped = False
            exchange, limits = self._exchange, self._listener_port.limits
            if exchange is not None and not exchange.request_done and limits.body_rate:
                # The pause was ours: as if all that has come had just come in time.
                self._body_since = self._listener_port.clock.now - self._body_bytes / limits.body_rate
                self._time_body()
            if self._postponed:
                self._wait()
            elif not self._waits:
                self._transport.resume_reading()

    def _end_what_is_cut(self) -> None:
        """Of a half-closed client's request the rest will not come; what was answered before goes out."""
        exchange = self._exchange
        if self._is_half_closed and not self._postponed and exchange is not None and not exchange.request_done:
            self._transport.close()
