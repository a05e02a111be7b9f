"""Bytes both ways, unread: what an upgrade (WebSocket) becomes once both sides agreed to it.

Each side's pace is the other's: a full write buffer on one pauses reading on the other. One side's end of
input is passed on, so half-closed conversations finish properly.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from gateway.scripting.listener_filters import left
from gateway.tls.contexts import unread

NOW: Final = struct.pack("ii", 1, 0)  # of SO_LINGER: what waits is dropped, and a reset sent


class Splice(Protocol):
    """Joins two connections for good."""

    def __call__(self, client: asyncio.Transport, backend: asyncio.Transport, done: Callable[[], None]) -> None: ...


def reset(transport: asyncio.Transport) -> None:
    """End a connection by a reset, as what it is joined to has been: an end would say that all has been sent."""
    connection = transport.get_extra_info("socket")
    if connection is not None:  # a stream of HTTP/2 is reset by `abort` itself
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
    transport.abort()


class End(asyncio.Protocol):
    """One side of a tunnel."""

    __slots__ = ("_closed", "_done", "data_received", "ended", "is_full", "other", "transport")

    def __init__(self, transport: asyncio.Transport, done: Callable[[], None]) -> None:
        self.transport = transport
        self.other: End
        # What comes is written to the other side by the event loop itself: a function of ours in between would only call it.
        self.data_received: Callable[[bytes], None]  # type: ignore[assignment]  # a slot in place of the method
        self._done = done
        self._closed = False
        self.ended = False
        self.is_full = False  # it takes no more for now

    def eof_received(self) -> bool:
        self.ended = True
        other = self.other
        if other.ended or other.transport.is_closing() or not other.transport.can_write_eof():
            return False  # both have said all: this side closes now, and the other with it
        other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        self.is_full = True
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            left(self.transport)
            if isinstance(exc, ConnectionResetError):
                reset(self.other.transport)
            elif not self.other.transport.is_closing():
                if data := unread(self.transport):
                    self.data_received(data)
                self.other.transport.close()
            self._done()


def splice(client: asyncio.Transport, backend: asyncio.Transport, done: Callable[[], None]) -> None:
    """Join two connections; `done` is called as each of them ends."""
    left, right = End(client, done), End(backend, done)
    left.other, right.other = right, left
    left.data_received, right.data_received = backend.write, client.write
    client.set_protocol(left)
    backend.set_protocol(right)
    client.resume_reading()
    backend.resume_reading()
