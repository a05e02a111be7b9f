"""Connections to backends that speak HTTP/2, by prior knowledge or over TLS (RFC 9113 §3).

An `Http2Pool` is to these what an `Http1Pool` is to HTTP/1.1: an address. Its connections carry as many requests at a time
as the backend allows; an `Http2UpstreamStream` is one of them, and what an exchange knows as its peer. It takes HTTP/1.1
bytes and says them in frames, and answers with what was parsed from frames, so that an exchange need not know the
difference.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from gateway.base.clock import Clock
from gateway.http import field_sections, http2_frames
from gateway.http.chunked import Chunks, chunk, last_chunk
from gateway.http.field_sections import Malformed, Pair
from gateway.http.http1 import BODILESS, CHUNKED, NO_LENGTH, Interim, ProtocolError, length_behind
from gateway.http.http2_frames import ConnectionFault
from gateway.http.http2_stream import Stream
from gateway.interfaces import Endpoint, ResponseSink, UpstreamHandler
from gateway.tls.contexts import Security, unread
from gateway.transport.dial import CONNECT, DialError, dial, explained
from gateway.transport.http2_connection import Http2Protocol
from gateway.transport.http2_stream import StreamTransport
from gateway.transport.turns import Turns
from gateway.upstream.http1 import MAX_HEAD

IDLE: Final = 60.0  # seconds that a connection without requests is kept
MAX_OWED_BYTES: Final = 1 << 20  # octets that a backend which does not read may be owed, besides requests' content
MAX_STREAM_NUMBER: Final = 2**31 - 1000  # stream numbers end here: another connection goes on


class Http2Pool:
    """Connections to one address."""

    __slots__ = ("_connecting", "_links", "_retired", "_waiting", "clock", "idle", "name", "security", "turns", "where")

    def __init__(self, address: str, port: int, clock: Clock, turns: Turns, security: Security | None) -> None:
        self.where = (address, port)
        self.clock = clock
        self.turns = turns
        self.security = security
        self.name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.idle: tuple[()] = ()  # nothing that the fast path could take
        self._links: list[Http2UpstreamConnection] = []
        self._waiting: deque[UpstreamHandler] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._retired = False

    def __repr__(self) -> str:
        return f"<Http2Pool {self.name} connections={len(self._links)}>"

    @property
    def load(self) -> int:
        """Requests under way."""
        return sum(len(link.streams) for link in self._links) + len(self._waiting)

    def take(self, user: UpstreamHandler) -> Http2UpstreamStream | None:
        """Room for a request on a connection that stands."""
        for link in self._links:
            if link.has_room:
                return link.open(user)
        return None

    def connect(self, user: UpstreamHandler) -> None:
        """Make a connection, or share the one that is being made."""
        self._waiting.append(user)
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT):
                transport, link = await dial(lambda: Http2UpstreamConnection(self), self.where, self.security)
                await link.ready.wait()
            if link.fault:
                transport.abort()
                raise DialError("tls" if self.security else "unreachable", link.fault)
        except Exception as error:
            self._failed(explained(error))
            return
        self._connecting = None
        self._links.append(link)
        if self._retired:
            link.leave()
        self.serve()

    def serve(self) -> None:
        """Give room to who waits for it."""
        while self._waiting:
            user = self._waiting[0]
            if user.abandoned:
                self._waiting.popleft()
                continue
            call = self.take(user)
            if call is None:
                break
            self._waiting.popleft()
            user.connected(call)
        if self._waiting and self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def _failed(self, failure: DialError) -> None:
        self._connecting = None
        waiting, self._waiting = self._waiting, deque()
        for user in waiting:
            if not user.abandoned:
                user.connect_failed(failure)

    def lost(self, link: Http2UpstreamConnection) -> None:
        """A connection is gone, or takes no more requests."""
        if link in self._links:
            self._links.remove(link)

    def sweep(self) -> None:
        """Close what has idled too long."""
        limit = self.clock.now - IDLE
        for link in list(self._links):
            if not link.streams and link.idle_since < limit:
                link.leave()

    def retire(self) -> None:
        """The address is gone: requests in flight finish, and then the connections go."""
        self._retired = True
        for link in list(self._links):
            link.leave()


class Http2UpstreamStream(Stream):
    """One request to a backend, and its response."""

    __slots__ = (
        "_accept", "_chunks", "_expected", "_headed", "_interim", "_is_bodiless", "_left", "_response_length", "_tunnel",
        "endpoint", "reused", "user",
    )  # fmt: skip
    connection: Http2UpstreamConnection

    def __init__(self, link: Http2UpstreamConnection, number: int, user: UpstreamHandler, *, reused: bool) -> None:
        super().__init__(link, number)
        self.user: ResponseSink | None = user
        self.endpoint: Endpoint = link.trunk
        self.reused = reused
        self._headed = False
        self._accept: bytes | None = None  # of a WebSocket that was asked for: what proves to the client that we mean it
        self._tunnel: StreamTransport | None = None
        self._left = 0  # octets of the request's content still to come
        self._chunks: Chunks | None = None
        self._interim: Interim | None = None  # once there was one
        self._response_length = NO_LENGTH
        self._expected = -1  # octets of the response's content still to come; -1 where nobody knows
        self._is_bodiless = False  # there can be none

    # --- Peer ---

    def write(self, data: bytes) -> None:
        """A request as HTTP/1.1 frames it."""
        if not self._headed:
            end = data.find(b"\r\n\r\n") + 4
            length = self._send_request(data[:end])
            if length == CHUNKED:
                self._chunks = Chunks()
            elif length > 0:
                self._left = length
            else:
                self.local_closed = True
            if end == len(data):
                return
            data = data[end:]
        if self._chunks is not None:
            done = self._chunks.feed(data) >= 0
            content = self._chunks.taken()
            if content:
                self.send(content)
            if done:
                Stream.finish(self, self._chunks.trailers)
        elif self._left:
            self.send(data)
            self._left -= len(data)
            if self._left <= 0:
                Stream.finish(self)

    def open(self, head: bytes) -> None:
        """A head; its content follows by `content`."""
        self._send_request(head)

    def _send_request(self, head: bytes) -> int:
        self._headed = True
        length = length_behind(head)
        link = self.connection
        if b"\r\nConnection: Upgrade\r\n" in head:
            self._upgrade(head)
            return CHUNKED  # what follows is the other protocol's
        flags = 0 if length == CHUNKED or length > 0 else http2_frames.END_STREAM
        link.send_block(self.id, field_sections.request_block(head, link.scheme), flags)
        return length

    def _upgrade(self, head: bytes) -> None:
        """Extended CONNECT (RFC 8441 §4), where the backend takes it and the protocol is one that is asked for like that."""
        link = self.connection
        block = field_sections.connect_block(head, link.scheme) if link.takes_connect else None
        if block is None:
            asyncio.get_running_loop().call_soon(self._cannot_upgrade)
            return
        self._accept = field_sections.websocket_accept(head)
        link.send_block(self.id, block, 0)

    def _cannot_upgrade(self) -> None:
        user, self.user = self.user, None
        self.connection.forget(self)
        if user is not None:
            user.promote().response_invalid(ProtocolError(501, "the backend does not take WebSockets over HTTP/2"))

    def content(self, data: bytes) -> None:
        """Content of the request, without framing."""
        self.send(data)

    def pause_reading(self) -> None:
        """The client takes the response more slowly than the backend sends it."""
        self.stop_reading()

    def resume_reading(self) -> None:
        """The client has caught up."""
        self.go_on_reading()

    def buffered(self) -> int:
        """Bytes that wait to be sent."""
        return self.owed

    def abort(self) -> None:
        """Give the request up; nobody is told."""
        self.user = None
        self.reset(http2_frames.CANCEL)

    def give_away(self) -> tuple[asyncio.Transport, bytes]:
        """The stream as a transport; its bytes are somebody else's from now on."""
        self.user = None
        self._tunnel = StreamTransport(self)
        return self._tunnel, b""

    # --- the response ---

    def _full_user(self) -> UpstreamHandler | None:
        return self.user.promote() if self.user is not None else None

    def receive_section(self, pairs: list[Pair], end: bool) -> None:
        """A head, or trailers."""
        user = self._full_user()
        if user is None:
            if self._tunnel is not None and end:
                self.connection.end_remote(self, None)
            return
        if self._response_length != NO_LENGTH:
            if not end:
                raise Malformed("a second field section that does not end the stream")
            self.connection.end_remote(self, pairs)
            return
        response = field_sections.response(pairs, ended=end, head_only=user.head_only)
        if self._accept is not None and 200 <= response.status < 300 and not end:
            user.response(field_sections.switched(response, self._accept), b"")
            return
        if response.status == 101 or (response.status < 200 and end):
            raise Malformed("an interim response that cannot be")
        if response.status < 200:
            self._interim = self._interim or Interim()
            self._interim.count(sum(len(field.line) for field in response.fields))
        user.response(response, b"")
        if response.status < 200 or self.user is not user:
            return
        self._response_length = response.length if response.length != NO_LENGTH else 0
        if user.head_only or response.status in BODILESS:
            self._is_bodiless = True
            self._response_length = 0
        elif response.length >= 0:
            self._expected = response.length
        if end:
            self.connection.end_remote(self, None)
        else:
            user.flush()

    def take_content(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.receive(data)
            return
        user = self._full_user()
        if user is None:
            return
        if self._is_bodiless:
            if data:
                self._end_before(user)
            return
        if self._expected >= 0:
            self._expected -= len(data)
            if self._expected < 0:
                raise Malformed("more content than content-length says")
        framed = self._response_length == CHUNKED and not user.wants_payload
        user.response_data(chunk(data) if framed else data)

    def _end_before(self, user: UpstreamHandler) -> None:
        """Content where there can be none (RFC 9110 §6.4.1) is no part of the response, which its head has ended."""
        self.user = None
        self.reset(http2_frames.PROTOCOL_ERROR)
        user.response_end()

    def complete(self, trailers: list[Pair] | None) -> None:
        if self._tunnel is not None:
            self._tunnel.receive_eof()
            return
        user, self.user = self._full_user(), None
        if user is None:
            return
        if self._expected > 0:
            self.reset(http2_frames.PROTOCOL_ERROR)
            user.response_invalid(ProtocolError(502, "the backend's response is shorter than it says"))
            return
        fields = field_sections.trailers(trailers) if trailers else []
        if self._response_length == CHUNKED and not user.wants_payload:
            user.response_data(last_chunk(fields))
        elif fields and user.wants_payload:
            user.response_trailers(fields)
        if not self.local_closed or self.queue is not None:
            self.reset(http2_frames.NO_ERROR)  # answered before it was asked in full
        user.response_end()

    def cut(self, code: int, reason: str) -> None:
        if self._tunnel is not None:
            self._tunnel.lost()
        user, self.user = self.user, None
        if user is not None:
            user.promote().response_lost(reason, clean=False, untouched=code == http2_frames.REFUSED_STREAM)

    def congested(self) -> None:
        if self._tunnel is not None:
            self._tunnel.congested()
        elif self.user is not None:
            self.user.promote().pause_sending()

    def relieved(self) -> None:
        if self._tunnel is not None:
            self._tunnel.relieved()
        elif self.user is not None:
            self.user.promote().resume_sending()


class Http2UpstreamConnection(Http2Protocol):
    """One connection to a backend."""

    __slots__ = ("fault", "idle_since", "ready", "scheme", "trunk")

    def __init__(self, trunk: Http2Pool) -> None:
        super().__init__(MAX_HEAD, trunk.clock, trunk.turns)
        self.trunk = trunk
        self.scheme = b"https" if trunk.security else b"http"
        self.idle_since = trunk.clock.now
        self.fault = ""  # why it must not be used
        self.ready = asyncio.Event()  # the backend has said what it allows; or there is a fault

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = self.trunk.security
        self.use(transport, secure=tls is not None)
        if tls is not None:
            self.fault = tls.fault(transport)
            if not self.fault and transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                self.fault = "the backend does not speak HTTP/2 (ALPN)"
        if self.fault:
            self.ready.set()
        else:
            self.greet({http2_frames.ENABLE_PUSH: 0, http2_frames.MAX_HEADER_LIST_SIZE: MAX_HEAD})

    def held(self, transport: asyncio.Transport) -> None:
        # If both sides waited for the other to read, they would wait for ever: a client goes on reading.
        self._is_held = False
        if transport.get_write_buffer_size() > MAX_OWED_BYTES:
            self.failed(ConnectionFault(http2_frames.ENHANCE_YOUR_CALM, "it asks, and does not read the answers"))

    @property
    def has_room(self) -> bool:
        """Whether another request may begin."""
        return not self.closing and len(self.streams) < self.peer_streams and not self._transport.is_closing()

    def open(self, user: UpstreamHandler) -> Http2UpstreamStream:
        """A call on a stream of its own."""
        number = self.highest + 2 if self.highest else 1
        self.highest = number
        if number >= MAX_STREAM_NUMBER:
            self.closing = True
            self.trunk.lost(self)
        call = self.streams[number] = Http2UpstreamStream(self, number, user, reused=number > 1)
        return call

    def leave(self) -> None:
        """Take no more requests; close when those under way are done."""
        self.closing = True
        self.trunk.lost(self)
        if not self.streams:
            self.close()

    # --- asyncio.Protocol ---

    def failed(self, fault: ConnectionFault) -> None:
        self.fault = f"the backend's HTTP/2: {fault.reason}"
        self.ready.set()
        self.closing = True
        self.send_goaway(0, fault.code, fault.reason)
        self.trunk.lost(self)
        self.close()
        self.lose_streams(f"the backend's HTTP/2: {fault.reason}")

    def eof_received(self) -> bool:
        if not self._transport.is_closing():
            self._hear_out()
        return False

    def _hear_out(self) -> None:
        """An end comes while reading is paused: what was put off had come before it."""
        while self._goes_on:
            self._goes_on = False
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.mute()
        if self.streams:
            if data := unread(self._transport):
                self._buffer += data
                self._goes_on = True
            self._hear_out()
        self.fault = self.fault or str(exc or "the backend closed the connection")
        self.ready.set()
        self.trunk.lost(self)
        self.lose_streams(str(exc or "closed"))

    # --- Conversation ---

    def section(self, stream: int, block: bytes, end: bool) -> None:
        pairs = self.decoded(block)
        call = self.streams.get(stream)
        if call is None:
            if stream > self.highest or not stream & 1:
                raise ConnectionFault(http2_frames.PROTOCOL_ERROR, "HEADERS on a stream that is idle")
            return
        assert isinstance(call, Http2UpstreamStream)
        try:
            call.receive_section(pairs, end)
        except (Malformed, ProtocolError) as error:
            self._malformed(call, error.reason)

    def _malformed(self, call: Http2UpstreamStream, reason: str) -> None:
        user, call.user = call.user, None
        call.reset(http2_frames.PROTOCOL_ERROR)
        if user is not None:
            user.promote().response_invalid(ProtocolError(502, f"the backend's response: {reason}"))

    def settled(self) -> None:
        if not self.ready.is_set():
            self.ready.set()
        else:
            self.trunk.serve()

    def going_away(self, last: int, code: int) -> None:
        self.closing = True
        self.trunk.lost(self)
        for number in [n for n in self.streams if n > last]:
            stream = self.streams[number]
            self.forget(stream)
            stream.cut(http2_frames.REFUSED_STREAM, "the backend is going away")
        if not self.streams:
            self.close()

    def stream_gone(self, stream: Stream) -> None:
        self.idle_since = self.trunk.clock.now
        if self.closing:
            if not self.streams and not self._transport.is_closing():
                self.close()
        else:
            self.trunk.serve()
