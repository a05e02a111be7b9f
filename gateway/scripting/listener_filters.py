"""Filters of a listener: they meet a connection before anybody speaks on it (`connect`), a request before a rule is chosen
for it (`request`, where it is a plain function that runs here).

A port without such filters does not know of this: its connections begin with who speaks HTTP, or passes bytes on.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from gateway.filters import api
from gateway.http.http1 import ProtocolError, Request
from gateway.scripting.loader import verdict_or_nothing, wrong_result
from gateway.scripting.program import FilterProgram

# Connections that filters have met, by their transports, until they are gone.
greeted: Final[dict[asyncio.BaseTransport, api.Connection]] = {}
_connections: WeakKeyDictionary[object, api.Connection] = WeakKeyDictionary()  # by who speaks HTTP on them
_leaving: Final[set[asyncio.Task[None]]] = set()


class Speaker(Protocol):
    """A client's connection, or a stream of one."""

    @property
    def address(self) -> bytes: ...
    @property
    def port(self) -> int: ...
    @property
    def scheme(self) -> bytes: ...


def connection_of(client: Speaker) -> api.Connection:
    """A client's connection, with what filters keep there; the streams of one share it."""
    owner: Speaker = getattr(client, "connection", client)
    connection = _connections.get(owner)
    if connection is None:
        connection = greeted.get(getattr(owner, "_transport", None)) if greeted else None  # type: ignore[arg-type]
        if connection is None:
            connection = api.Connection(client.address.decode(), client.port, client.scheme.decode())
        _connections[owner] = connection
    return connection


def met(transport: asyncio.BaseTransport, port: int, scheme: str) -> api.Connection:
    """A connection that filters meet, until it is gone."""
    connection = greeted.get(transport)
    if connection is None:
        peer = transport.get_extra_info("peername")
        address = peer[0].removeprefix("::ffff:") if peer else "unknown"
        connection = greeted[transport] = api.Connection(address, port, scheme)
    return connection


class ConnectionGate:
    """The filters of one port, and what becomes of a connection that they let in."""

    __slots__ = ("port", "programs", "scheme", "turned_away")

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.scheme = scheme
        self.programs: tuple[FilterProgram, ...] = ()
        self.turned_away = 0

    def protocol(self, following: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """The protocol of a new connection: filters first, where the port has any."""
        return GateProtocol(self, following) if self.programs else following()


class GateProtocol(asyncio.Protocol):
    """Meets a connection, and hands it on or closes it. Nothing is read meanwhile."""

    def __init__(self, gate: ConnectionGate, following: Callable[[], asyncio.BaseProtocol]) -> None:
        self._gate = gate
        self._following = following
        self._transport: asyncio.Transport
        self._early: list[bytes] = []  # uvloop may read once after `connection_made`, whatever that said
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        connection = met(transport, self._gate.port, self._gate.scheme)
        self._transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._greet(connection))

    async def _greet(self, connection: api.Connection) -> None:
        admitted = await may_connect(self._gate.programs, connection)
        if not admitted:
            self._gate.turned_away += 1
            self._transport.abort()
        elif not self._transport.is_closing():
            following = self._following()
            self._transport.set_protocol(following)
            following.connection_made(self._transport)
            if self._transport.is_closing():
                return
            self._transport.resume_reading()
            for data in self._early:
                self._transport.get_protocol().data_received(data)  # type: ignore[attr-defined]
            if self._ended and not self._transport.get_protocol().eof_received():  # type: ignore[attr-defined]
                self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def eof_received(self) -> bool:
        self._ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        left(self._transport)


async def may_connect(programs: Iterable[FilterProgram], connection: api.Connection) -> bool:
    """Whether every filter lets a connection in: all but those that say False do. One that fails does, if it is to be open."""
    for program in programs:
        hooks = program.hooks
        if hooks is None:
            if program.passes:
                continue
            return False
        if hooks.connect is None:
            continue
        hooks.acquire()
        try:
            verdict = program.call(hooks.connect, connection)
            if inspect.isawaitable(verdict):
                verdict = await program.settle(verdict)
            verdict = verdict_or_nothing(hooks.connect, verdict)
        except Exception as error:
            program.failed(error, hooks)
            verdict = program.passes
        finally:
            closing = connection.take_closing()
            for function in closing:
                connection.closed.append(lambda p=program, h=hooks, f=function: p.run(f, h))  # type: ignore[misc]
            if closing:  # its code is kept, in whatever process, until that has been done
                connection.holds.append(hooks.release)
            else:
                hooks.release()
        if connection.is_gone:  # while the filter thought about it: it hears of that at once
            connection_ended(connection)
        if verdict is False:
            return False
    return True


def left(transport: asyncio.BaseTransport) -> None:
    """A connection is gone: filters that wanted to know are told."""
    if greeted and (connection := greeted.pop(transport, None)) is not None:
        connection_ended(connection)


def connection_ended(connection: api.Connection) -> None:
    """Tell the filters that wanted to know of its end, and then let go of them."""
    connection.is_gone = True
    closed, connection.closed = connection.closed, []
    holds, connection.holds = connection.holds, []
    if closed or holds:
        task = asyncio.get_running_loop().create_task(_end(closed, holds))
        _leaving.add(task)
        task.add_done_callback(_leaving.discard)


async def _end(closed: list[Callable[[], Any]], holds: list[Callable[[], None]]) -> None:
    await asyncio.gather(*(tell() for tell in closed), return_exceptions=True)
    for release in holds:
        release()


def arrive(programs: Iterable[FilterProgram], connection: api.Connection, request: Request) -> Request:
    """A request as filters of the listener leave it, before a rule is chosen. Raises ProtocolError where one fails."""
    view: api.Request | None = None
    for program in programs:
        hooks = program.hooks
        if hooks is None or not is_early(hooks):
            continue
        if view is None:
            view = api.Request(request, connection, None, None, "")
        try:
            result = program.call(hooks.request, view)
            if result is not None:
                raise wrong_result(hooks.request, result, "nothing, as there is no rule yet whose filter could answer,")
        except Exception as error:
            program.failed(error, hooks)
            if not program.passes:
                raise ProtocolError(500, f"the filter {program.name} failed") from None
    return view.raw() if view is not None and view.is_changed else request


def is_early(hooks: Any) -> bool:
    """Whether its function of the request can be called before a rule is chosen: of those that do not meet connections."""
    return (
        hooks.connect is None
        and hooks.request is not None
        and hooks.runs == "inline"
        and not inspect.iscoroutinefunction(hooks.request)
    )
