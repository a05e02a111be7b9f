"""Shared by all replicas: kept in a Redis or a Valkey.

One that cannot be reached is not asked again for a moment: who asks meanwhile is told so at once, so that requests do
not queue up behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import redis.asyncio
from redis.asyncio.connection import BlockingConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.filters.sharing import Answer, Operation
from gateway.snapshot import Store

log = logging.getLogger("fsm.shared")
REST: Final = 1.0  # seconds that a store which failed is left alone
CONNECTIONS: Final = 32

# The turns of `memory.take`, by the store's own clock, in microseconds so that nothing is rounded to the second.
TAKE: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local each, burst, backlog, units = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local rest = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local wait = rest - (burst - units) * each - now
if wait > backlog * each then return -1 end
rest = rest + units * each
redis.call('SET', KEYS[1], string.format('%.0f', rest), 'PX', math.ceil((rest - now) / 1000) + 1000)
return math.max(math.ceil(wait), 0)
"""
ADD: Final = """
local n = redis.call('INCRBYFLOAT', KEYS[1], ARGV[1])
if tonumber(ARGV[2]) > 0 and redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return n
"""


class Unreachable(OSError):
    """A store does not answer."""


class Remote:
    """One store, as this worker speaks to it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        secure: dict[str, Any] = (
            {"connection_class": SSLConnection, "ssl_ca_data": store.authorities or None} if store.tls else {}
        )
        # Who finds all connections in use waits for one, rather than take the store for one that is gone.
        pool = BlockingConnectionPool(
            host=store.host,
            port=store.port,
            db=store.database,
            username=store.username or None,
            password=store.password or None,
            socket_timeout=store.seconds,
            socket_connect_timeout=store.seconds,
            max_connections=CONNECTIONS,
            timeout=store.seconds,
            retry=Retry(NoBackoff(), 1),  # a connection that the store has closed is made again, at once
            client_name="fsm-gateway",
            **secure,
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._take = self._client.register_script(TAKE)
        self._add = self._client.register_script(ADD)
        self._rests_until = 0.0
        self._why = ""

    def operations(self, name: str, here: Callable[[Operation], Answer]) -> Callable[[Operation], Answer]:
        """Operations of the filter of this name; `here` does what is no matter of several replicas."""

        def do(operation: Operation) -> Answer:
            if operation.kind in ("hold", "release"):  # of connections and requests that this data plane has
                return here(operation)
            return asyncio.ensure_future(self._try(f"fsm:{name}:{operation.key}", operation))

        return do

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def _try(self, key: str, operation: Operation) -> Any:
        if monotonic() < self._rests_until:
            raise Unreachable(f"{self._store.host}:{self._store.port} cannot be reached ({self._why})")
        try:
            async with asyncio.timeout(self._store.seconds):
                return await self._perform(key, operation)
        except (RedisError, OSError, TimeoutError) as error:
            self._why = str(error) or f"no answer within {self._store.seconds:g} s"
            if monotonic() >= self._rests_until:
                log.error("store %s:%d: %s", self._store.host, self._store.port, self._why)
            self._rests_until = monotonic() + REST
            raise Unreachable(f"{self._store.host}:{self._store.port}: {self._why}") from None

    async def _perform(self, key: str, operation: Operation) -> Any:
        client = self._client
        match operation.kind:
            case "take":
                arguments = [operation.amount * 1e6, operation.burst, operation.backlog, operation.units]
                wait = int(await self._take(keys=[key + operation.pace.decode()], args=arguments))
                return wait / 1e6 if wait >= 0 else None
            case "add":
                return float(await self._add(keys=[key], args=[operation.amount, int(operation.seconds * 1000)]))
            case "count":
                return float(await client.get(key) or 0)
            case "get":
                return await client.get(f"{key}:value")
            case "set":
                return await client.set(f"{key}:value", operation.value, px=int(operation.seconds * 1000) or None) and None
            case "drop":
                return await client.delete(key, f"{key}:value") and None
