"""The ports of a worker: opened, kept and closed as listeners come and go."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias

from gateway.base.clock import Clock
from gateway.base.sockets import bound
from gateway.downstream.alpn import AlpnProtocol
from gateway.downstream.http1 import DownstreamHttp1
from gateway.downstream.port import ListenerPort
from gateway.l4 import splice
from gateway.l4.tcp import Mode, StreamConnection, StreamListener, TlsInspector
from gateway.l4.udp import Datagrams
from gateway.runtime.certificates import Certificates
from gateway.scripting.listener_filters import ConnectionGate
from gateway.scripting.program import FilterProgram
from gateway.snapshot import Listener, Problem
from gateway.tls.contexts import Chooser
from gateway.transport.turns import Turns
from gateway.upstream.backend import Backend

HANDSHAKE = 10.0  # seconds that a client may take for a TLS handshake
BACKLOG = 4096  # connections that wait to be accepted


class Closeable(Protocol):
    """What accepts connections."""

    def close(self) -> None:
        """Accept no more."""


# How a port's connections begin: in the clear, with TLS, with a look at the ClientHello first, or as bytes of no concern.
AcceptMode: TypeAlias = Literal["plain", "tls", "peek", "bytes"]


def accept_mode_of(listeners: Sequence[Listener]) -> AcceptMode:
    """How the connections of these listeners, which share a port, begin."""
    if any(listener.passthrough for listener in listeners):
        return "peek"
    match listeners[0].protocol:
        case "TCP":
            return "bytes"
        case "HTTP":
            return "plain"
        case _:
            return "tls"


@dataclass
class OpenPort:
    """A TCP port that is open."""

    accept_mode: AcceptMode
    listener_port: ListenerPort  # HTTP requests go through it
    stream_listener: StreamListener  # connections that are passed on as bytes
    chooser: Chooser
    gate: ConnectionGate
    server: Closeable

    @property
    def unrouted(self) -> int:
        """Connections that belong to no route, so far."""
        return self.stream_listener.refused + (self.server.refused if isinstance(self.server, TlsInspector) else 0)


class Ports:
    """The TCP ports that are open, by number, and those for datagrams."""

    def __init__(
        self, bind: str, offset: int, clock: Clock, turns: Turns, backend: Callable[[str], Backend], certificates: Certificates,
        ended: Callable[[], None],
    ) -> None:  # fmt: skip
        self._bind = bind
        self._offset = offset
        self._clock = clock
        self._turns = turns
        self._backend = backend
        self._certificates = certificates
        self._ended = ended  # called at the end of each connection
        self.tcp: dict[int, OpenPort] = {}
        self.udp: dict[int, Datagrams] = {}
        self.tickets = b""  # a secret that workers share; empty where there is one
        self.draining = False

    async def open_or_close_udp(self, port: int, listeners: Sequence[Listener]) -> list[Problem]:
        """Follow the listeners for datagrams of a port, of which there may be none."""
        if not listeners:
            closed = self.udp.pop(port, None)
            if closed is not None:
                closed.close()
        elif port not in self.udp:
            try:
                listening = self._bound(port, socket.SOCK_DGRAM)
                datagrams = Datagrams(port)
                await asyncio.get_running_loop().create_datagram_endpoint(lambda: datagrams, sock=listening)
            except OSError as error:
                return [Problem(listener.name, self._cannot_listen(port, error)) for listener in listeners]
            self.udp[port] = datagrams
        return []

    async def open_or_close_tcp(
        self, port: int, listeners: Sequence[Listener], gating: Sequence[FilterProgram]
    ) -> list[Problem]:
        """Follow the listeners of a port, of which there may be none; `gating` are the filters that connections meet."""
        opened = self.tcp.get(port)
        if not listeners:
            if opened is not None:
                del self.tcp[port]
                opened.server.close()
                opened.listener_port.drain()
            return []
        accept_mode = accept_mode_of(listeners)
        if opened is None or opened.accept_mode != accept_mode:
            scheme = b"https" if accept_mode in ("tls", "peek") else b"http"
            if opened is None or opened.listener_port.scheme != scheme:
                listener_port = ListenerPort(
                    port, self._clock, self._turns, self._backend, scheme=scheme, splice=splice.splice, ended=self._ended
                )
                stream_listener, chooser = StreamListener(splice.splice, self._ended, port), Chooser(self.tickets, port)
            else:
                listener_port, stream_listener, chooser = opened.listener_port, opened.stream_listener, opened.chooser
            gate = opened.gate if opened is not None else ConnectionGate(port, scheme.decode())
            gate.programs = tuple(gating)
            try:
                server = await self._listen(accept_mode, listener_port, stream_listener, chooser, gate)
            except OSError as error:
                return [Problem(listener.name, self._cannot_listen(port, error)) for listener in listeners]
            if opened is not None:  # accepted in another way from now on; connections that stand go on
                opened.server.close()
                if opened.listener_port is not listener_port:
                    opened.listener_port.drain()
            if self.draining:
                listener_port.drain()
            opened = self.tcp[port] = OpenPort(accept_mode, listener_port, stream_listener, chooser, gate, server)
        return self._certify(opened, listeners) if accept_mode in ("tls", "peek") else []

    def _bound(self, port: int, kind: socket.SocketKind) -> socket.socket:
        """A socket on a port, shared with the other workers."""
        return bound(self._bind, port + self._offset, kind, is_shared=True)

    async def _listen(
        self,
        accept_mode: AcceptMode,
        listener_port: ListenerPort,
        stream_listener: StreamListener,
        chooser: Chooser,
        gate: ConnectionGate,
    ) -> Closeable:
        listening = self._bound(listener_port.port, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        try:
            if accept_mode == "peek":
                listening.listen(BACKLOG)
                return TlsInspector(listening, partial(_decided, listener_port, stream_listener, chooser, gate))
            factory: Callable[[], asyncio.BaseProtocol] = partial(DownstreamHttp1, listener_port)
            if accept_mode == "bytes":
                factory = partial(StreamConnection, stream_listener)
            elif accept_mode == "tls":
                factory = partial(AlpnProtocol, listener_port, stream_listener)
            context = chooser.front if accept_mode == "tls" else None
            patience = HANDSHAKE if context is not None else None
            return await loop.create_server(
                lambda: gate.protocol(factory), sock=listening, backlog=BACKLOG, ssl=context, ssl_handshake_timeout=patience
            )
        except OSError:
            listening.close()
            raise

    def _cannot_listen(self, port: int, error: OSError) -> str:
        actual = port + self._offset
        if error.errno == errno.EACCES:
            return f"port {actual} needs the right to bind ports below 1024"
        if error.errno == errno.EADDRINUSE:
            return f"port {actual} is in use by another program"
        return f"port {actual}: {error.strerror or error}"

    def _certify(self, opened: OpenPort, listeners: Sequence[Listener]) -> list[Problem]:
        ended_here = [listener for listener in listeners if not listener.passthrough]
        contexts, problems = self._certificates.of_listeners(ended_here)
        opened.chooser.contexts = contexts
        try:
            opened.chooser.configure(ended_here)
        except (ValueError, ssl.SSLError) as error:
            # Who must show a certificate is among what was not put in force: nobody gets in until it is.
            opened.chooser.contexts = {}
            problems += [Problem(listener.name, str(error)) for listener in listeners]
        return problems

    # --- time and the end ---

    def tick(self, now: float) -> None:
        """Once a second: close what has waited too long."""
        for opened in self.tcp.values():
            opened.listener_port.tick()
        for port in self.udp.values():
            port.tick(now)

    def drain(self) -> None:
        """From now on every answer closes its connection; new connections are still served."""
        self.draining = True
        for opened in self.tcp.values():
            opened.listener_port.drain()

    def relayed(self) -> int:
        """Connections that are passed on as bytes, and flows of datagrams."""
        return sum(opened.stream_listener.open for opened in self.tcp.values()) + sum(map(len, self.udp.values()))

    def busy(self) -> int:
        """Requests and tunnels under way."""
        listener_ports = [opened.listener_port for opened in self.tcp.values()]
        relayed = sum(opened.stream_listener.open for opened in self.tcp.values())
        return (
            relayed
            + sum(not c.is_idle for listener_port in listener_ports for c in listener_port.connections)
            + sum(listener_port.tunnels for listener_port in listener_ports)
        )

    def close(self) -> None:
        """Accept nothing more, and let idle connections go."""
        for opened in self.tcp.values():
            opened.server.close()
            for connection in list(opened.listener_port.connections):
                connection.close_if_idle()
        for port in self.udp.values():
            port.close()


def mode_of(listener: Listener) -> Mode:
    """What becomes of a connection that is this listener's."""
    if listener.protocol in ("HTTP", "HTTPS"):
        return "http"
    return "passthrough" if listener.passthrough else "terminate"


