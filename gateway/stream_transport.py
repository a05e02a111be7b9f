"""An HTTP/2 stream as a transport: what became of a request for a WebSocket is joined to the other side like a connection."""

from __future__ import annotations

import asyncio

from gateway import http2
from gateway.http2 import Stream


class StreamTransport(asyncio.Transport):
    """A stream as a transport, for a tunnel: what asyncio's transports do, as far as `gateway.tunnel` asks for it."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self.protocol: asyncio.Protocol
        self._early: list[bytes] = []
        self._paused = True
        self._ended = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who gets what comes."""
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def receive(self, data: bytes) -> None:
        """Content has come."""
        if self._paused:
            self._early.append(data)
        else:
            self.protocol.data_received(data)

    def receive_eof(self) -> None:
        """END_STREAM has come."""
        self._ended = True
        if not self._paused and not self.protocol.eof_received():
            self.close()

    def lost(self) -> None:
        """The stream is gone."""
        self.protocol.connection_lost(None)

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
        """Whether nothing can be sent any more."""
        return self._stream.said_all or self._stream.gone

    def close(self) -> None:
        """Finish; give up what the client still sends."""
        stream = self._stream
        if not stream.gone:
            stream.finish()
            if not stream.gone and stream.queue is None:
                stream.reset(http2.NO_ERROR)
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        """Cut."""
        self._stream.reset(http2.CANCEL)
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        """Let what comes wait."""
        self._paused = True
        self._stream.stop_reading()

    def resume_reading(self) -> None:
        """Pass on what waits, and go on."""
        self._paused = False
        early, self._early = self._early, []
        for data in early:
            self.protocol.data_received(data)
        self._stream.go_on_reading()
        if self._ended and not self._stream.said_all and not self.protocol.eof_received():
            self.close()
