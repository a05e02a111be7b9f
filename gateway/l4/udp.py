"""UDP flows: what one client address sends goes to one endpoint, for as long as they talk (UDPRoute, GEP-2645).

A flow is a socket of its own towards the backend, so that answers find their way back. It keeps its endpoint through
every change of routes; who is silent for `IDLE` seconds is forgotten, and so is the flow that was silent longest when
there are too many.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import Any, Final, TypeAlias

from gateway.filters import api
from gateway.l4 import filters
from gateway.l4.tcp import StreamRoute
from gateway.scripting.listener_filters import connection_ended, may_connect
from gateway.snapshot import DEFAULT_LIMITS
from gateway.transport.admission import Admission
from gateway.transport.dial import explained

log = logging.getLogger("fsm.upstream")
IDLE: Final = 60.0  # seconds without a datagram either way
FLOWS: Final = 16384  # at a time on one port
EARLY: Final = 16  # datagrams that wait while a flow's socket is made

Address: TypeAlias = tuple[Any, ...]


def send_datagram(transport: asyncio.DatagramTransport, data: bytes, to: Address | None = None) -> None:
    """Send one, also an empty one (RFC 768 allows them): of these asyncio's transports and uvloop's make nothing at all."""
    if data:
        transport.sendto(data, to)
    elif not transport.is_closing():
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as same, suppress(OSError):
            if to is None:
                same.send(b"")
            else:
                same.sendto(b"", to)


class Flow(asyncio.DatagramProtocol):
    """One client's conversation with one endpoint."""

    __slots__ = ("_back", "_client", "_early", "_port", "_transport", "seen")

    def __init__(self, port: Datagrams, client: Address, back: asyncio.DatagramTransport) -> None:
        self._port = port
        self._client = client
        self._back = back
        self._transport: asyncio.DatagramTransport | None = None
        self._early: list[bytes] | None = []
        self.seen = port.now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        early, self._early = self._early or [], None
        for data in early:
            self.send(data)

    def send(self, data: bytes) -> None:
        """On to the backend."""
        self.seen = self._port.now
        if self._transport is not None:
            send_datagram(self._transport, data)
        elif self._early is not None and len(self._early) < EARLY:
            self._early.append(data)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.seen = self._port.now
        if self._port.line is not None and self._port.line.programs:
            self._port.sift(data, self._client, from_client=False)
        else:
            send_datagram(self._back, data, self._client)

    def error_received(self, exc: Exception) -> None:
        """The backend's host says that nobody listens: the next datagram begins a new flow."""
        self._port.forget(self._client)

    def close(self) -> None:
        """Close the flow's socket; what still waits for it is dropped."""
        self._early = None
        if self._transport is not None:
            self._transport.close()


class Datagrams(asyncio.DatagramProtocol):
    """One UDP port."""

    def __init__(self, number: int = 0) -> None:
        self.number = number  # of the port
        self.line: StreamRoute | None = None
        self.now = asyncio.get_running_loop().time()
        self.refused = 0
        self.limits = DEFAULT_LIMITS
        self._flows: dict[Address, Flow] = {}
        self._admission = Admission()  # of flows, by their client's host
        self._met: dict[Address, api.Connection] = {}  # whom filters that meet connections have let in
        self._transport: asyncio.DatagramTransport
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._flows)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if self.line is not None and self.line.programs:
            self.sift(data, addr, from_client=True)
        else:
            self._pass_on(data, addr)

    def sift(self, data: bytes, client: Address, *, from_client: bool) -> None:
        """Let filters see a datagram before it goes on."""
        assert self.line is not None
        if any(program.hooks is None and not program.passes for program in self.line.programs):
            self.refused += 1
            return
        if len(self._tasks) >= filters.PENDING:
            self.refused += 1
            return
        address = str(client[0]).removeprefix("::ffff:")
        datagram = api.Datagram(data, address, self.number, from_client=from_client)
        task = asyncio.get_running_loop().create_task(self._sifted(datagram, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sifted(self, datagram: api.Datagram, client: Address) -> None:
        if datagram.from_client and client not in self._flows and not await self._may_begin(client):
            self.refused += 1
            return
        data = await filters.pass_datagram(self.line.programs, datagram) if self.line is not None else None
        if self._transport.is_closing():
            return
        if datagram.answered is not None:
            send_datagram(self._transport, datagram.answered, client)
        elif data is None:
            self.refused += 1
        elif datagram.from_client:
            self._pass_on(data, client)
        else:
            send_datagram(self._transport, data, client)

    async def _may_begin(self, client: Address) -> bool:
        """Whether the filters that meet connections let a flow in, which is as much of one as UDP has."""
        programs = self.line.programs if self.line is not None else ()
        if client in self._met or all(program.hooks is not None and program.hooks.connect is None for program in programs):
            return True
        connection = api.Connection(str(client[0]).removeprefix("::ffff:"), self.number, "udp")
        if not await may_connect(programs, connection):
            connection_ended(connection)  # those that had let it in
            return False
        if client in self._met or len(self._met) >= FLOWS or self.line is None:
            connection_ended(connection)
        else:
            self._met[client] = connection
        return True

    def _pass_on(self, data: bytes, addr: Address) -> None:
        flow = self._flows.get(addr)
        if flow is None:
            flow = self._begin(addr)
            if flow is None:
                self.refused += 1
                return
        flow.send(data)

    def _begin(self, client: Address) -> Flow | None:
        if self.line is None:
            return None
        backend, tally = next(self.line.turns)
        pool = backend.endpoints.next() if backend is not None else None
        if pool is None or not self._admission.admit(client[0], self.limits, len(self._flows)):
            tally.refused += 1
            return None
        if len(self._flows) >= FLOWS:
            self.forget(min(self._flows, key=lambda address: self._flows[address].seen))
        tally.accepted += 1
        flow = self._flows[client] = Flow(self, client, self._transport)
        task = asyncio.get_running_loop().create_task(self._connect(flow, client, pool.where))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flow

    async def _connect(self, flow: Flow, client: Address, address: tuple[str, int]) -> None:
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: flow, remote_addr=address)
        except Exception as error:
            self.forget(client)
            log.debug("a flow has no backend: %s", explained(error))
        if self._flows.get(client) is not flow:
            flow.close()

    def forget(self, client: Address) -> None:
        """A flow is over."""
        flow = self._flows.pop(client, None)
        if flow is not None:
            flow.close()
            self._admission.leave(client[0])
        connection = self._met.pop(client, None)
        if connection is not None:
            connection_ended(connection)

    def tick(self, now: float) -> None:
        """Forget who is silent."""
        self.now = now
        for client in [client for client, flow in self._flows.items() if flow.seen < now - IDLE]:
            self.forget(client)
        for client in [client for client in self._met if client not in self._flows]:
            self.forget(client)  # answered by a filter, or refused by a later one: there is no flow

    def close(self) -> None:
        """Take nothing more; flows end with it."""
        self._transport.close()
        self.line = None  # what filters still have goes nowhere
        for client in [*self._flows, *self._met]:
            self.forget(client)
