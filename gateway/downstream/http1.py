"""Client connections: HTTP/1.1 on the server's side (RFC 9112).

One exchange at a time; what a client pipelines behind it waits, and once too much waits the client is no longer
read. Whatever cannot be parsed beyond doubt is refused and the connection closed: after an error nobody can say
where the next request begins.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.downstream.http1_body import RequestBodyReader
from gateway.downstream.http2 import DownstreamHttp2
from gateway.downstream.known_heads import LESSONS, is_plain
from gateway.downstream.port import ListenerPort
from gateway.http import early_faults, http2_frames
from gateway.http.chunked import Chunks
from gateway.http.http1 import CHUNKED, Field, ProtocolError, Request, parse_request
from gateway.http.local_replies import MISDIRECTED, NO_RULE, answer
from gateway.interfaces import UpstreamStream
from gateway.proxy.exchange import Exchange
from gateway.proxy.handover import Handover
from gateway.proxy.scripted_exchange import begin
from gateway.scripting.listener_filters import arrive, connection_of, left
from gateway.snapshot import Limits
from gateway.tls import contexts

_HTTP2: Final = http2_frames.PREFACE[:18]
LINGER: Final = 2.0  # seconds to read what a refused client still sends, so that it can read the answer


class DownstreamHttp1(RequestBodyReader):
    """One client connection."""

    __slots__ = (
        "__weakref__", "_awaits_next", "_closing", "_is_new", "_lessons", "_lingering", "_model", "_requests", "_server_name",
        "_write_stopped", "port", "scheme",
    )  # fmt: skip
    is_framed = True

    def __init__(self, listener_port: ListenerPort) -> None:
        super().__init__(listener_port)
        # Connection.
        self.scheme = listener_port.scheme
        self.port = listener_port.port
        self._server_name = b""
        self._closing = False
        self._lingering = False
        self._write_stopped = False
        self._awaits_next = False  # for the turn of a request that was sent ahead
        self._requests = 0  # that took the slow path; with a limit on their number all do
        # What the heads have in common, with each other and with those of other connections.
        self._is_new = True
        self._model: list[Field] | None = None
        self._lessons = 0

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        self.write = self._transport.write
        peer = transport.get_extra_info("peername")
        self.address = peer[0].removeprefix("::ffff:").encode() if peer else b"unknown"
        if self.scheme == b"https":
            self._server_name = contexts.asked(transport)[0].encode()
            self.listener = self._listener_port.table.owner(self._server_name)
        if not self._listener_port.admit(self):
            self._ready = False
            self._lingering = True
            self._transport.abort()

    def receive(self, data: bytes) -> None:
        if self._postponed:
            self._postponed += data  # was on its way when reading was paused
            return
        if not self._ready and self._exchange is None and self.peer is not None:
            self.promote()  # something comes behind a request that took the fast path
        if self._exchange is not None:
            self._receive_body(data)
        elif self._lingering:
            if self._listener_port.turns.is_due(len(data)):  # read and dropped, so that the answer is not lost to a reset
                self._wait()
        elif self._awaits_next or self._write_stopped:
            self._keep(data)
        else:
            self._receive_head(self._buffer + data if self._buffer else data, looked_at=len(self._buffer))

    def eof_received(self) -> bool:
        while self._postponed and not self._reading_stopped and not self._transport.is_closing():
            self._read_on()
        # A client may close its half and still wait for the answers (RFC 9112 §9.6), also to what it has sent ahead.
        exchange = self._current()
        waits = exchange.request_done if exchange is not None else b"\r\n\r\n" in self._buffer and not self._lingering
        self._is_half_closed = waits
        return waits

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener_port.leave(self)
        self._listener_port.unsent.note(self, 0, 0.0)
        left(self._transport)
        self._closing = True
        exchange = self._current()
        if exchange is not None:
            exchange.client_lost()
        self._listener_port.ended()

    def pause_writing(self) -> None:
        self._write_stopped = True
        self._ready = False
        self._listener_port.unsent.note(self, self.unsent(), self._listener_port.clock.now)
        exchange = self._current()
        if exchange is None:
            self.pause_reading()  # who does not take answers gets no more of them
        elif exchange.peer is not None:
            exchange.peer.pause_reading()

    def resume_writing(self) -> None:
        self._write_stopped = False
        self._listener_port.unsent.note(self, 0, self._listener_port.clock.now)
        exchange = self._exchange
        if exchange is None and self._reading_stopped and not self._buffer:  # also while it lingers
            self.resume_reading()
        if exchange is not None and exchange.peer is not None:
            exchange.peer.resume_reading()
        elif exchange is None and self.peer is None and not self._lingering:
            self._wait_for_next()

    def promote(self) -> Exchange:
        exchange = self._exchange
        if exchange is None:
            request = parse_request(self._data[:-4], self._listener_port.limits)
            exchange = self._exchange = begin(self, request, self._decision.entry, self._listener_port.backends)
            seen = self._lazy_request if self._target.is_filtered else None
            shown = self._response_filter
            if shown is not None and (seen is None or shown.lazy_request is not seen):
                shown = None  # of a request before this one
            exchange.take_over(Handover(self._target, self._since, self.peer, self._status_class, seen, shown))
            self.peer = None
            self._status_class = 0
        return exchange

    def _current(self) -> Exchange | None:
        """The exchange under way, also of a request that took the fast path."""
        return self.promote() if self.peer is not None else self._exchange

    # --- heads ---

    def _receive_head(self, data: bytes, looked_at: int = 0) -> None:
        limits = self._listener_port.limits
        # RFC 9112 §2.2: one empty line before a request line is forgiven.
        start = 2 if data[:2] == b"\r\n" else 0
        # A head that trickles in is searched once, not anew with each byte.
        end = data.find(b"\r\n\r\n", max(start, looked_at - 3))
        if end < 0 or end - start > limits.head_bytes:
            self._wait_for_head(data, start, looked_at)
            return
        self._buffer = b""
        if self._is_new and not start and end + 4 == len(data):
            self._is_new = False
            self._template = self._listener_port.templates.find(data)
            if self._template is not None:
                self.data_received(data)
                return
        if data.startswith(_HTTP2, start) and not self._requests and self.scheme == b"http":
            self._switch(data[start:])
            return
        try:
            request = parse_request(data[start:end], limits)
        except ProtocolError as error:
            self._refuse(error)
            return
        rest = data[end + 4 :]
        if not start and not rest and self._lessons < LESSONS and is_plain(request):
            self._learn(request)
        self._begin(request, rest)

    def _switch(self, data: bytes) -> None:
        """The client speaks HTTP/2 by prior knowledge (RFC 9113 §3.3)."""
        listener_port = self._listener_port
        listener_port.leave(self)
        other = DownstreamHttp2(listener_port)
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        other.data_received(data)

    def _wait_for_head(self, data: bytes, start: int, looked_at: int) -> None:
        limits = self._listener_port.limits
        fault = early_faults.of_request(data, start, looked_at)
        if fault is not None:
            self._refuse(fault)
            return
        line_end = data.find(b"\r\n", start)
        if (len(data) if line_end < 0 else line_end) - start > limits.target_bytes + 100:
            self._refuse(ProtocolError(414, f"the request target is longer than {limits.target_bytes} bytes"))
        elif len(data) - start > limits.head_bytes:
            self._refuse(ProtocolError(431, f"the header section is longer than {limits.head_bytes} bytes"))
        elif self._is_half_closed:
            self._transport.close()  # the rest of it will not come
        else:
            if not self._buffer:
                self.deadline = self._listener_port.clock.now + limits.head_seconds
            self._buffer = data
            self._ready = False
            if not self._write_stopped:
                self.resume_reading()

    def _learn(self, request: Request) -> None:
        """Compare a head with the one before it: what they share becomes a template."""
        templates, template, model = self._listener_port.templates, self._template, self._model
        self._lessons += 1
        self._template = None
        if self._listener_port.draining or self._listener_port.limits.requests_per_connection or self._listener_port.arrivals:
            return
        if self._lessons > 1 and template is not None:
            self._template = templates.learn(template.model(), template.slots, request)
        elif model is not None:
            self._template = templates.learn(model, (), request)
        elif self._lessons == 1:
            self._template = templates.learn_first(request)
        self._model = request.fields if self._template is None else None

    def _begin(self, request: Request, rest: bytes) -> None:
        listener_port = self._listener_port
        self._ready = False
        self._data = b""
        self._requests += 1
        self.deadline = listener_port.stalled_at
        if not request.keep_alive or self.closes_after_this:
            self._closing = True
        if listener_port.arrivals:
            try:
                request = arrive(listener_port.arrivals, connection_of(self), request)
            except ProtocolError as error:
                self._refuse(error)
                return
        virtual_host = listener_port.table.virtual_host(request.host)
        if virtual_host.listener and virtual_host.listener != self.listener:  # where none has the Host: 404
            self.listener = listener_port.table.owner(self._server_name)  # listeners may have changed since the handshake
            if virtual_host.listener != self.listener:
                self._misdirected(request, rest)
                return
        entry = virtual_host.find(request)
        if entry is None:
            listener_port.unmatched += 1
            self._not_found(request, rest)
            return
        length, most = request.length, listener_port.limits.body_bytes
        if most and length > most:
            self._refuse(ProtocolError(413, f"the request's body is longer than {most} bytes"))
            return
        exchange = self._exchange = begin(self, request, entry, listener_port.backends)
        if length == CHUNKED:
            self._body = Chunks(self._listener_port.limits)
        elif length > 0:
            self._body = length
        else:
            exchange.request_done = True
            self._keep(rest)
            exchange.start()
            return
        self.resume_reading()
        self._body_bytes = 0
        self._time_body()
        exchange.start()
        if rest:
            self._receive_body(rest)

    def _not_found(self, request: Request, rest: bytes) -> None:
        self._answer_here(404, NO_RULE, request, rest)

    def _misdirected(self, request: Request, rest: bytes) -> None:
        """RFC 9110 §15.5.20: the certificate of this connection was chosen for another listener."""
        self._listener_port.refused += 1
        self._answer_here(421, MISDIRECTED, request, rest)

    def _answer_here(self, status: int, text: str, request: Request, rest: bytes) -> None:
        head_only = request.method == b"HEAD"
        has_body = request.length > 0 or request.length == CHUNKED
        close = has_body or self._closing
        keep_10 = request.http10 and not close
        self.write(answer(status, text, close=close, head_only=head_only, keep_alive_10=keep_10))
        if close:
            self._linger()
        else:
            self._keep(rest)
            self._wait_for_next()

    def _refuse(self, error: ProtocolError) -> None:
        self._listener_port.refused += 1
        self._ready = False
        self.write(answer(error.status, error.reason, close=True))
        self._linger()

    # --- Client, for the exchange ---

    def trailers(self, fields: list[Field]) -> None:
        """HTTP/1.0 has none."""

    def owes(self) -> int:
        return self._transport.get_write_buffer_size()

    @property
    def limits(self) -> Limits:
        """What this client may ask."""
        return self._listener_port.limits

    @property
    def closes_after_this(self) -> bool:
        """Whether an answer should say `Connection: close`."""
        return self._listener_port.draining or self._requests >= self._listener_port.most_requests

    @property
    def takes_more(self) -> bool:
        """Whether what it owes is little."""
        return not self._write_stopped

    def touch(self) -> None:
        """The response moves."""
        self.deadline = self._listener_port.stalled_at
        if self._write_stopped and self._exchange is not None and self._exchange.peer is not None:
            self._exchange.peer.pause_reading()

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
        self._wait_for_next()

    def abort(self) -> None:
        """Cut the connection: the client must see that the response is not whole."""
        self._transport.abort()

    def tunnel(self, peer: UpstreamStream, head: bytes) -> None:
        """Both sides changed protocols: their bytes pass unread from here on."""
        self._exchange = None
        self._reading_stopped = True  # when it is read is not decided here any more
        listener_port = self._listener_port
        listener_port.leave(self)
        other, answered = peer.give_away()
        early, self._buffer = self._buffer, b""
        self._transport.write(head + answered)
        if early:
            other.write(early)
        listener_port.join(self._transport, other)

    # --- endings ---

    def _wait_for_next(self) -> None:
        """Between two requests, unless one has been sent ahead."""
        self.deadline = self._listener_port.idle_until
        if self._write_stopped:
            self.pause_reading()
            return  # `resume_writing` goes on
        if self._buffer:
            self._await_next()
        elif self._is_half_closed:
            self._transport.close()
        else:
            self._ready = True
            self.resume_reading()

    def _await_next(self) -> None:
        """Go on with what the client has sent ahead when others have had their turn."""
        if not self._awaits_next:
            self._awaits_next = True
            self._listener_port.turns.wait(self._next, self._transport)

    def _next(self) -> None:
        self._awaits_next = False
        if self.is_idle and self._buffer and not self._transport.is_closing() and not self._lingering:
            data, self._buffer = self._buffer, b""
            self._receive_head(data)
            self._end_what_is_cut()

    def _linger(self) -> None:
        """Close our half, and read on for a moment: closing with unread bytes resets the answer away."""
        self._lingering = True
        self._closing = True
        self._buffer = b""
        self.deadline = self._listener_port.clock.now + LINGER
        self.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def close_if_idle(self) -> None:
        """At the end of draining: nothing is lost by closing a connection between two requests."""
        if self.is_idle:
            self._transport.close()

    @property
    def is_idle(self) -> bool:
        """Between two requests, none of which was sent ahead and awaits its turn."""
        return self._exchange is None and self.peer is None and not self._awaits_next

    # --- Debtor ---

    def unsent(self) -> int:
        """Octets in the transport's buffer."""
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def shed(self) -> None:
        """The client takes nothing."""
        self._listener_port.refused += 1
        self._transport.abort()

    # --- Connection, for the listener port ---

    def start_over(self) -> None:
        """Keep no more of the requests so far than a new connection would."""
        self._template = self._listener_port.templates.latest
        self._model = None
        self._lessons = 0
        if self.is_idle:
            self._data = b""

    def parse_always(self) -> None:
        """Take the slow path from now on, with the request under way as well."""
        self._template = None
        self._is_new = False
        self._lessons = LESSONS
        exchange = self._current()
        if exchange is not None:
            exchange.read_in_full()

    def expired(self) -> None:
        """Called when the deadline has passed."""
        exchange = self._current()
        limits = self._listener_port.limits
        if self._transport.is_closing() or (exchange is None and self._write_stopped):
            self._transport.abort()  # what waits to be sent is not taken
        elif exchange is None:
            if self._buffer:
                self._refuse(ProtocolError(408, f"the request's head took longer than {limits.head_seconds:g} s"))
            else:
                self._transport.close()
        elif exchange.request_done or self._reading_stopped:
            exchange.expired()
        else:
            self._listener_port.refused += 1
            exchange.refuse(408, f"the request's body came more slowly than {limits.body_rate} bytes a second")
