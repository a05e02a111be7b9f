"""An HTTP/2 connection on a transport: what client and server have in common."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from gateway.base.clock import Clock
from gateway.http.http2 import Http2Connection
from gateway.http.http2_frames import ConnectionFault
from gateway.transport.turns import Turns
from gateway.transport.write_coalescing import WriteCoalescer

OWED: Final = 1 << 18  # octets in the transport's buffer, above which a peer is not listened to


class Http2Protocol(Http2Connection, asyncio.Protocol):
    """An HTTP/2 connection on a transport, in turns with all others."""

    __slots__ = ("_coalescer", "_goes_on", "_is_held", "_is_queued", "_transport", "_turn_began", "_turns")

    def __init__(self, most_head: int, clock: Clock, turns: Turns) -> None:
        super().__init__(most_head, clock)
        self._turns = turns
        self._turn_began = 0.0
        self._transport: asyncio.Transport
        self._coalescer: WriteCoalescer | None = None  # with TLS
        self._goes_on = False  # more of what has come is read in the next turn
        self._is_queued = False  # for its turn
        self._is_held = False  # nothing is read: the peer does not take what it is owed

    def use(self, transport: asyncio.BaseTransport, *, secure: bool) -> None:
        """Speak on this transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        self.write = self._transport.write
        if secure:
            self._coalescer = WriteCoalescer(self._transport)
            self.write = self._coalescer.write

    def data_received(self, data: bytes) -> None:
        if self._goes_on and data:
            self._buffer += data  # was on its way when reading was paused
            return
        if self._turns.is_due(len(data)):
            self._buffer += data
            self._wait()
            return
        self._turn_began = monotonic()
        try:
            waits = self.receive(data)
        except ConnectionFault as fault:
            self._buffer = b""
            self.failed(fault)
            return
        if self.stopped and not self._is_held and self._transport.get_write_buffer_size() > OWED:
            self._is_held = True
            self.held(self._transport)
        if waits and not self._goes_on:
            self._wait()

    def _wait(self) -> None:
        """Others have their turn first, and meanwhile nothing more is taken from the network."""
        self._goes_on = True
        self._queue()
        if not self._is_held and not self._transport.is_closing():
            self._transport.pause_reading()

    def _queue(self) -> None:
        if not self._is_queued:
            self._is_queued = True
            self._turns.wait(self._go_on, self._transport)

    def _go_on(self) -> None:
        self._is_queued = False
        if self._transport.is_closing():
            return
        if self._is_held:
            return  # `resume_writing` goes on
        self._goes_on = False
        self.data_received(b"")
        if not self._goes_on and not self._is_held and not self._transport.is_closing():
            self._transport.resume_reading()

    def held(self, transport: asyncio.Transport) -> None:
        """For the role: answers to control frames heap up, as the peer does not read."""

    def failed(self, fault: ConnectionFault) -> None:
        """For the role: the peer has broken the protocol."""
        raise NotImplementedError

    def close(self) -> None:
        """Send what waits, and end."""
        if self._coalescer is not None:
            self._coalescer.flush()
        self._transport.close()

    def mute(self) -> None:
        """The connection is gone: nothing can be said any more."""
        self.stopped = True
        self.write = lambda _: None

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.stopped = True
        for stream in self.streams.values():
            stream.congested()

    def resume_writing(self) -> None:
        self.stopped = False
        if self._is_held:
            self._is_held = False
            if self._goes_on:
                self._queue()
            elif not self._transport.is_closing():
                self._transport.resume_reading()
        self.pump()
        for stream in list(self.streams.values()):
            if stream.takes_more:
                stream.relieved()
