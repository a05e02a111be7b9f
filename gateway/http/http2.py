"""HTTP/2 without I/O: frames, settings, flow control and the order of it all, for both roles (RFC 9113).

A `Http2Connection` is one connection. Bytes go in by `receive`, bytes come out by `write`; a role (client or server)
inherits it and is told of field sections, content, resets and the end. A `Stream` is one request and its answer, as
far as frames are concerned: what it may send, what it still has to send, what it may receive.

Whatever costs the peer nothing and us something is paid for (`gateway.http.abuse_budget`): control frames, empty frames,
streams that are reset before they are answered. Who cannot pay is told ENHANCE_YOUR_CALM and cut. Other work is bounded by
turns: of one connection's frames, only so many are read before all others have had their turn of the loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final

from gateway.base.clock import Clock
from gateway.http import abuse_budget, field_sections, http2_frames
from gateway.http.abuse_budget import Budget
from gateway.http.field_sections import Decoder, Pair
from gateway.http.http2_frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_OCTETS,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTING,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    ConnectionFault,
    frame,
    frame_head,
    number,
    unpack_head,
    unpadded,
)
from gateway.http.http2_stream import HIGH_WATER, STREAM_WINDOW, Stream

CONNECTION_WINDOW: Final = 1 << 22  # and on all of them together, which bounds what a connection can make us hold

TURN: Final = 64  # frames that one connection is read in one turn of the loop
ANSWERED: Final = 7  # that one which is answered at once counts for more
BLOCK: Final = 8  # bits of a field block's length that count for one more of them: reading it is work
WE_RESET: Final = 1000  # streams that we have reset, which the peer may not know yet


class Http2Connection:
    """One connection, as far as frames are concerned. See the module."""

    __slots__ = (
        "_at", "_block", "_block_flags", "_block_stream", "_buffer", "_continuations", "_credit", "_expects_preface",
        "_expects_settings", "_reset_up_to", "_untold", "_we_reset", "budget", "closing", "decoder", "highest",
        "is_full_up", "last_goaway", "noted", "owed", "peer_streams", "peer_window", "stopped", "streams",
        "takes_connect", "turn", "waiting", "window", "write",
    )  # fmt: skip

    is_server = False

    def __init__(self, most_head: int, clock: Clock) -> None:
        self.write: Callable[[bytes], None]
        self.decoder = Decoder(most_head)
        self.streams: dict[int, Stream] = {}
        self.highest = 0  # number of the last stream that the client opened
        self.closing = False  # no new streams
        self.last_goaway = LARGEST_WINDOW
        # Outward.
        self.window = DEFAULT_WINDOW
        self.waiting: dict[Stream, None] = {}  # streams with something that waits for a window
        self.owed = 0  # octets of content that wait, on all streams
        self.noted = 0  # as many as the role was told of
        self.is_full_up = False  # for the role to say: so much content waits that nothing more of it is fetched
        self.stopped = False  # the transport's buffer is full
        self.peer_window = DEFAULT_WINDOW
        self.peer_streams = 100 if not self.is_server else 0
        self.takes_connect = False
        # Inward.
        self._credit = CONNECTION_WINDOW
        self._untold = 0
        self._buffer = b""
        self._at = 0  # octets of it that have been read
        self._expects_preface = self.is_server
        self._expects_settings = True
        self._block: list[bytes] | None = None  # a field section that goes on
        self._block_stream = 0
        self._block_flags = 0
        self._continuations = 0
        self.budget = Budget(clock)
        self.turn = 0  # frames that may still be read in this turn
        self._we_reset: OrderedDict[int, None] = OrderedDict()
        self._reset_up_to = 0  # number of the last of them that is forgotten

    def greet(self, settings: dict[int, int]) -> None:
        """Say what we allow, first of all."""
        all_settings = {INITIAL_WINDOW_SIZE: STREAM_WINDOW, **settings}
        payload = b"".join(SETTING.pack(name, value) for name, value in all_settings.items())
        opening = frame(SETTINGS, 0, 0, payload) + frame(WINDOW_UPDATE, 0, 0, number(CONNECTION_WINDOW - DEFAULT_WINDOW))
        self.write(opening if self.is_server else PREFACE + opening)

    # --- inward ---

    def receive(self, data: bytes) -> bool:
        """Bytes have come; True where some of them must wait for the next turn. Raises Fault, after which nothing more must
        come."""
        at = 0
        if self._buffer:
            if data:
                data = self._buffer[self._at :] + data
            else:  # nothing is copied for each turn
                data, at = self._buffer, self._at
            self._buffer, self._at = b"", 0
        size = len(data)
        if self._expects_preface:
            start = data[: len(PREFACE)]
            if not PREFACE.startswith(start):
                raise ConnectionFault(PROTOCOL_ERROR, "the connection preface is not HTTP/2's")
            if len(start) < len(PREFACE):
                self._buffer = data
                return False
            self._expects_preface = False
            at = len(PREFACE)
        self.turn = TURN
        while size - at >= 9 and self.turn > 0:
            self.turn -= 1
            high, low, kind, flags, stream = unpack_head(data, at)
            length = high << 16 | low
            if length > MAX_FRAME_OCTETS:
                raise ConnectionFault(FRAME_SIZE_ERROR, "a frame is larger than SETTINGS_MAX_FRAME_SIZE")
            end = at + 9 + length
            if end > size:
                break
            payload = data[at + 9 : end]
            at = end
            stream &= LARGEST_WINDOW
            if self._block is not None and (kind != CONTINUATION or stream != self._block_stream):
                raise ConnectionFault(PROTOCOL_ERROR, "a field section is interrupted")
            if kind == HEADERS and not self._expects_settings:
                self._receive_headers(stream, flags, payload)
            elif kind == DATA and not self._expects_settings:
                self._receive_data(stream, flags, payload)
            else:
                self._receive_other(kind, stream, flags, payload)
        waits = self.turn <= 0 and size - at >= 9
        if at < size:
            self._buffer, self._at = (data, at) if waits else (data[at:], 0)
            if not waits and data[at + 3 : at + 4] == b"\x01":  # HEADERS
                self.head_begun()
        if self.waiting:
            self.pump()
        return waits

    def head_begun(self) -> None:
        """For the role: a part of a field section has come, and must be followed by the rest."""

    def _receive_other(self, kind: int, stream: int, flags: int, payload: bytes) -> None:
        if self._expects_settings and kind != SETTINGS:
            raise ConnectionFault(PROTOCOL_ERROR, "the first frame is not SETTINGS")
        match kind:
            case http2_frames.WINDOW_UPDATE:
                self._receive_window(stream, payload)
            case http2_frames.SETTINGS:
                self._receive_settings(stream, flags, payload)
            case http2_frames.PING:
                if stream or len(payload) != 8:
                    raise ConnectionFault(PROTOCOL_ERROR if stream else FRAME_SIZE_ERROR, "a malformed PING")
                self.spend(abuse_budget.PROBE)
                if flags & ACK:
                    self.pong()
                else:
                    self.turn -= ANSWERED
                    self.write(frame(PING, ACK, 0, payload))
            case http2_frames.RST_STREAM:
                self._receive_reset(stream, payload)
            case http2_frames.GOAWAY:
                if stream or len(payload) < 8:
                    raise ConnectionFault(PROTOCOL_ERROR, "a malformed GOAWAY")
                self.spend(abuse_budget.PROBE)
                self.going_away(int.from_bytes(payload[:4], "big") & LARGEST_WINDOW, int.from_bytes(payload[4:8], "big"))
            case http2_frames.PRIORITY:  # deprecated, and ignored (RFC 9113 §5.3.2)
                if not stream or len(payload) != 5:
                    raise ConnectionFault(PROTOCOL_ERROR if not stream else FRAME_SIZE_ERROR, "a malformed PRIORITY")
                self.spend(abuse_budget.PROBE)
            case http2_frames.CONTINUATION:
                self._receive_continuation(flags, payload)
            case http2_frames.PUSH_PROMISE:  # which we never allow
                raise ConnectionFault(PROTOCOL_ERROR, "PUSH_PROMISE was not allowed")
            case _:
                self.spend(abuse_budget.PROBE)  # unknown types are ignored (RFC 9113 §4.1)

    def spend(self, points: int) -> None:
        """The peer has done something that it must pay for (`gateway.http.abuse_budget`). Raises Fault where it cannot."""
        if not self.budget.spend(points):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames that do no work")

    def say_reset(self, stream: int, code: int) -> None:
        """RST_STREAM. What the peer has sent on the stream before it knows is not its fault (RFC 9113 §5.1)."""
        # A client that makes us do so lets others have their turn; a backend may have many clients.
        self.turn = 0 if self.is_server else self.turn - ANSWERED
        self.write(frame(RST_STREAM, 0, stream, number(code)))
        self._we_reset[stream] = None
        if len(self._we_reset) > WE_RESET:
            self._reset_up_to = max(self._reset_up_to, self._we_reset.popitem(last=False)[0])

    def may_still_hear(self, stream: int) -> bool:
        """Whether a frame on a stream that is over may have been sent before its sender knew that."""
        return stream in self._we_reset or stream <= self._reset_up_to

    # --- field sections ---

    def _receive_headers(self, stream: int, flags: int, payload: bytes) -> None:
        if not stream:
            raise ConnectionFault(PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & (PADDED | PRIORITIZED):
            payload = unpadded(payload, flags)
            if flags & PRIORITIZED:
                if len(payload) < 5:
                    raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS are too short")
                if int.from_bytes(payload[:4], "big") & LARGEST_WINDOW == stream:
                    raise ConnectionFault(PROTOCOL_ERROR, "a stream depends on itself")
                payload = payload[5:]
        if flags & END_HEADERS:
            self.turn -= len(payload) >> BLOCK
            self.section(stream, payload, bool(flags & END_STREAM))
        else:
            self._block, self._block_stream, self._block_flags = [payload], stream, flags
            self._continuations = 0
            self.head_begun()

    def _receive_continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block.append(payload)
        self._continuations += 1
        # What would be too long is not collected first (CVE-2024-27316 and its relatives).
        if self._continuations > 16 or (not payload and not flags & END_HEADERS):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a field section in too many pieces")
        if flags & END_HEADERS:
            block, self._block = b"".join(self._block), None
            self.turn -= len(block) >> BLOCK
            self.section(self._block_stream, block, bool(self._block_flags & END_STREAM))

    def decoded(self, block: bytes) -> list[Pair]:
        """What a block says. Raises Fault where the connection's compression state is lost."""
        try:
            return self.decoder.decode(block)
        except field_sections.TooLarge:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a field section is larger than SETTINGS_MAX_HEADER_LIST_SIZE") from None
        except field_sections.Undecodable:
            raise ConnectionFault(COMPRESSION_ERROR, "a field block is not HPACK") from None

    def section(self, stream: int, block: bytes, end: bool) -> None:
        """A whole field section, for the role."""
        raise NotImplementedError

    # --- content ---

    def _receive_data(self, number_: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._credit -= size
        if self._credit < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more content than the connection's window")
        if flags & PADDED:
            payload = unpadded(payload, flags)
        if not number_ or number_ > self.highest:
            raise ConnectionFault(PROTOCOL_ERROR, "DATA on a stream that is idle")
        stream = self.streams.get(number_)
        if stream is None or not stream.reading_stopped:
            self._tell(size)
        else:
            stream.kept += size
        if stream is None:
            self._is_over(number_)
            return
        if stream.remote_closed:
            raise ConnectionFault(STREAM_CLOSED, "DATA after END_STREAM")
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more content than the stream's window")
        if payload:
            stream.take_content(payload)
        elif not flags & END_STREAM:
            self.spend(abuse_budget.PROBE)
        stream.taken(size)
        if flags & END_STREAM and not stream.gone:
            self.end_remote(stream, None)

    def _tell(self, size: int) -> None:
        """So much has been taken: let the peer send as much again."""
        self._untold += size
        if self._untold >= CONNECTION_WINDOW // 8:
            self.write(frame(WINDOW_UPDATE, 0, 0, number(self._untold)))
            self._credit += self._untold
            self._untold = 0

    def give_back(self, stream: Stream) -> None:
        """What was kept for a stream is wanted now, or nobody will ever want it."""
        kept, stream.kept = stream.kept, 0
        if kept:
            self._tell(kept)

    def _is_over(self, stream: int) -> None:
        """Content on a stream that is over: in flight when we reset it, or a fault of the peer's (RFC 9113 §5.1)."""
        if not self.may_still_hear(stream):
            raise ConnectionFault(STREAM_CLOSED, "DATA on a stream that its sender had closed")
        self.spend(abuse_budget.PROBE)

    def end_remote(self, stream: Stream, trailers: list[Pair] | None) -> None:
        """The peer has said all on a stream."""
        stream.remote_closed = True
        stream.complete(trailers)
        if stream.local_closed and stream.queue is None:
            self.forget(stream)

    def end_local(self, stream: Stream) -> None:
        """We have said all on a stream."""
        if stream.remote_closed:
            self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """A stream is over."""
        if not stream.gone:
            stream.gone = True
            self.streams.pop(stream.id, None)
            self.waiting.pop(stream, None)
            stream.queue = None
            self.owed -= stream.owed
            stream.owed = 0
            if self.noted:
                self.note_unsent()
            self.give_back(stream)
            self.stream_gone(stream)

    def note_unsent(self) -> None:
        """For the role: what waits to be sent has changed."""
        self.noted = self.owed

    def stream_gone(self, stream: Stream) -> None:
        """For the role: there is room for another."""

    def _receive_reset(self, number_: int, payload: bytes) -> None:
        if not number_ or len(payload) != 4:
            raise ConnectionFault(PROTOCOL_ERROR if not number_ else FRAME_SIZE_ERROR, "a malformed RST_STREAM")
        if number_ > self.highest:
            raise ConnectionFault(PROTOCOL_ERROR, "RST_STREAM on a stream that is idle")
        stream = self.streams.get(number_)
        self.spend(abuse_budget.PROBE if stream is None else self.price_of_cancelling(stream))
        if stream is not None:
            self.forget(stream)
            stream.cut(int.from_bytes(payload, "big"), "the stream was reset")

    def price_of_cancelling(self, stream: Stream) -> int:
        """For the role: what a stream costs that the peer resets."""
        return abuse_budget.LATE_CANCEL

    # --- control ---

    def _receive_window(self, number_: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "a malformed WINDOW_UPDATE")
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if not number_:
            if not increment:
                raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            self.window += increment
            if self.window > LARGEST_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window overflows")
            self.spend(abuse_budget.PROBE)
            return
        stream = self.streams.get(number_)
        if stream is None:
            if number_ > self.highest:
                raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that is idle")
            self.spend(abuse_budget.PROBE)
            return
        stream.window += increment
        if not increment or stream.window > LARGEST_WINDOW:
            code = FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR
            self.spend(abuse_budget.FALSE)
            stream.reset(code)
            stream.cut(code, "a WINDOW_UPDATE that cannot be")
            return
        self.spend(abuse_budget.PROBE)

    def _receive_settings(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFault(FRAME_SIZE_ERROR, "an acknowledgement with settings")
            self.spend(abuse_budget.PROBE)
            return
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR, "malformed SETTINGS")
        self.spend(abuse_budget.SETTING + abuse_budget.SETTING * (len(payload) // 192))
        self.turn -= ANSWERED + (len(payload) >> 5)
        self._expects_settings = False
        for name, value in SETTING.iter_unpack(payload):
            if name == INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
                # RFC 9113 §6.9.2: streams that are open follow, even below 0.
                for open_stream in self.streams.values():
                    open_stream.window += value - self.peer_window
                self.peer_window = value
            elif name == MAX_FRAME_SIZE and not MAX_FRAME_OCTETS <= value < 1 << 24:
                raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range")
            elif name == ENABLE_PUSH and value > 1:
                raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is neither 0 nor 1")
            elif name == MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
            elif name == ENABLE_CONNECT_PROTOCOL:
                self.takes_connect = value == 1
        self.write(frame(SETTINGS, ACK, 0))
        self.settled()

    def settled(self) -> None:
        """For the role: the peer has said what it allows."""

    def pong(self) -> None:
        """For the role: a PING of ours came back."""

    def going_away(self, last: int, code: int) -> None:
        """For the role: the peer takes no stream above `last`."""

    # --- outward ---

    def send_block(self, stream: int, block: bytes, flags: int) -> None:
        """A field section, in as many frames as it needs."""
        self.budget.spent -= abuse_budget.A_SECTION
        size = len(block)
        if size <= MAX_FRAME_OCTETS:
            self.write(frame_head(0, size, HEADERS, flags | END_HEADERS, stream) + block)
            return
        pieces = [block[start : start + MAX_FRAME_OCTETS] for start in range(0, size, MAX_FRAME_OCTETS)]
        frames = [frame(HEADERS, flags, stream, pieces[0])]
        frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
        frames.append(frame(CONTINUATION, END_HEADERS, stream, pieces[-1]))
        self.write(b"".join(frames))

    def pump(self) -> None:
        """Send what waits and may go, a frame of each stream in turn."""
        waiting = self.waiting
        touch = True
        while touch and waiting and self.window > 0 and not self.stopped:
            touch = False
            for stream in list(waiting):
                if stream.gone:
                    continue
                if stream.pump():
                    touch = True
                elif stream.queue is None:
                    waiting.pop(stream, None)
                if self.stopped:
                    break
        if self.noted and (not self.owed or self.noted - self.owed > HIGH_WATER):
            self.note_unsent()

    def send_goaway(self, last: int, code: int, reason: str = "") -> None:
        """GOAWAY."""
        self.write(frame(GOAWAY, 0, 0, number(last) + number(code) + reason.encode()))

    def ping(self) -> None:
        """PING; `pong` is called when it comes back, which is after all that was on its way."""
        self.write(frame(PING, 0, 0, b"\0" * 8))

    def lose_streams(self, reason: str, most: int | None = None) -> None:
        """The connection is gone, and its streams with it: all of them, or so many for now."""
        for stream in list(islice(self.streams.values(), most)):
            self.forget(stream)
            stream.cut(CANCEL, reason)