def _decided(
    listener_port: ListenerPort,
    stream_listener: StreamListener,
    chooser: Chooser,
    gate: ConnectionGate,
    connection: socket.socket,
    name: str,
) -> None:
    """A connection whose ClientHello asks for a name: pass it on as it is, or speak TLS with it."""
    loop = asyncio.get_running_loop()
    mode = stream_listener.mode(name)
    if mode is None:
        stream_listener.refused += 1
        connection.close()
    elif mode == "passthrough":
        factory = partial(gate.protocol, partial(StreamConnection, stream_listener, name))
        stream_listener.spawn(lambda: loop.connect_accepted_socket(factory, connection))
    else:
        stream_listener.spawn(partial(_greet, listener_port, stream_listener, chooser, gate, connection))


async def _greet(
    listener_port: ListenerPort,
    stream_listener: StreamListener,
    chooser: Chooser,
    gate: ConnectionGate,
    connection: socket.socket,
) -> None:
    try:
        loop = asyncio.get_running_loop()
        factory = partial(gate.protocol, partial(AlpnProtocol, listener_port, stream_listener))
        await loop.connect_accepted_socket(factory, connection, ssl=chooser.front, ssl_handshake_timeout=HANDSHAKE)
    except OSError:  # the handshake failed, or the client is gone
        connection.close()
