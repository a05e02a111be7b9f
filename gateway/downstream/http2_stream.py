"""One stream of a client's HTTP/2 connection: a request and its answer (RFC 9113 §8.1).

What a field block means is remembered by its bytes. A request like that takes the fast path of `gateway.downstream.fast_path`:
straight to an idle connection of the backend, and its answer straight back as frames.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from gateway.downstream.port import ListenerPort
from gateway.http import abuse_budget, field_sections, http2_frames
from gateway.http.field_sections import Pair
from gateway.http.forwarding import is_grpc, request_head
from gateway.http.http1 import CHUNKED, Edit, Field, Request
from gateway.http.http2_frames import DATA, END_HEADERS, END_STREAM, HEADERS, MAX_FRAME_OCTETS, frame_head
from gateway.http.http2_stream import Stream, StreamOwner
from gateway.http.local_replies import answer, not_switched
from gateway.interfaces import UpstreamStream
from gateway.proxy.exchange import Exchange
from gateway.proxy.handover import Handover
from gateway.proxy.route import ResponseHeadCache, Route, Target
from gateway.proxy.scripted_exchange import begin
from gateway.routing.table import RouteMatch, Table
from gateway.snapshot import Limits
from gateway.transport.http2_stream import StreamTransport


class DownstreamConnection(StreamOwner, Protocol):
    """The connection of a stream, as a client's."""

    listener_port: ListenerPort
    address: bytes
    deadline: float

    def spend(self, points: int) -> None:
        """The client has done something that it must pay for. Raises ConnectionFault where it cannot."""

    def answer(self, number: int, data: bytes, *, head_only: bool = False) -> None:
        """Answer a stream here, with a whole response of HTTP/1.1."""


class KnownBlock:
    """What a field block means: a request without content, and where it leads by one table."""

    __slots__ = ("entry", "heads", "request", "table")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.table: Table[Route] | None = None
        self.entry: RouteMatch[Route] | None = None
        self.heads: dict[Edit | None, bytes] = {}  # what goes to the backend, by how it is edited


