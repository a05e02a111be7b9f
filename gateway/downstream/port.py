"""What all client connections of one port share: the table in force, its limits, who is connected, what was counted.

`table` is swapped whole; a request keeps the one that it started with.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final, Protocol

from gateway.base.clock import Clock
from gateway.downstream.known_heads import Templates
from gateway.downstream.unsent import Unsent
from gateway.l4.splice import Splice
from gateway.proxy.route import Route
from gateway.routing.table import Table, VirtualHosts
from gateway.scripting.program import FilterProgram
from gateway.snapshot import DEFAULT_LIMITS, Limits
from gateway.transport.admission import Admission
from gateway.transport.turns import Turns
from gateway.upstream.backend import Backend

FORGET: Final = 5.0  # seconds between two requests after which a connection lets go of what it remembers


class ClientConnection(Protocol):
    """A client connection, as its listener port sees it."""

    address: bytes
    deadline: float

    @property
    def is_idle(self) -> bool: ...
    def expired(self) -> None: ...
    def start_over(self) -> None: ...
    def parse_always(self) -> None: ...
    def close_if_idle(self) -> None: ...


class ListenerPort:
    """A port for HTTP: what all of its connections share."""

    def __init__(
        self,
        port: int,
        clock: Clock,
        turns: Turns,
        backends: Callable[[str], Backend],
        *,
        scheme: bytes,
        splice: Splice,
        ended: Callable[[], None],
    ) -> None:
        self.port = port
        self.scheme = scheme
        self.backends = backends
        self.splice = splice
        self.ended = ended  # called when a connection or tunnel has ended
        self.clock = clock
        # What is in force.
        self.table: Table[Route] = Table({}, {})
        self.virtual_hosts: VirtualHosts[Route] = VirtualHosts()
        self.draining = False
        self.arrivals: tuple[FilterProgram, ...] = ()  # that look at requests before a rule is chosen
        self.connections: set[ClientConnection] = set()
        self.unsent = Unsent()
        self.turns = turns
        self.limit(DEFAULT_LIMITS)
        self._admission = Admission()
        # Counts.
        self.tunnels = 0
        self.unmatched = 0  # requests that no rule took: 404
        self.refused = 0  # requests that were not HTTP enough, or over a limit: 4xx and 5xx of our own
        self.turned_away = 0  # connections over a limit

    def limit(self, limits: Limits) -> None:
        """Put limits in force; requests under way keep what they have passed."""
        self.limits = limits
        self.unsent.most = limits.unsent_bytes
        self.most_requests = limits.requests_per_connection or sys.maxsize
        self.templates = Templates(self.scheme, limits.head_bytes + 4)
        for connection in self.connections:
            connection.start_over()
        self._look_at_clock()

    def _look_at_clock(self) -> None:
        """Work out once a tick what every request would."""
        self.idle_until = self.clock.now + self.limits.idle_seconds
        self.stalled_at = self.clock.now + self.limits.stall_seconds

    def tick(self) -> None:
        """Close what has waited too long."""
        self._look_at_clock()
        now = self.clock.now
        self.unsent.tick(now)
        resting = self.idle_until - FORGET
        for connection in list(self.connections):
            if connection.deadline < now:
                connection.expired()
            elif connection.deadline < resting and connection.is_idle:
                connection.start_over()

    def join(self, client: asyncio.Transport, backend: asyncio.Transport) -> None:
        """Both sides have changed protocols: their bytes pass unread from here on."""
        self.tunnels += 1
        ended = 0

        def done() -> None:
            nonlocal ended
            ended += 1
            if ended == 2:
                self.tunnels -= 1
                self.ended()

        self.splice(client, backend, done)

    def admit(self, connection: ClientConnection) -> bool:
        """Count a connection in, unless it is one too many."""
        if not self._admission.admit(connection.address, self.limits, len(self.connections)):
            self.turned_away += 1
            return False
        self.connections.add(connection)
        return True

    def leave(self, connection: ClientConnection) -> None:
        """Count a connection out."""
        if connection in self.connections:
            self.connections.remove(connection)
            self._admission.leave(connection.address)

    def meet(self, arrivals: tuple[FilterProgram, ...]) -> None:
        """Have filters look at every request first, which none can pass unread then; or have them no more."""
        if arrivals == self.arrivals:
            return
        self.arrivals = arrivals
        self.templates.forget()
        for connection in self.connections:
            connection.parse_always() if arrivals else connection.start_over()

    def drain(self) -> None:
        """From now on every answer closes its connection, and so is written in full."""
        self.draining = True
        self.templates.forget()
        for connection in self.connections:
            connection.parse_always()
