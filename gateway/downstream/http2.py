"""Client connections: HTTP/2 on the server's side (RFC 9113). Each stream is a client with one exchange.

Field blocks that do not change the connection's compression table mean the same every time they come, so what they
mean (the request, the rule that answers it, the head that goes to the backend) is remembered by their bytes.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from gateway.downstream.http2_stream import DownstreamStream, KnownBlock
from gateway.downstream.port import ListenerPort
from gateway.http import abuse_budget, field_sections, http2_frames
from gateway.http.field_sections import Malformed, Pair
from gateway.http.forwarding import failure
from gateway.http.http1 import NO_LENGTH, ProtocolError, Request
from gateway.http.http2_frames import END_STREAM, ConnectionFault
from gateway.http.http2_stream import Stream
from gateway.http.local_replies import MISDIRECTED, NO_RULE, answer
from gateway.scripting.listener_filters import arrive, connection_of, left
from gateway.transport.http2_connection import Http2Protocol
from gateway.transport.turns import SECONDS

REMEMBERED: Final = 32  # field blocks of a connection: what it costs us must stay small, whoever connects
MAX_KNOWN_BLOCK_BYTES: Final = 1024  # octets of a field block that is not worth it
MAX_OWED_BYTES: Final = 1 << 22  # of content that waits on one connection; above it none is fetched and no stream opened
ENDED_A_TURN: Final = 4  # streams of a connection that is lost
GOODBYE: Final = 2.0  # seconds for a client that is cut to read why


class DownstreamHttp2(Http2Protocol):
    """One client connection."""

    __slots__ = (
        "__weakref__",
        "_asks",
        "_draining",
        "_head_until",
        "_server_name",
        "_version",
        "address",
        "deadline",
        "listener",
        "listener_port",
    )  # fmt: skip
    is_server = True

    def __init__(self, listener_port: ListenerPort, server_name: bytes = b"") -> None:
        super().__init__(listener_port.limits.head_bytes, listener_port.clock, listener_port.turns)
        self.listener_port = listener_port
        self._server_name = server_name
        self.listener = listener_port.table.owner(server_name)  # to which the connection belongs
        self.address = b""
        self.deadline = listener_port.idle_until
        self._asks: dict[bytes, KnownBlock] = {}
        self._version = 0
        self._draining = False
        self._head_until = 0.0  # when a field section, or the client's introduction, must be whole; 0 between them

    @property
    def port(self) -> int:
        """The listener's port."""
        return self.listener_port.port

    @property
    def scheme(self) -> bytes:
        """`http` or `https`, as requests on this connection have it."""
        return self.listener_port.scheme

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.use(transport, secure=self.listener_port.scheme == b"https")
        peer = transport.get_extra_info("peername")
        self.address = peer[0].removeprefix("::ffff:").encode() if peer else b"unknown"
        if self.listener_port.admit(self):
            self._begin_conversation()
        else:
            self.mute()
            self._transport.abort()

    def _begin_conversation(self) -> None:
        limits = self.listener_port.limits
        self.greet({
            http2_frames.MAX_CONCURRENT_STREAMS: limits.streams,
            http2_frames.MAX_HEADER_LIST_SIZE: limits.head_bytes,
            http2_frames.ENABLE_CONNECT_PROTOCOL: 1,
        })  # fmt: skip
        self.head_begun()
        if self.listener_port.draining:
            self.parse_always()

    def head_begun(self) -> None:
        if not self._head_until:
            self._head_until = self.listener_port.clock.now + self.listener_port.limits.head_seconds
            self.deadline = min(self.deadline, self._head_until)

    def _head_done(self) -> None:
        self._head_until = 0.0
        if not self.streams:
            self.deadline = self.listener_port.idle_until

    def settled(self) -> None:
        if not self.streams:
            self._head_done()

    def held(self, transport: asyncio.Transport) -> None:
        transport.pause_reading()

    def failed(self, fault: ConnectionFault) -> None:
        self.listener_port.refused += 1
        self.send_goaway(self.highest, fault.code, fault.reason)
        self.close()
        self._end_streams()
        self.deadline = self.listener_port.clock.now + GOODBYE

    def connection_lost(self, exc: Exception | None) -> None:
        self.listener_port.leave(self)
        left(self._transport)
        self.mute()
        self._end_streams()
        self.listener_port.unsent.note(self, 0, 0.0)
        self.listener_port.ended()

    def _end_streams(self) -> None:
        """They go with the connection: a few a turn, as each may end a backend's connection."""
        try:
            self.lose_streams("the connection is lost", ENDED_A_TURN)
        finally:
            if self.streams:
                self._turns.wait(self._end_streams, self._transport)

    # --- Conversation ---

    def section(self, stream: int, block: bytes, end: bool) -> None:
        if self._head_until:
            self._head_done()
        open_ = self.streams.get(stream)
        if open_ is not None:
            self._receive_trailers(open_, block, end)
            return
        if stream <= self.highest and self.may_still_hear(stream):  # trailers that were in flight when we reset it
            self.spend(abuse_budget.PROBE)
            self.decoded(block)
            return
        if not stream & 1 or stream <= self.highest:
            raise ConnectionFault(
                http2_frames.STREAM_CLOSED if stream <= self.highest else http2_frames.PROTOCOL_ERROR,
                "HEADERS on a closed stream",
            )
        self.highest = stream
        if not self.streams:
            self.deadline = self.listener_port.stalled_at
        ask = self._asks.get(block) if end and not self.listener_port.arrivals else None
        if ask is None or self.decoder.version != self._version:
            pairs = self.decoded(block)
            if self._is_full():
                self._refuse_stream(stream)
                return
            ask = self._understand(stream, block, pairs, end)
            if ask is None:
                return
        elif self._is_full():
            self._refuse_stream(stream)
            return
        new_stream = DownstreamStream(self, stream, ask.request)
        if new_stream.opened - self._turn_began > SECONDS:
            self.turn = 0  # this one, and then others have their turn
        self._begin(new_stream, ask, end)

    def _is_full(self) -> bool:
        return self.closing or len(self.streams) >= self.listener_port.limits.streams or self.owed > MAX_OWED_BYTES

    def _refuse_stream(self, stream: int) -> None:
        """One too many: whoever asked may ask again, as nothing has been done for it (RFC 9113 §8.7)."""
        self.spend(abuse_budget.REFUSAL)
        self.say_reset(stream, http2_frames.REFUSED_STREAM)

    def price_of_cancelling(self, stream: Stream) -> int:
        assert isinstance(stream, DownstreamStream)
        is_early = not stream.headed and monotonic() - stream.opened < abuse_budget.SOON
        return abuse_budget.EARLY_CANCEL if is_early else abuse_budget.LATE_CANCEL

    def _understand(self, number: int, block: bytes, pairs: list[Pair], end: bool) -> KnownBlock | None:
        """What a block means; None where that has been answered already."""
        try:
            request = field_sections.request(pairs, self.listener_port.limits, ended=end)
        except ProtocolError as error:
            self._refuse(number, error.status, error.reason, end)
            return None
        except Malformed as error:
            self._refuse(number, error.status, error.reason, end, http2_frames.PROTOCOL_ERROR)
            return None
        if self.listener_port.arrivals:
            try:
                return KnownBlock(arrive(self.listener_port.arrivals, connection_of(self), request))
            except ProtocolError as error:
                self._refuse(number, error.status, error.reason, end)
                return None
        ask = KnownBlock(request)
        version = self.decoder.version
        if version != self._version:
            self._version = version
            self._asks.clear()
        elif end and len(block) <= MAX_KNOWN_BLOCK_BYTES and request.method != b"HEAD" and not request.upgrade:
            if len(self._asks) >= REMEMBERED:
                self._asks.clear()
            self._asks[block] = ask
        return ask

    def _refuse(self, number: int, status: int, reason: str, end: bool, code: int = http2_frames.NO_ERROR) -> None:
        """Answer what never becomes an exchange, and take no more of it (RFC 9113 §8.1.1)."""
        self.listener_port.refused += 1
        self.spend(abuse_budget.FALSE if code else abuse_budget.REFUSAL)
        self.answer(number, answer(status, reason))
        if not end or code:
            self.say_reset(number, code)

    def answer(self, number: int, data: bytes, *, head_only: bool = False) -> None:
        """A whole response of ours, without its text where the client takes no content now."""
        at = data.find(b"\r\n\r\n") + 4
        head, body = data[:at], b"" if head_only else data[at:]
        if len(body) > min(self.window, self.peer_window):
            head, body = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"Content-")), b""
        self.send_block(number, field_sections.response_block(head), 0 if body else END_STREAM)
        if body:
            self.window -= len(body)
            self.write(http2_frames.frame(http2_frames.DATA, END_STREAM, number, body))

    def _begin(self, stream: DownstreamStream, ask: KnownBlock, end: bool) -> None:
        listener_port, request = self.listener_port, ask.request
        table = listener_port.table
        if ask.table is not table:
            ask.table = table
            virtual_host = table.virtual_host(request.host)
            # RFC 9110 §15.5.20: this connection's certificate was chosen for another listener. Where none has the Host: 404.
            owner = virtual_host.listener
            if owner and self.listener != owner and not self._same_listener(owner):
                ask.table = None
                self._no_rule(stream.id, 421, MISDIRECTED, request, end)
                return
            ask.entry = virtual_host.find(request)
        entry = ask.entry
        if entry is None:
            listener_port.unmatched += 1
            self._no_rule(stream.id, 404, NO_RULE, request, end)
            return
        if listener_port.limits.body_bytes and request.length > listener_port.limits.body_bytes:
            self._no_rule(
                stream.id, 413, f"the request's body is longer than {listener_port.limits.body_bytes} bytes", request, end
            )
            return
        self.streams[stream.id] = stream
        if not end:
            stream.start(entry)
            return
        stream.remote_closed = True
        if request.length in (NO_LENGTH, 0) and request.method != b"HEAD" and not request.upgrade:
            stream.take_fast_path(entry, ask)
        else:
            stream.start(entry)

    def _same_listener(self, listener: str) -> bool:
        """Listeners may have changed since the handshake."""
        self.listener = self.listener_port.table.owner(self._server_name)
        return self.listener == listener

    def _no_rule(self, number: int, status: int, text: str, request: Request, end: bool) -> None:
        self.answer(number, failure(request, status, text), head_only=request.method == b"HEAD")
        if not end:
            self.spend(abuse_budget.PROBE)
            self.say_reset(number, http2_frames.NO_ERROR)

    def _receive_trailers(self, stream: Stream, block: bytes, end: bool) -> None:
        pairs = self.decoded(block)
        if stream.remote_closed:
            raise ConnectionFault(http2_frames.STREAM_CLOSED, "HEADERS after END_STREAM")
        try:
            if not end:
                raise Malformed("a second field section that does not end the stream")
            field_sections.trailers(pairs, self.listener_port.limits)
        except Malformed as error:
            self.spend(abuse_budget.FALSE)
            stream.reset(http2_frames.PROTOCOL_ERROR)
            stream.cut(http2_frames.PROTOCOL_ERROR, error.reason)
            return
        self.end_remote(stream, pairs)

    def end_local(self, stream: Stream) -> None:
        super().end_local(stream)
        assert isinstance(stream, DownstreamStream)
        if not stream.gone and stream.is_answered:
            stream.reset(http2_frames.NO_ERROR)  # RFC 9113 §8.1: the client may stop sending what nobody reads

    def stream_gone(self, stream: Stream) -> None:
        if not self.streams:
            self.deadline = self._head_until or self.listener_port.idle_until
            if self.closing and not self._transport.is_closing():
                self.close()
            self.listener_port.ended()

    def pong(self) -> None:
        # What was on its way when we said goodbye has come: from here on, really nothing more.
        if self._draining and not self.closing:
            self.closing = True
            self.send_goaway(self.highest, http2_frames.NO_ERROR)
            if not self.streams:
                self.close()

    # --- Connection, for the listener port ---

    @property
    def is_idle(self) -> bool:
        """No request is under way."""
        return not self.streams

    def expired(self) -> None:
        """Called when the deadline has passed."""
        now = self.listener_port.clock.now
        if self._transport.is_closing():
            self._transport.abort()  # what waits to be sent is not taken
            return
        if self._head_until and self._head_until < now:
            seconds = self.listener_port.limits.head_seconds
            self.failed(
                ConnectionFault(
                    http2_frames.ENHANCE_YOUR_CALM, f"a field section, or the first SETTINGS, took longer than {seconds:g} s"
                )
            )
            return
        if not self.streams:
            self.send_goaway(self.highest, http2_frames.NO_ERROR)
            self.close()
            return
        for stream in list(self.streams.values()):
            assert isinstance(stream, DownstreamStream)
            if stream.deadline < now:
                stream.expired()
        until = [s.deadline for s in self.streams.values() if isinstance(s, DownstreamStream)]
        self.deadline = min([*until, *([self._head_until] if self._head_until else ())], default=now)

    # --- Debtor ---

    def note_unsent(self) -> None:
        self.noted = self.owed
        if self.owed > MAX_OWED_BYTES and not self.is_full_up:
            self.is_full_up = True
            for stream in list(self.streams.values()):
                stream.congested()
        elif self.is_full_up and self.owed < MAX_OWED_BYTES // 2:
            self.is_full_up = False
            if not self.stopped:
                for stream in list(self.streams.values()):
                    if stream.takes_more:
                        stream.relieved()
        self.listener_port.unsent.note(self, self.unsent(), self.listener_port.clock.now)

    def unsent(self) -> int:
        """Octets that wait, for windows or in the transport's buffer."""
        if self._transport.is_closing():
            return 0
        return self.owed + (self._transport.get_write_buffer_size() if self.stopped else 0)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.note_unsent()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.note_unsent()

    def shed(self) -> None:
        """Give up the stream that holds most of what is not taken; the connection, where it is the transport."""
        self.listener_port.refused += 1
        stream = max(self.streams.values(), key=lambda candidate: candidate.owed, default=None)
        if stream is None or not stream.owed:
            self._transport.abort()
            return
        assert isinstance(stream, DownstreamStream)
        stream.reset(http2_frames.ENHANCE_YOUR_CALM)
        stream.cut(http2_frames.ENHANCE_YOUR_CALM, "the client does not take what it asked for")

    def start_over(self) -> None:
        """Keep no more of the requests so far than a new connection would."""
        self._asks.clear()

    def parse_always(self) -> None:
        """The end is near: open no new streams (RFC 9113 §6.8 wants it said twice, a round trip apart)."""
        if not self._draining:
            self._draining = True
            self.send_goaway(http2_frames.LARGEST_WINDOW, http2_frames.NO_ERROR)
            self.ping()

    def close_if_idle(self) -> None:
        """At the end of draining."""
        if not self.streams:
            self.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()