class DownstreamStream(Stream):
    """One request of a client, and its answer."""

    __slots__ = (
        "_body_bytes",
        "_body_since",
        "_expected",
        "_is_conversation",
        "_request",
        "_since",
        "_status_class",
        "_target",
        "_tunnel",
        "answers",
        "deadline",
        "entry",
        "exchange",
        "headed",
        "opened",
        "peer",
    )  # fmt: skip
    is_framed = False
    connection: DownstreamConnection

    def __init__(self, connection: DownstreamConnection, number: int, request: Request) -> None:
        super().__init__(connection, number)
        self.opened = monotonic()
        self._request = request
        self._expected = request.length  # octets of content still to come, where their number was said
        self._body_bytes = 0
        self._body_since = 0.0
        self._is_conversation = False  # its content comes when there is something to say
        self.deadline = connection.listener_port.stalled_at
        self.exchange: Exchange | None = None
        self.headed = False  # the final head has been sent
        # Of an extended CONNECT: it keeps what the client sends ahead until both sides have changed protocols.
        self._tunnel = StreamTransport(self) if request.upgrade else None
        # On the fast path.
        self.peer: UpstreamStream | None = None
        self.answers: ResponseHeadCache | None = None
        self.entry: RouteMatch[Route]
        self._target: Target
        self._since = 0.0
        self._status_class = 0

    # --- ResponseSink, on the fast path ---

    def answered(self, data: bytes, status_class: int) -> None:
        """A whole response in one piece, its head known from before."""
        self.peer = None
        connection = self.connection
        end = data.find(b"\r\n\r\n") + 4
        block = field_sections.response_block(data[:end])
        size, length = len(block), len(data) - end
        if (
            length <= self.window
            and length <= connection.window
            and length <= MAX_FRAME_OCTETS
            and size <= MAX_FRAME_OCTETS
            and not connection.stopped
        ):
            # As in `send_head` and `send`, with one write for all of it.
            if length:
                connection.window -= length
                connection.write(
                    b"".join((
                        frame_head(0, size, HEADERS, END_HEADERS, self.id), block,
                        frame_head(0, length, DATA, END_STREAM, self.id), data[end:],
                    ))
                )  # fmt: skip
            else:
                connection.write(frame_head(0, size, HEADERS, END_HEADERS | END_STREAM, self.id) + block)
            self.headed = self.local_closed = True
            connection.end_local(self)
        else:
            self.write(data)
            self.finish()
        connection.budget.spent -= abuse_budget.A_SECTION + abuse_budget.A_FRAME
        counter = self._target.counter
        took = monotonic() - self._since
        counter.responses[(status_class << 5) + int(took * 2000).bit_length()] += 1
        counter.seconds += took

    def begun(self, data: bytes, status_class: int) -> None:
        """The head of a response, known from before, and a part of its body."""
        self._status_class = status_class
        self.continued(data)

    def continued(self, data: bytes | memoryview) -> None:
        """More of its body."""
        self.deadline = self.connection.listener_port.stalled_at
        self.write(data)

    def ended(self, data: bytes, status_class: int) -> None:
        """The last of its body."""
        self._status_class = 0
        self.peer = None
        self.write(data)
        self.finish()
        self._target.counter.count(status_class, monotonic() - self._since)

    def promote(self) -> Exchange:
        """Hand the request under way to an exchange, which can do everything."""
        exchange = self.exchange
        if exchange is None:
            exchange = self.exchange = begin(self, self._request, self.entry, self.connection.listener_port.backends)
            exchange.take_over(Handover(self._target, self._since, self.peer, self._status_class))
            self.peer = None
        return exchange

    def current(self) -> Exchange | None:
        """The exchange under way, also of a request that took the fast path."""
        return self.promote() if self.peer is not None else self.exchange

    def take_fast_path(self, entry: RouteMatch[Route], ask: KnownBlock) -> None:
        """Send a request without content straight to an idle connection, where its rule allows that."""
        listener_port = self.connection.listener_port
        self.entry = entry
        self._since = self.opened
        target = self._target = next(entry.route.turns)
        if not target.is_plain:
            self.promote().proceed()
            return
        edit = target.edit_request
        head = ask.heads.get(edit)
        if head is None:
            request, connection = ask.request, self.connection
            head = ask.heads[edit] = request_head(
                request, request.host, request.target, connection.address, listener_port.scheme, edit, upgrading=False
            )
        endpoint = next(target.endpoints.turns, None)
        if endpoint is None or not endpoint.idle or not self.takes_more:
            self.promote().send(endpoint)
            return
        peer = self.peer = endpoint.idle.pop()
        peer.user = self
        self.answers = target.answers
        peer.write(head)

    # --- Client, for the exchange ---

    @property
    def address(self) -> bytes:
        """The client's address."""
        return self.connection.address

    @property
    def scheme(self) -> bytes:
        """http or https."""
        return self.connection.listener_port.scheme

    @property
    def port(self) -> int:
        """The listener's port."""
        return self.connection.listener_port.port

    @property
    def limits(self) -> Limits:
        """What this client may ask."""
        return self.connection.listener_port.limits

    @property
    def closes_after_this(self) -> bool:
        """Never: a stream ends by itself, and a connection by GOAWAY."""
        return False

    def write(self, data: bytes | memoryview) -> None:
        """A head of ours as HTTP/1.1 bytes, then content; both may come together."""
        if self.gone:
            return
        if self.headed:
            self.send(data)
            return
        raw = bytes(data)
        end = raw.find(b"\r\n\r\n") + 4
        head = raw[:end]
        self.headed = head[9:10] != b"1"
        if not self.headed:
            self.send_head(field_sections.response_block(head))
            return
        if self._tunnel is not None and head[9:10] == b"2":
            # RFC 8441 §5: it would mean that the tunnel is open.
            self.connection.answer(self.id, answer(502, not_switched(int(head[9:12]))))
            self.local_closed = True
            if self.remote_closed:
                self.connection.forget(self)
            else:
                self.reset(http2_frames.NO_ERROR)
            return
        self.hold_head(field_sections.response_block(head))
        if end < len(raw):
            self.send(raw[end:])
        else:
            asyncio.get_running_loop().call_soon(self.let_go)

    def trailers(self, fields: list[Field]) -> None:
        """The response's trailers; it is complete."""
        self.finish(fields)

    def owes(self) -> int:
        """Nothing that is kept by reference: what waits has been copied."""
        return 0

    def touch(self) -> None:
        """The response moves."""
        self.deadline = self.connection.listener_port.stalled_at

    def pause_reading(self) -> None:
        """Take no more of the request for now."""
        if not self.reading_stopped:
            self.deadline = self.connection.listener_port.stalled_at
            self.stop_reading()

    def resume_reading(self) -> None:
        """Take more of the request; of one for another protocol, there is no more until that is spoken."""
        if self.reading_stopped and self._tunnel is None:
            self.go_on_reading()
            limits = self.limits
            if limits.body_rate:
                self._body_since = self.connection.listener_port.clock.now - self._body_bytes / limits.body_rate
            self._time_body()

    def finished(self, *, reuse: bool) -> None:
        """The exchange is over."""
        self.exchange = None
        if self.gone:
            return
        was_whole = self.remote_closed
        self.finish()
        if not was_whole:
            # RFC 9113 §8.1: the client may stop sending what nobody reads.
            if self.queue is None:
                self.reset(http2_frames.NO_ERROR)
            else:
                self.stop_reading()

    @property
    def is_answered(self) -> bool:
        """Whether nobody reads what the client still sends."""
        return self.exchange is None and self.peer is None and self._tunnel is None

    def abort(self) -> None:
        """Cut the stream: the client must see that the response is not whole."""
        self.reset(http2_frames.INTERNAL_ERROR)

    def tunnel(self, peer: UpstreamStream, head: bytes) -> None:
        """Both sides changed protocols (RFC 8441): DATA is the other side's bytes from here on."""
        self.exchange = None
        listener_port = self.connection.listener_port
        other, answered = peer.give_away()
        # RFC 8441 §5: 200 in place of 101; what proved the upgrade has no meaning here.
        lines = [line for line in head.split(b"\r\n")[1:-2] if not line.lower().startswith(b"sec-websocket-accept:")]
        self.headed = True
        self.send_head(field_sections.response_block(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""])))
        if answered:
            self.send(answered)
        assert self._tunnel is not None
        listener_port.join(self._tunnel, other)

    # --- Stream ---

    def take_content(self, data: bytes) -> None:
        exchange, limits = self.exchange, self.limits
        if self._tunnel is not None:
            if exchange is not None or self._tunnel.is_joined:
                self._tunnel.receive(data)
            return
        self._body_bytes += len(data)
        if exchange is None:
            return  # answered already
        if self._expected >= 0:
            self._expected -= len(data)
            if self._expected < 0:
                self._malformed(exchange)
                return
        if limits.body_bytes and self._body_bytes > limits.body_bytes:
            self.connection.listener_port.refused += 1
            exchange.refuse(413, f"the request's body is longer than {limits.body_bytes} bytes")
            return
        self._time_body()
        exchange.data(data)

    def complete(self, trailers: list[Pair] | None) -> None:
        fields = field_sections.trailers(trailers, self.limits) if trailers else []
        self.deadline = self.connection.listener_port.stalled_at
        if self._tunnel is not None:
            self._tunnel.receive_eof()
            return
        exchange = self.exchange
        if exchange is None:
            return
        if self._expected > 0:
            self._malformed(exchange)
            return
        exchange.end(fields)

    def _malformed(self, exchange: Exchange) -> None:
        """RFC 9113 §8.1.1: the content is not as long as content-length says."""
        self.connection.listener_port.refused += 1
        self.reset(http2_frames.PROTOCOL_ERROR)
        exchange.client_lost()
        self.connection.spend(abuse_budget.FALSE)

    def cut(self, code: int, reason: str) -> None:
        if self._tunnel is not None:
            self._tunnel.lost()
        exchange = self.current()
        if exchange is not None:
            exchange.client_lost()

    def congested(self) -> None:
        exchange = self.current()
        if exchange is not None and exchange.peer is not None:
            exchange.peer.pause_reading()
        elif self._tunnel is not None:
            self._tunnel.congested()

    def relieved(self) -> None:
        self.deadline = self.connection.listener_port.stalled_at
        if self.exchange is not None and self.exchange.peer is not None:
            self.exchange.peer.resume_reading()
        elif self._tunnel is not None:
            self._tunnel.relieved()

    # --- time ---

    def start(self, entry: RouteMatch[Route]) -> None:
        """Send a request by the slow path."""
        self.exchange = begin(self, self._request, entry, self.connection.listener_port.backends)
        if self._tunnel is not None:
            # The request ends with its head; what follows is the other protocol's, and waits until that is spoken.
            self._tunnel.pause_reading()
            if self.remote_closed:
                self._tunnel.receive_eof()
            self.exchange.request_done = True
        elif self.remote_closed:
            self.exchange.request_done = True
        else:
            # A call of gRPC is open for as long as its client likes.
            self._is_conversation = self._request.length == CHUNKED and is_grpc(self._request)
            self._time_body()
        self.exchange.start()

    def _time_body(self) -> None:
        """As on HTTP/1.1: what has come so far buys its sender time for more."""
        limits, listener_port = self.limits, self.connection.listener_port
        if not self._body_since:
            self._body_since = listener_port.clock.now
        if limits.body_rate and not self.reading_stopped and self._tunnel is None and not self._is_conversation:
            self.deadline = self._body_since + limits.body_seconds + self._body_bytes / limits.body_rate
            connection = self.connection
            connection.deadline = min(connection.deadline, self.deadline)
        else:
            self.deadline = listener_port.stalled_at

    def expired(self) -> None:
        """The deadline has passed."""
        exchange = self.current()
        if self._tunnel is not None and self._tunnel.is_joined:
            self.touch()
        elif exchange is None:
            self.reset(http2_frames.CANCEL)  # the client takes nothing of what waits for it
        elif exchange.request_done or self.reading_stopped or self._is_conversation:
            exchange.expired()
        else:
            self.connection.listener_port.refused += 1
            exchange.refuse(408, f"the request's body came more slowly than {self.limits.body_rate} bytes a second")
