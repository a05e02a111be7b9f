"""Whether endpoints answer: asked every so often, or learned from requests that find nobody. Those that do not stand aside.

Each worker asks for itself. An endpoint stands aside after so many failures in a row, and comes back with the first answer
that is as it should be. Without an interval it stands aside for `fail_timeout`, after so many failures within that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from gateway.http import grammar
from gateway.interfaces import Endpoint
from gateway.snapshot import Health
from gateway.transport.dial import DialError, dial
from gateway.upstream.internal_request import Answered, answer_to
from gateway.upstream.load_balancing import EndpointPicker

MAX_ANSWER_BYTES: Final = 65536  # octets of an answer
PATIENCE: Final = 5.0  # seconds to answer, where an interval is not shorter


class Checks:
    """The checks of one backend."""

    def __init__(self, health: Health, endpoints: EndpointPicker[Endpoint]) -> None:
        """Raises ValueError for a path that cannot be asked for."""
        self.health = health
        if health.path:
            grammar.target(health.path)
        self._endpoints = endpoints
        self._fails: dict[Endpoint, int] = {}  # in a row, of those who are asked
        self._refused: dict[Endpoint, list[float]] = {}  # when requests found nobody, of those who are not
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """Check these from now on, and no others."""
        now = set(endpoints)
        for gone in [endpoint for endpoint in self._tasks if endpoint not in now]:
            self._tasks.pop(gone).cancel()
            self._fails.pop(gone, None)
        self._refused = {endpoint: when for endpoint, when in self._refused.items() if endpoint in now}
        if self.health.interval:
            for endpoint in now - self._tasks.keys():
                self._tasks[endpoint] = asyncio.get_running_loop().create_task(self._repeat(endpoint))

    def stop(self) -> None:
        """Check nothing more; everybody takes turns again."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        for endpoint in list(self._endpoints):
            self._endpoints.restore(endpoint)

    def failed(self, endpoint: Endpoint) -> bool:
        """A request found nobody there. Whether that is for the checks to judge: otherwise it stands aside for a moment."""
        if self.health.interval:
            return False
        loop, within = asyncio.get_running_loop(), self.health.fail_timeout
        recent = [when for when in self._refused.get(endpoint, ()) if when > loop.time() - within] + [loop.time()]
        self._refused[endpoint] = recent
        if len(recent) >= self.health.max_fails:
            del self._refused[endpoint]
            self._endpoints.eject(endpoint)
            loop.call_later(within, self._endpoints.restore, endpoint)
        return True

    async def _repeat(self, endpoint: Endpoint) -> None:
        while True:
            if await self._is_well(endpoint):
                self._fails[endpoint] = 0
                self._endpoints.restore(endpoint)
            else:
                self._fails[endpoint] = self._fails.get(endpoint, 0) + 1
                if self._fails[endpoint] >= self.health.max_fails:
                    self._endpoints.eject(endpoint)
            await asyncio.sleep(self.health.interval)

    async def _is_well(self, endpoint: Endpoint) -> bool:
        patience = min(self.health.interval, PATIENCE)
        if not self.health.path:
            return await _accepts(endpoint, patience)
        answer = await _asked(endpoint, self.health.path, patience)
        return isinstance(answer, Answered) and self._fits(answer)

    def _fits(self, answer: Answered) -> bool:
        """Whether an answer is one of those that are meant; 2xx and 3xx where none is said."""
        if not self.health.matches:
            return 200 <= answer.response.status < 400
        fields = {field.name.decode("latin-1"): field.value.decode("latin-1") for field in answer.response.fields}
        return any(
            (not match.statuses or answer.response.status in match.statuses)
            and (not match.body or match.body.encode() in answer.body)
            and all(fields.get(name.lower()) == value for name, value in match.headers)
            for match in self.health.matches
        )


async def _accepts(endpoint: Endpoint, patience: float) -> bool:
    """Whether somebody takes a connection."""
    try:
        transport, _ = await dial(asyncio.Protocol, endpoint.where, None, patience)
    except DialError:
        return False
    transport.close()
    return True


async def _asked(endpoint: Endpoint, path: str, patience: float) -> Answered | str:
    head = f"GET {path} HTTP/1.1\r\nHost: {endpoint.name}\r\nUser-Agent: fsm-gateway\r\n\r\n"
    return await answer_to(head.encode(), endpoint, patience, most=MAX_ANSWER_BYTES)
