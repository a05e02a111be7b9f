"""Connections that are passed on as bytes: TCPRoute, and TLSRoute in both of its modes (GEP-2643, GEP-2644).

A `StreamListener` is what one port knows: which rule a connection belongs to, by the name that its client asked for
("" where names play no part). It is swapped whole; connections that stand are not touched by it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from gateway.l4 import filters
from gateway.l4.splice import Splice, reset
from gateway.routing.table import patterns
from gateway.scripting.listener_filters import left, may_connect, met
from gateway.scripting.program import FilterProgram
from gateway.snapshot import DEFAULT_LIMITS, Attachment, Order, Relay, Specificity
from gateway.tls import client_hello
from gateway.transport.admission import Admission
from gateway.transport.dial import DialError, dial
from gateway.upstream.backend import Backend
from gateway.upstream.load_balancing import WeightedSplit

PATIENCE: Final = 10.0  # seconds for a ClientHello to come
WAITING: Final = 8192  # connections whose ClientHello has not come yet


class StreamCounters:
    """What happened at one target of a relay; survives changes of it."""

    __slots__ = ("accepted", "refused")

    def __init__(self) -> None:
        self.accepted = 0  # connections or flows
        self.refused = 0


class StreamTarget(NamedTuple):
    """A share of a relay's connections or flows: where they go, None where they are refused, and how many there were."""

    backend: Backend | None
    tally: StreamCounters


class StreamRoute:
    """A prepared relay: its targets in turn. `tally` counts what came to none of them."""

    __slots__ = ("name", "programs", "tally", "turns")

    def __init__(
        self,
        relay: Relay,
        backends: Callable[[str], Backend],
        programs: Callable[[str], FilterProgram],
        phase: float,
        tallies: Callable[[str, str], StreamCounters],
    ) -> None:
        self.name = relay.name
        self.tally = tallies(relay.name, "")
        given = [
            StreamTarget(
                backends(target.backend) if target.backend and not target.fault else None,
                tallies(relay.name, target.backend or target.written),
            )
            for target in relay.targets
        ]
        weights = [target.weight for target in relay.targets]
        self.turns: Iterator[StreamTarget] = (
            WeightedSplit(given, weights, phase=phase).turns if any(weights) else repeat(StreamTarget(None, self.tally))
        )
        self.programs = tuple(programs(spec.script) for spec in relay.filters)


# What becomes of a connection: requests are read from it, or it is passed on with TLS taken off, or as it is.
Mode: TypeAlias = Literal["http", "terminate", "passthrough"]


