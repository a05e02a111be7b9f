"""The connections to every address in use, each by how its backend is spoken to."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from gateway.base.clock import Clock
from gateway.tls.contexts import Security
from gateway.transport.turns import Turns
from gateway.upstream.http1_pool import Http1Pool
from gateway.upstream.http2 import Http2Pool


class Address(NamedTuple):
    """An address, and how to speak to it: one pool each."""

    host: str
    port: int
    http2: bool = False
    security: Security | None = None


AnyPool: TypeAlias = Http1Pool | Http2Pool


class Pools:
    """The pools of connections, by address."""

    def __init__(self, clock: Clock, turns: Turns) -> None:
        self._clock = clock
        self._turns = turns
        self._pools: dict[Address, AnyPool] = {}

    def get(self, address: Address) -> AnyPool:
        """The pool of an address."""
        pool = self._pools.get(address)
        if pool is None:
            host, port, is_http2, security = address
            kind = Http2Pool if is_http2 else Http1Pool
            pool = self._pools[address] = kind(host, port, self._clock, self._turns, security)
        return pool

    def retire(self, address: Address) -> None:
        """Nobody wants an address any more."""
        pool = self._pools.pop(address, None)
        if pool is not None:
            pool.retire()

    def sweep(self) -> None:
        """Close idle connections that are past their time."""
        for pool in self._pools.values():
            pool.sweep()
