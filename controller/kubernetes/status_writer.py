"""Write statuses: only what differs from what stands, only our own entries, stamped as they are written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from controller.kubernetes.api import Api, ApiError, path_of
from controller.kubernetes.watch import Stored
from controller.objects.base import CONTROLLER, Ref
from controller.objects.gateways import GatewayAddress, RouteKind
from controller.objects.kinds import KINDS
from controller.translate.shared.ancestors import MAX_ANCESTORS, MAX_OF_BACKENDS
from controller.translate.shared.conditions import Condition
from controller.translate.shared.status import (
    BackendStatus,
    ClassStatus,
    ExtensionStatus,
    GatewayStatus,
    ListenerSetStatus,
    PolicyStatus,
    RouteStatus,
    Status,
)
from gateway.base.durations import backoff

log = logging.getLogger("fsm.status")

# Seconds between two writes of one object: somebody who reads, changes and writes it (the Argo Rollouts plugin
# tries five times, 10 ms apart) must find a gap.
APART: Final = 0.1
MAX_RETRY_SECONDS: Final = 60.0  # seconds until a status that is refused is tried again
WRITERS: Final = 8
MAX_PARENTS: Final = 32  # entries that RouteStatus has room for: as many as parentRefs, to which default Gateways come

# The types of conditions that are ours to take away.
OURS: Final = frozenset((
    "Accepted", "Programmed", "ResolvedRefs", "Conflicted", "PartiallyInvalid", "SupportedVersion", "OverlappingTLSConfig",
    "InsecureFrontendValidationMode", "FailingClosed", "DefaultGateway",
))  # fmt: skip

Json = dict[str, Any]


class StatusWriter:
    """Keeps what should be said, and writes it while `leading`."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._wanted: dict[Ref, Status | None] = {}
        self._stored: dict[Ref, Stored] = {}
        self._queue: asyncio.Queue[Ref] = asyncio.Queue()
        self._queued: set[Ref] = set()
        self._last: dict[Ref, float] = {}
        self._refused: dict[Ref, int] = {}  # how often in a row it could not be written
        self.leading = False
        self.writes = 0

    def want(self, ref: Ref, status: Status | None) -> None:
        """What should be said of an object from now on."""
        self._refused.pop(ref, None)
        self._wanted[ref] = status
        self._push(ref)

    def seen(self, ref: Ref, stored: Stored) -> None:
        """What stands now; if it is not what should stand, it is written (somebody may have removed it)."""
        self._stored[ref] = stored
        if ref in self._wanted:
            self._push(ref)

    def gone(self, ref: Ref) -> None:
        """The object is no more."""
        self._stored.pop(ref, None)
        self._wanted.pop(ref, None)
        self._last.pop(ref, None)
        self._refused.pop(ref, None)

    def lead(self, leading: bool) -> None:
        """Start or stop writing."""
        self.leading = leading
        if leading:
            for ref in self._wanted:
                self._push(ref)

    def was_programmed(self, ref: Ref) -> bool:
        """Whether the stored status of a Gateway says Programmed: data planes may run that we have not met yet."""
        stored = self._stored.get(ref)
        conditions = _entries(_status(stored), "conditions") if stored else []
        return any(c.get("type") == "Programmed" and c.get("status") == "True" for c in conditions)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(self._write_all())

    def _push(self, ref: Ref) -> None:
        if ref not in self._queued:
            self._queued.add(ref)
            self._queue.put_nowait(ref)

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ref = await self._queue.get()
            pause = self._last.get(ref, 0.0) + APART - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            self._queued.discard(ref)
            if not self.leading or ref not in self._wanted:
                continue
            try:
                await self._write(ref)
                self._refused.pop(ref, None)
            except ApiError as error:
                if error.status == 409:
                    self._last[ref] = loop.time()
                    loop.call_later(error.retry_after or APART, self._push, ref)
                elif error.status != 404:
                    self._later(ref, error, error.retry_after)
            except Exception as error:  # what stands is odder than we know how to add to: it must not keep others from theirs
                self._later(ref, error)

    def _later(self, ref: Ref, error: Exception, after: float = 0.0) -> None:
        """Try again, each time later: what a schema or a webhook refuses once it will refuse again."""
        loop = asyncio.get_running_loop()
        times = self._refused[ref] = self._refused.get(ref, 0) + 1
        if times & (times - 1) == 0:
            log.warning(
                "status of %s cannot be written (%d times): %s", ref, times, error, exc_info=not isinstance(error, ApiError)
            )
        self._last[ref] = loop.time()
        loop.call_later(after or backoff(APART, times, MAX_RETRY_SECONDS), self._push, ref)

    async def _write(self, ref: Ref) -> None:
        stored = self._stored.get(ref)
        if stored is None:
            return
        status = self._wanted.get(ref)
        before = _status(stored)
        body = merged(before, status, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        if body == before:
            return
        generation = getattr(status, "generation", stored.metadata.generation)
        if generation < stored.metadata.generation:
            return  # an answer to an older question; the newer one is being worked out
        patch: Json = {
            "metadata": {"resourceVersion": stored.metadata.resource_version},
            "status": _patch(before, body),
        }
        status_path = path_of(KINDS[ref.kind], ref, "status")
        try:
            answer = await self._api.merge(status_path, patch)
        except ApiError as error:
            if error.status == 409:
                answer = await self._api.get(path_of(KINDS[ref.kind], ref))
                self._stored[ref] = msgspec.convert(answer, Stored)
            raise
        self.writes += 1
        self._last[ref] = asyncio.get_running_loop().time()
        self._stored[ref] = msgspec.convert(answer, Stored)


def _status(stored: Stored) -> Json:
    return stored.status if isinstance(stored.status, dict) else {}


def _entries(before: Json, name: str) -> list[Json]:
    """The entries of a list that are what they should be: others may have written anything."""
    given = before.get(name)
    return [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []


def _patch(before: Json, after: Json) -> Json:
    """A merge patch: what is new, and null for what goes."""
    patch = {k: v for k, v in after.items() if before.get(k) != v}
    return patch | {k: None for k in before if k not in after}


# --- the status as Kubernetes has it ----------------------------------------------------------------------


def merged(before: Json, status: Status | None, now: str) -> Json:
    """What should stand, given what stands: other people's entries as they are, ours as they should be."""
    match status:
        case ClassStatus():
            features = [{"name": name} for name in status.features]
            return {**before, **_said(before, status.conditions, status.generation, now), "supportedFeatures": features}
        case GatewayStatus():
            return {
                **before,
                **_said(before, status.conditions, status.generation, now),
                "addresses": [_address(address) for address in status.addresses],
                "listeners": [_listener(before, listener, status.generation, now) for listener in status.listeners],
                "attachedListenerSets": status.attached_sets,
            }
        case ListenerSetStatus():
            return {
                **before,
                **_said(before, status.conditions, status.generation, now),
                "listeners": [_listener(before, listener, status.generation, now) for listener in status.listeners],
            }
        case ExtensionStatus():
            fields = {**before, **_said(before, status.conditions, status.generation, now)}
            return {**fields, **_ancestors(before, status, now)} if status.ancestors or "ancestors" in before else fields
        case PolicyStatus():
            return {**before, **_ancestors(before, status, now)}
        case RouteStatus():
            entries = []
            for parent in status.parents:
                ref = _without_nones(msgspec.to_builtins(parent.parent))
                old = next((p for p in _ours(before, "parents") if p.get("parentRef") == ref), {})
                fields = _said(old, parent.conditions, status.generation, now)
                entries.append({"parentRef": ref, "controllerName": CONTROLLER, **fields})
            return {**before, "parents": (_others(before, "parents") + entries)[:MAX_PARENTS]}
        case None:
            return {**before, **{name: _others(before, name) for name in ("parents", "ancestors") if name in before}}


def _ancestors(before: Json, status: PolicyStatus | ExtensionStatus, now: str) -> Json:
    entries = []
    for ancestor in status.ancestors:
        namespace, name = ancestor.gateway
        ref = {"group": ancestor.group, "kind": ancestor.kind, "namespace": namespace, "name": name}
        old = next((a for a in _ours(before, "ancestors") if a.get("ancestorRef") == ref), {})
        fields = _said(old, ancestor.conditions, status.generation, now)
        entries.append({"ancestorRef": ref, "controllerName": CONTROLLER, **fields})
    most = MAX_OF_BACKENDS if isinstance(status, BackendStatus) else MAX_ANCESTORS
    return {"ancestors": (_others(before, "ancestors") + entries)[:most]}


def _ours(before: Json, name: str) -> list[Json]:
    return [entry for entry in _entries(before, name) if entry.get("controllerName") == CONTROLLER]


def _others(before: Json, name: str) -> list[Json]:
    return [entry for entry in _entries(before, name) if entry.get("controllerName") != CONTROLLER]


def _said(before: Json, conditions: Iterable[Condition], generation: int, now: str) -> Json:
    """Conditions in the order that they have; foreign types stay, and a time changes only with a status."""
    old = {c["type"]: c for c in _entries(before, "conditions") if isinstance(c.get("type"), str)}
    new = {c.type: _condition(c, old.get(c.type, {}), generation, now) for c in conditions}
    kept = {type_: c for type_, c in old.items() if type_ in new or type_ not in OURS}
    return {"conditions": list({**kept, **new}.values())}


def _condition(condition: Condition, old: Json, generation: int, now: str) -> Json:
    same = old.get("status") == condition.status
    return {
        "lastTransitionTime": old.get("lastTransitionTime", now) if same else now,
        "message": condition.message[:32768],
        "observedGeneration": generation,
        "reason": condition.reason,
        "status": condition.status,
        "type": condition.type,
    }


def _address(address: GatewayAddress) -> Json:
    known = {"type": address.type, "value": address.value}
    return {**known, "routability": address.routability} if address.routability else known


def _listener(before: Json, listener: Any, generation: int, now: str) -> Json:
    old: Json = next((entry for entry in _entries(before, "listeners") if entry.get("name") == listener.name), {})
    return {
        "attachedRoutes": listener.attached,
        **_said(old, listener.conditions, generation, now),
        "name": listener.name,
        "supportedKinds": [_kind(kind) for kind in listener.kinds],
    }


def _kind(kind: RouteKind) -> Json:
    return {"group": kind.group, "kind": kind.kind}


def _without_nones(value: Json) -> Json:
    return {k: v for k, v in value.items() if v is not None}
