"""Shared by all replicas: kept in a Redis or a Valkey.

One that cannot be reached is not asked again for a moment: who asks meanwhile is told so at once, so that requests do
not queue up behind it. A store is believed in the numbers that it keeps, and in nothing else: what is no answer to the
question, too long or too late counts as no answer, and it sends nobody elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import redis.asyncio
from redis._parsers.resp2 import _AsyncRESP2Parser
from redis.asyncio.connection import BlockingConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, InvalidResponse  # noqa: A004

from gateway.base.logs import plain
from gateway.filters.api.shared_state import Operation, SharedAnswer
from gateway.scripting.shared_state.memory import MAX_VALUE_BYTES
from gateway.snapshot import Store

log = logging.getLogger("fsm.shared")
REST: Final = 1.0  # seconds that a store which failed is left alone
CONNECTIONS: Final = 32
LONGEST_KEY: Final = 256  # octets of what a filter calls something; longer ones go by their digest

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


class Answers(_AsyncRESP2Parser):
    """Reads what a store answers us: one number, text or value, and no longer than a value that we keep there.

    RESP2 knows no messages that nobody asked for; in RESP3 a store could tell the library to connect elsewhere.
    """

    async def _read_response(self, disable_decoding: bool = False) -> Any:
        line = await self._readline()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            error = self.parse_error(rest.decode("utf-8", errors="replace"))  # type: ignore[no-untyped-call]
            if isinstance(error, ConnectionError):  # the library raises others itself
                raise error
            return error
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"$":
            length = int(rest)
            if -1 <= length <= MAX_VALUE_BYTES:
                return None if length < 0 else await self._read(length)
        raise InvalidResponse(f"not an answer: {plain(line.decode(errors='replace'), 60)}")


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
            protocol=2,
            parser_class=Answers,
            **secure,
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._take = self._client.register_script(TAKE)
        self._add = self._client.register_script(ADD)
        self._rests_until = 0.0
        self._why = ""

    def operations(self, name: str, here: Callable[[Operation], SharedAnswer]) -> Callable[[Operation], SharedAnswer]:
        """Operations of the filter of this name; `here` does what is no matter of several replicas."""

        def do(operation: Operation) -> SharedAnswer:
            if operation.kind in ("hold", "release"):  # of connections and requests that this data plane has
                return here(operation)
            return asyncio.ensure_future(self._try(_key(name, operation), operation))

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
        except Exception as error:  # whatever a library makes of whatever a store says
            self._why = self._said(error) or f"no answer within {self._store.seconds:g} s"
            if monotonic() >= self._rests_until:
                log.error("store %s:%d: %s", self._store.host, self._store.port, self._why)
            self._rests_until = monotonic() + REST
            raise Unreachable(f"{self._store.host}:{self._store.port}: {self._why}") from None

    def _said(self, error: Exception) -> str:
        """An error in words that may stand in a log: a store may say anything, the password that it was given for instance."""
        text = str(error)
        return plain(text.replace(self._store.password, "…") if self._store.password else text, 200)

    async def _perform(self, key: str, operation: Operation) -> Any:
        client = self._client
        match operation.kind:
            case "take":
                arguments = [operation.amount * 1e6, operation.burst, operation.backlog, operation.units]
                wait = _number(await self._take(keys=[key], args=arguments))
                if wait > operation.backlog * operation.amount * 1e6 + 1:
                    raise InvalidResponse(f"a turn in {wait / 1e6:g} s was not asked for")
                return wait / 1e6 if wait >= 0 else None
            case "add":
                return _number(await self._add(keys=[key], args=[operation.amount, int(operation.seconds * 1000)]))
            case "count":
                return _number(await client.get(key) or 0)
            case "get":
                value = await client.get(key)
                if value is not None and not isinstance(value, bytes):
                    raise InvalidResponse("not a value")
                return value
            case "set":
                if await client.set(key, operation.value, px=int(operation.seconds * 1000) or None) is not True:
                    raise InvalidResponse("not kept")
            case "drop":
                _number(await client.delete(key, _key_of_value(key)))
        return None


def _key(name: str, operation: Operation) -> str:
    """Where something is kept: what a filter, or a client, calls it is last, so that nothing in it reaches anything else."""
    called = operation.key.encode()
    if len(called) > LONGEST_KEY:
        called = b"#" + hashlib.sha256(called).hexdigest().encode()
    match operation.kind:
        case "take":
            kind = f"take {operation.pace.decode()}"
        case "get" | "set":
            kind = "value"
        case _:
            kind = "count"
    return f"fsm:{name}:{kind}:{called.decode()}"


def _key_of_value(key: str) -> str:
    return key.replace(":count:", ":value:", 1)


def _number(reply: Any) -> float:
    """A finite number, as a store says it."""
    number = float(reply) if isinstance(reply, int | bytes) else math.nan
    if not math.isfinite(number):
        raise InvalidResponse("not a number")
    return number
