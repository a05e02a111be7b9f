"""The loop: what changed in the world → what goes to the data planes, what is said of it, what must run for it.

Work arrives in batches because we were busy; there is no timer to tune. The only one there is ends a wait of
the barrier.

No object ends the loop. Values are guarded one by one (`memo.py`), so that what our code fails at is one object's; what
breaks a round all the same is found among what had changed, and set aside, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from controller.delivery.barrier import Barrier
from controller.objects.base import Ref
from controller.objects.kinds import AnyObject
from controller.state.problems import FAILING, Problems
from controller.state.world import World
from controller.translate import GatewayName, Translator, Update
from controller.translate.gateways.gateways import Running
from controller.translate.shared.status import Status
from controller.translate.xbackends import Pods
from gateway import snapshot
from gateway.snapshot import Change, Key, Part, Parts

log = logging.getLogger("fsm.loop")


class Sink(Protocol):
    """Where the results go."""

    async def publish(self, gateway: GatewayName, change: Change) -> None:
        """Bring a Gateway's data planes forward."""

    async def write(self, statuses: dict[Ref, Status | None]) -> None:
        """Say what is to be said."""

    async def follow(self, gateways: dict[GatewayName, Running | None]) -> None:
        """Make what must run for a Gateway, or remove it."""

    async def look_for(self, pods: dict[Ref, Pods | None]) -> None:
        """Have the pods of XBackends found, or no more."""


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
            try:
                print_ = snapshot.fingerprint(part) if part is not None else 0
            except (TypeError, ValueError, OverflowError, UnicodeError):
                log.exception("%s %s cannot be sent; what stood before it stays", *key)
                continue
            self._sum -= self._prints.pop(key, 0)
            if part is None:
                if self.parts.pop(key, None) is not None:
                    drop.append(key)
                continue
            self.parts[key] = part
            self._prints[key] = print_
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
    """The controller's loop: changes in, parts and statuses out."""

    def __init__(
        self,
        world: World,
        sink: Sink,
        *,
        before: Callable[[], Awaitable[None]] | None = None,
        after: Callable[[], Awaitable[None]] | None = None,  # a round that has left nothing to do
    ) -> None:
        self.world = world
        self.translator = Translator(world)
        self.publications: dict[GatewayName, Publication] = {}
        self.problems = Problems()
        self._failing: set[Ref] = set()
        self._aside: dict[Ref, AnyObject] = {}  # objects that broke a round
        self._sink = sink
        self._before = before
        self._after = after
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
            await self._kept_going(self._before())
        update = self._translated()
        self._name_failing()
        if update.gateways:
            await self._kept_going(self._sink.follow(update.gateways))
        if update.pods:
            await self._kept_going(self._sink.look_for(update.pods))
        for gateway in sorted(update.parts.keys() | self._waiting()):
            await self._kept_going(self._publish(gateway, update.parts.get(gateway, {})))
        if update.statuses:
            await self._kept_going(self._sink.write(update.statuses))
        self._set_alarm()
        if self.world.changed:
            self.wake()
        if self._after is not None and not self._awake.is_set():
            await self._kept_going(self._after())

    async def _kept_going(self, work: Awaitable[None]) -> None:
        """A step of a round, of which a fault of our own keeps no other from being taken."""
        try:
            await work
        except Exception:
            self.problems.rounds_failed += 1
            log.exception("a step of a round failed; the others go on")

    def _translated(self) -> Update:
        """What a batch came to, whatever is in it."""
        batch = {key[1] for key in self.world.changed if key[0] == "object"}
        try:
            return self.translator.update()
        except Exception:
            self.problems.rounds_failed += 1
            log.exception("a round failed; what broke it is looked for among %d objects", len(batch))
            return self._started_over(batch)

    def _started_over(self, batch: set[Ref]) -> Update:
        """A translation from nothing, without those objects of a batch that break it."""
        taken = {ref: obj for ref in sorted(batch) if (obj := self.world.read(("object", ref))) is not None}
        for ref in taken:
            self.world.drop(ref)
        fresh = _fresh(self.world)
        if fresh is None:  # nothing of the batch is to blame: what stands stays
            for obj in taken.values():
                self.world.put(obj)
            self.world.changed.clear()
            return Update({}, {}, {}, {})
        for ref in self._culprits(list(taken), taken):
            self._aside[ref] = taken[ref]
            self.problems.note(FAILING, ref, [("", "it breaks the controller's loop and is set aside; please report this")])
        fresh = _fresh(self.world) or fresh
        self.world.changed.clear()
        old, self.translator = self.translator, fresh
        for barrier in self._barriers.values():
            barrier.is_fresh = fresh.is_fresh
        return self._differences(old, fresh)

    def _differences(self, old: Translator, new: Translator) -> Update:
        """What is to be said and sent now: of the old one's results nobody knows how many were."""
        parts: dict[GatewayName, dict[Key, Part | None]] = {}
        for gateway in self.publications.keys() | new.parts.keys():
            sent = self.publications.get(gateway)
            before, after = sent.parts if sent is not None else {}, new.parts.get(gateway, {})
            parts[gateway] = {key: after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        statuses: dict[Ref, Status | None] = {**dict.fromkeys(old.statuses), **new.statuses}
        # What runs for a Gateway is not taken away because something broke a round.
        return Update(parts, statuses, dict(new.gateways), dict(new.pods))

    def _culprits(self, refs: list[Ref], taken: dict[Ref, AnyObject]) -> list[Ref]:
        """Put objects back; returns those with which nothing can be translated."""
        for ref in refs:
            self.world.put(taken[ref])
        if _fresh(self.world) is not None:
            return []
        for ref in refs:
            self.world.drop(ref)
        if len(refs) == 1:
            return refs
        half = len(refs) // 2
        return self._culprits(refs[:half], taken) + self._culprits(refs[half:], taken)

    def _name_failing(self) -> None:
        """Objects at which our own code fails, and those at which it does no more."""
        failing = self.translator.failing()
        for ref in self._failing - failing.keys():
            self.problems.note(FAILING, ref, ())
        for ref in [ref for ref in self._aside if self.world.read(("object", ref)) is not None]:
            del self._aside[ref]  # it has changed, and come back
            self.problems.note(FAILING, ref, ())
        for ref, faults in failing.items():
            self.problems.note(FAILING, ref, faults)
        self._failing = set(failing)

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


def _fresh(world: World) -> Translator | None:
    """A translator that has seen everything; None where that fails."""
    translator = Translator(world)
    world.changed = {("object", obj.ref) for obj in world}
    try:
        translator.update()
    except Exception:
        return None
    return translator
