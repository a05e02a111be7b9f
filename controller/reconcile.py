"""The loop: what changed in the world → what goes to the data planes, what is said of it, what must run for it.

Work arrives in batches because we were busy; there is no timer to tune. The only one there is ends a wait of
the barrier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from controller.barrier import Barrier
from controller.objects import Ref
from controller.translate import GatewayName, Translator
from controller.translate.gateways import Running
from controller.translate.status import Status
from controller.world import World
from gateway import snapshot
from gateway.snapshot import Change, Key, Part, Parts


class Sink(Protocol):
    """Where the results go."""

    async def publish(self, gateway: GatewayName, change: Change) -> None:
        """Bring a Gateway's data planes forward."""

    async def write(self, statuses: dict[Ref, Status | None]) -> None:
        """Say what is to be said."""

    async def follow(self, gateways: dict[GatewayName, Running | None]) -> None:
        """Make what must run for a Gateway, or remove it."""


@dataclass
class Publication:
    """What a Gateway's data planes have been told: its parts, and the digest that names them."""

    parts: Parts = field(default_factory=dict)
    version: str = field(default_factory=lambda: snapshot.digest(()))
    _prints: dict[Key, int] = field(default_factory=dict)
    _sum: int = 0

    def advance(self, changes: dict[Key, Part | None]) -> Change:
        """Apply changes; returns them in the order in which a data plane should take them."""
        put: list[Part] = []
        drop: list[Key] = []
        for key, part in changes.items():
            self._sum -= self._prints.pop(key, 0)
            if part is None:
                if self.parts.pop(key, None) is not None:
                    drop.append(key)
                continue
            self.parts[key] = part
            self._prints[key] = snapshot.fingerprint(part)
            self._sum += self._prints[key]
            put.append(part)
        put.sort(key=lambda part: snapshot.RANK[snapshot.key(part)[0]])
        self.version = snapshot.digest([self._sum])
        return Change(self.version, tuple(put), tuple(drop))

    def whole(self) -> Change:
        """Everything, for a data plane that knows nothing."""
        put = sorted(self.parts.values(), key=lambda part: snapshot.RANK[snapshot.key(part)[0]])
        return Change(self.version, tuple(put), reset=True)


class Reconciler:
    """See the module."""

    def __init__(self, world: World, sink: Sink, *, before: Callable[[], Awaitable[None]] | None = None) -> None:
        self.world = world
        self.translator = Translator(world)
        self.publications: dict[GatewayName, Publication] = {}
        self._sink = sink
        self._before = before
        self._barriers: dict[GatewayName, Barrier] = {}
        self._awake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._settling: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Something has changed."""
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            await self.round()
            if not self._awake.is_set():
                settling, self._settling = self._settling, []
                for waiting in settling:
                    if not waiting.done():
                        waiting.set_result(None)

    async def settled(self) -> None:
        """Until all that has happened by now is in force or refused, and said."""
        self._settling.append(waiting := asyncio.get_running_loop().create_future())
        self.wake()
        await waiting

    async def round(self) -> None:
        """One batch."""
        if self._before is not None:
            await self._before()
        update = self.translator.update()
        if update.gateways:
            await self._sink.follow(update.gateways)
        for gateway in sorted(update.parts.keys() | self._waiting()):
            await self._publish(gateway, update.parts.get(gateway, {}))
        if update.statuses:
            await self._sink.write(update.statuses)
        self._set_alarm()
        if self.world.changed:
            self.wake()

    async def _publish(self, gateway: GatewayName, changes: dict[Key, Part | None]) -> None:
        barrier = self._barriers.get(gateway)
        if barrier is None:
            barrier = self._barriers[gateway] = Barrier(self.translator.is_fresh)
        wanted = self.translator.parts.get(gateway, {})
        released = barrier.filter(changes, wanted, asyncio.get_running_loop().time())
        if released:
            publication = self.publications.setdefault(gateway, Publication())
            await self._sink.publish(gateway, publication.advance(released))

    def _waiting(self) -> set[GatewayName]:
        return {gateway for gateway, barrier in self._barriers.items() if barrier.deadline is not None}

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        deadlines = [deadline for barrier in self._barriers.values() if (deadline := barrier.deadline) is not None]
        if deadlines:
            self._alarm = asyncio.get_running_loop().call_at(min(deadlines), self.wake)