class StreamListener:
    """What the connections of one port share."""

    def __init__(self, splice: Splice, ended: Callable[[], None], port: int = 0) -> None:
        self.port = port
        self.lines: Mapping[str, StreamRoute] = {}  # by hostname
        self.modes: Mapping[str, Mode] = {}  # by the hostname of a listener
        self.splice = splice
        self._ended = ended
        self.open = 0  # connections under way
        self.limits = DEFAULT_LIMITS
        self._admission = Admission()
        self.refused = 0  # that belong to no line, or were one too many
        self.tasks: set[asyncio.Task[object]] = set()

    def line(self, name: str) -> StreamRoute | None:
        """The rule for the name that a client asked for."""
        return lookup(self.lines, name)

    def mode(self, name: str) -> Mode | None:
        """What becomes of a connection whose client asked for a name; None where nobody is there for it."""
        return lookup(self.modes, name)

    def admit(self, address: str) -> bool:
        """Whether a client may have another connection; who may `leaves` once it is gone."""
        if self._admission.admit(address, self.limits, self.open + len(self.tasks)):
            return True
        self.refused += 1
        return False

    def leaves(self, address: str) -> None:
        """A client's connection is gone."""
        self._admission.leave(address)

    def began(self, address: str = "") -> Callable[[], None]:
        """A connection is under way; call what is returned when each of its two ends is gone."""
        self.open += 1
        left = 2

        def done() -> None:
            nonlocal left
            left -= 1
            if not left:
                self.open -= 1
                self.leaves(address)
                self._ended()

        return done

    def spawn(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Keep a task alive until it is done."""
        task = asyncio.get_running_loop().create_task(work())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


T = TypeVar("T")


def lookup(by_hostname: Mapping[str, T], name: str) -> T | None:
    """What stands for the most specific hostname that matches."""
    return next((by_hostname[pattern] for pattern in patterns(name) if pattern in by_hostname), None)


class BufferingProtocol(asyncio.Protocol):
    """A connection before it is joined to another: what comes meanwhile is kept, and no more is read than had come.

    uvloop begins to read after `connection_made` whatever that said, so that one read may come all the same.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.data: list[bytes] = []
        self.ended = False
        self.lost = False
        self.was_reset = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        self.data.append(data)
        self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.was_reset = isinstance(exc, ConnectionResetError)
        left(self.transport)

    def pass_on(self, to: asyncio.Transport) -> None:
        """Once the two are joined: send on what has come."""
        joined = self.transport.get_protocol()
        for data in self.data:
            if isinstance(joined, filters.FilteredSplice):
                joined.data_received(data)
            else:
                to.write(data)
        if self.ended and isinstance(joined, asyncio.Protocol) and not joined.eof_received():
            self.transport.close()


class StreamConnection(BufferingProtocol):
    """A client's connection until its other end is made. With TLS it has been terminated here."""

    def __init__(self, stream_listener: StreamListener, name: str = "") -> None:
        super().__init__()
        self._stream_listener = stream_listener
        self._name = name
        self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        if self._stream_listener.admit(self._address):
            self._stream_listener.spawn(self._connect)
        else:
            self.transport.abort()

    async def _connect(self) -> None:
        joined = False
        try:
            joined = await self._join()
        finally:
            if not joined:
                self._stream_listener.leaves(self._address)

    async def _join(self) -> bool:
        """Make the other end, and join the two; false where that cannot be."""
        stream_listener = self._stream_listener
        line = stream_listener.line(self._name)
        connection = None
        if line is not None and line.programs:
            connection = met(self.transport, stream_listener.port, "tcp")
            if not await may_connect(line.programs, connection):
                line.tally.refused += 1
                self.transport.abort()
                return False
        target = next(line.turns) if line is not None else None
        other = await reach(target.backend) if target is not None and target.backend is not None else None
        if other is None or other.lost or self.lost:
            if target is not None:
                target.tally.refused += 1
            else:
                stream_listener.refused += 1
            if other is None:
                self.transport.abort()
            else:
                for transport, of in ((self.transport, other), (other.transport, self)):
                    reset(transport) if of.was_reset else transport.abort()
            return False
        assert line is not None
        assert target is not None
        target.tally.accepted += 1
        active = filters.active_filters(line.programs, "data")
        if active and connection is not None:
            filters.join(active, connection, self.transport, other.transport, stream_listener.began(self._address))
        else:
            stream_listener.splice(self.transport, other.transport, stream_listener.began(self._address))
        self.pass_on(other.transport)
        other.pass_on(self.transport)
        return True


async def reach(backend: Backend) -> BufferingProtocol | None:
    """A connection to a backend: each of its endpoints is tried once. None where there is none."""
    tried: list[object] = []
    for _ in range(max(len(backend.endpoints), 1)):
        pool = backend.endpoints.next()
        if pool is None or pool in tried:
            break
        tried.append(pool)
        try:
            _, early = await dial(BufferingProtocol, pool.where, pool.security)
        except DialError as failure:
            backend.failed(pool, failure)
        else:
            return early
    return None


class TlsInspector:
    """Accepts connections of a port where TLS is passed through, and looks at each ClientHello before it decides.

    The hello is peeked at in the kernel's buffer, never read: whoever gets the connection finds it whole. A receive
    low-water mark lets the kernel wake us when there is more of it than we have seen, and not before.
    """

    def __init__(self, listening: socket.socket, decide: Callable[[socket.socket, str], None]) -> None:
        self._listening = listening
        self._decide = decide
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        self.refused = 0
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept nothing more."""
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for connection in list(self._waiting):
            self._drop(connection)

    def _accept(self) -> None:
        for _ in range(64):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return  # gone before it was taken, or too many files are open
            if len(self._waiting) >= WAITING:
                self._drop(next(iter(self._waiting)))  # who has waited longest
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._waiting[connection] = self._loop.call_later(PATIENCE, self._drop, connection)
            self._loop.add_reader(connection, self._peek, connection)

    def _peek(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(4 * client_hello.MAX_CLIENT_HELLO_BYTES, socket.MSG_PEEK)
            name = client_hello.server_name(data) if data else ""
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, client_hello.NotTLS):
            self._drop(connection)
            return
        if not data:
            self._drop(connection)
        elif name is None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(data) + 1)
        else:
            self._waiting.pop(connection).cancel()
            self._loop.remove_reader(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._decide(connection, name)

    def _drop(self, connection: socket.socket) -> None:
        timer = self._waiting.pop(connection, None)
        if timer is not None:
            timer.cancel()
            self.refused += 1
            self._loop.remove_reader(connection)
            connection.close()


def stream_listeners(
    relays: Iterable[tuple[Attachment, Relay]], prepare: Callable[[Relay], StreamRoute]
) -> dict[str, StreamRoute]:
    """The line of each hostname: of several relays at one, that of the route carries the traffic whose own hostname is more
    specific (TLSRoute), and of those the oldest (TCPRoute, UDPRoute)."""
    first: dict[str, tuple[tuple[Specificity, Order], Relay]] = {}
    for at, relay in relays:
        rank = at.specificity, relay.order
        if at.hostname not in first or rank < first[at.hostname][0]:
            first[at.hostname] = rank, relay
    return {hostname: prepare(relay) for hostname, (_, relay) in first.items()}
