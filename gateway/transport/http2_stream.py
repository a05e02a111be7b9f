"""An HTTP/2 stream as a transport: what became of a request for a WebSocket is joined to the other side like a connection."""

from __future__ import annotations

import asyncio

from gateway.http import http2_frames
from gateway.http.http2_stream import Stream


class StreamTransport(asyncio.Transport):
    """A stream as a transport, for a tunnel: what asyncio's transports do, as far as `gateway.l4.splice` asks for it."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._protocol: asyncio.Protocol | None = None  # once it is joined to another
        self._early: list[bytes] = []
        self._paused = True
        self._ended = False  # END_STREAM has come, and was not passed on yet
        self._closed = False  # both ways; a half that is closed says nothing of the other

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """The protocol that gets what comes."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    @property
    def is_joined(self) -> bool:
        """Whether what comes goes on to somebody."""
        return self._protocol is not None

    def receive(self, data: bytes) -> None:
        """Content has come."""
        if self._paused or self._protocol is None:
            self._early.append(data)
        else:
            self._protocol.data_received(data)

    def receive_eof(self) -> None:
        """END_STREAM has come."""
        self._ended = True
        if not self._paused:
            self._pass_eof_on()

    def _pass_eof_on(self) -> None:
        if self._protocol is not None:
            self._ended = False
            if not self._protocol.eof_received():
                self.close()

    def lost(self) -> None:
        """The stream is gone."""
        self._closed = True
        self._early.clear()
        if self._protocol is not None:
            self._protocol.connection_lost(None)

    def congested(self) -> None:
        """Much waits to be sent on the stream."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def relieved(self) -> None:
        """Content has been sent: less waits."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        self._stream.send(bytes(data))

    def can_write_eof(self) -> bool:
        """A stream can be half closed."""
        return True

    def write_eof(self) -> None:
        """Half close."""
        self._stream.finish()

    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def close(self) -> None:
        """Finish; give up what the client still sends."""
        self._closed = True
        stream = self._stream
        if not stream.gone:
            stream.finish()
            if not stream.gone and stream.queue is None:
                stream.reset(http2_frames.NO_ERROR)
        asyncio.get_running_loop().call_soon(self.lost)

    def abort(self) -> None:
        """Cut."""
        self._closed = True
        self._stream.reset(http2_frames.CANCEL)
        asyncio.get_running_loop().call_soon(self.lost)

    def pause_reading(self) -> None:
        """Let what comes wait."""
        self._paused = True
        self._stream.stop_reading()

    def resume_reading(self) -> None:
        """Pass on what waits, and go on, unless that was enough for now."""
        self._paused = False
        early, self._early = self._early, []
        for at, data in enumerate(early):
            if self._paused or self._protocol is None:
                self._early = early[at:]
                return
            self._protocol.data_received(data)
        if not self._paused and not self._closed:
            self._stream.go_on_reading()
            if self._ended:
                self._pass_eof_on()
