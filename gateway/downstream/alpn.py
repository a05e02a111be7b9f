"""What a client speaks over TLS: HTTP/2, HTTP/1.1, or bytes that are passed on, as it agreed by ALPN (RFC 7301)."""

from __future__ import annotations

import asyncio

from gateway.downstream.http1 import DownstreamHttp1
from gateway.downstream.http2 import DownstreamHttp2
from gateway.downstream.port import ListenerPort
from gateway.l4.tcp import StreamConnection, StreamListener
from gateway.tls import contexts


class AlpnProtocol(asyncio.Protocol):
    """A TLS connection, until it is known what the client agreed to speak (ALPN, RFC 7301)."""

    def __init__(self, listener_port: ListenerPort, stream_listener: StreamListener) -> None:
        self._listener_port = listener_port
        self._stream_listener = stream_listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        name, protocol = contexts.asked(transport)
        if contexts.is_too_old(transport):
            transport.abort()  # type: ignore[attr-defined]
            return
        chosen: DownstreamHttp2 | DownstreamHttp1 | StreamConnection
        if self._stream_listener.mode(name) == "terminate":
            chosen = StreamConnection(self._stream_listener, name)
        elif protocol == "h2":
            chosen = DownstreamHttp2(self._listener_port, name.encode())
        else:
            chosen = DownstreamHttp1(self._listener_port)
        transport.set_protocol(chosen)
        chosen.connection_made(transport)
