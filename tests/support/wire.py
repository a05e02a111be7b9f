"""Both halves of the proxy on wires that only remember: what goes to the backend, what comes back, who hung up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.base.clock import Clock
from gateway.downstream.http1 import DownstreamHttp1
from gateway.downstream.port import ListenerPort
from gateway.proxy.route import Counter, Route
from gateway.routing.table import HostKey, HostRules, RouteMatch, Table
from gateway.scripting.loader import load
from gateway.scripting.program import FilterProgram
from gateway.snapshot import Rule
from gateway.transport.turns import Turns
from gateway.upstream.backend import Backend
from gateway.upstream.http1 import Http1UpstreamConnection
from gateway.upstream.http1_pool import Http1Pool


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = ""

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return "10.1.2.3", 1

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = self.closed or "aborted"

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = self.closed or "half"

    def set_protocol(self, protocol: object) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0


SOURCES: dict[str, str] = {}  # of filters


class Nowhere(Http1Pool):
    """Nobody listens at this address: whoever finds no kept connection waits."""

    def connect(self, user: object) -> None: ...


class Side:
    """One proxy: a listener port with these rules, one client, backends that always have a kept connection."""

    def __init__(self, rules: list[Rule], *, shortcuts: bool = True) -> None:
        self.shortcuts = shortcuts
        self.clock = Clock(100.0)
        self.turns = Turns()
        self.backends: dict[str, Backend] = {}
        self.pools: dict[str, Http1Pool] = {}
        self.listener_port = ListenerPort(
            80, self.clock, self.turns, self.backend, scheme=b"http", splice=_no_splice, ended=lambda: None
        )
        self.route(rules)

    def route(self, rules: list[Rule]) -> None:
        hosts: dict[HostKey, list[RouteMatch[Any]]] = {}
        for rule in rules:
            route = Route(rule, self.backend, lambda *_: Counter(), self.program, 0.0)
            for at in rule.at:
                hosts.setdefault((at.listener, at.hostname), []).extend(RouteMatch(m, rule.order, route) for m in rule.matches)
        self.listener_port.table = Table(
            {"": "l"}, {key: HostRules(entries) for key, entries in hosts.items()}, self.listener_port.virtual_hosts
        )

    def program(self, name: str) -> FilterProgram:
        """A filter whose name is its source's."""
        program = FilterProgram(name)
        program.hooks = load(name, SOURCES[name])
        return program

    def backend(self, name: str) -> Backend:
        if name not in self.backends:
            pool = self.pools[name] = Nowhere("127.0.0.1", 9, self.clock, self.turns)
            backend = self.backends[name] = Backend(name)
            backend.endpoints.set([pool])
        self.refill(name)
        return self.backends[name]

    def refill(self, name: str) -> None:
        pool = self.pools[name]
        if not pool.idle:
            upstream = Http1UpstreamConnection(pool)
            upstream.connection_made(Wire())  # type: ignore[arg-type]
            pool.idle.append(upstream)

    def connect(self) -> tuple[DownstreamHttp1, Wire]:
        wire = Wire()
        client = DownstreamHttp1(self.listener_port)
        client.connection_made(wire)  # type: ignore[arg-type]
        if not self.shortcuts:
            client.parse_always()
        return client, wire

    def ask(
        self, client: DownstreamHttp1, wire: Wire, request: bytes, reply: Sequence[bytes], behind: bytes = b""
    ) -> tuple[Any, ...]:
        """Everything that anybody can see of one request and its answer in pieces, and whether it took the fast path.

        `behind` is sent by the client after the first piece.
        """
        for name in self.pools:
            self.refill(name)
        wires = {name: pool.idle[-1]._transport for name, pool in self.pools.items()}
        before = {name: len(one.sent) for name, one in wires.items()}
        wire.sent.clear()
        client.data_received(request)
        if isinstance(client._body, int) and 0 < client._body < 100 and client._exchange is not None:
            client.data_received(b"x" * client._body)
        peer = client.peer or (client._exchange.peer if client._exchange else None)
        short = client.peer is not None
        seen = {name: b"".join(one.sent[before[name] :]) for name, one in wires.items()}
        if not self.shortcuts and client._exchange is not None:
            client._exchange.read_in_full()
        for piece in reply if peer is not None else ():
            if peer.user is not None:
                peer.data_received(piece)
            if behind and not wire.closed:
                client.data_received(behind)
                behind = b""
        kept = {name: len(pool.idle) for name, pool in self.pools.items()}
        waiting = client._buffer, client._body if isinstance(client._body, int) else "chunks"
        return short, (
            seen,
            b"".join(wire.sent),
            wire.closed,
            kept,
            waiting,
            self.listener_port.refused,
            self.listener_port.unmatched,
        )


def _no_splice(one: object, other: object, done: Callable[[], None]) -> None:
    raise AssertionError("nothing here changes protocols")
