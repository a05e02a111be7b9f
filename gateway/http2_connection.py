"""An HTTP/2 conversation on a transport: what client and server have in common."""

from __future__ import annotations

import asyncio

from gateway.gathering import Gatherer
from gateway.http2 import HIGH_WATER, Conversation


class Http2Connection(Conversation, asyncio.Protocol):
    """See the module."""

    __slots__ = ("_gatherer", "_transport")

    def __init__(self, most_head: int) -> None:
        super().__init__(most_head)
        self._transport: asyncio.Transport
        self._gatherer: Gatherer | None = None  # with TLS

    def use(self, transport: asyncio.BaseTransport, *, secure: bool) -> None:
        """Speak on this transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        self.write = self._transport.write
        if secure:
            self._gatherer = Gatherer(self._transport)
            self.write = self._gatherer.write

    def close(self) -> None:
        """Send what waits, and end."""
        if self._gatherer is not None:
            self._gatherer.flush()
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
        self.pump()
        for stream in list(self.streams.values()):
            if stream.owed < HIGH_WATER:
                stream.relieved()
