"""Tell beside an object what no status of it can say: that it cannot be read, or that our own code fails at it.

An Event is named by what it says, so that it is written once, whichever replica leads and however often it starts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from controller.kubernetes.api import Api, ApiError, path
from controller.objects.base import CONTROLLER, Ref
from controller.objects.kinds import KINDS
from controller.state.problems import ObjectProblem

log = logging.getLogger("fsm.events")

WAITING: Final = 1000  # that are told at most, where the API server takes none
MAX_MESSAGE_CHARS: Final = 1024  # characters of a message, as Events have room for


class Events:
    """The Events that say what no status can. Written by the replica that leads."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._queue: asyncio.Queue[ObjectProblem] = asyncio.Queue(WAITING)
        self._leading = False
        self.identities: dict[Ref, str] = {}  # the uid of each object

    def tell(self, problem: ObjectProblem) -> None:
        """Something is wrong with an object."""
        log.error("%s: %s", problem.reason, problem)
        if self._leading and not self._queue.full():
            self._queue.put_nowait(problem)

    def lead(self, leading: bool, known: Iterable[ObjectProblem]) -> None:
        """Start or stop writing."""
        self._leading = leading
        for problem in known if leading else ():
            if not self._queue.full():
                self._queue.put_nowait(problem)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            problem = await self._queue.get()
            body = event(problem, self.identities.get(problem.about, ""), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            try:
                await self._api.create(path("v1", "events", body["metadata"]["namespace"]), body)
            except ApiError as error:
                if error.status != 409:  # 409: it has been told
                    log.warning("an Event for %s cannot be written: %s", problem.about, error)
            except Exception:
                log.exception("an Event for %s", problem.about)


def event(problem: ObjectProblem, uid: str, now: str) -> dict[str, Any]:
    """The Event for a problem."""
    about = problem.about
    kind = KINDS.get(about.kind)
    digest = hashlib.sha256(f"{uid}{problem}".encode()).hexdigest()[:16]
    namespace = about.namespace or "default"  # where kubectl looks for Events of what has no namespace
    involved = {"kind": about.kind, "name": about.name, "apiVersion": kind.api_versions[0] if kind else ""}
    involved |= {key: value for key, value in (("namespace", about.namespace), ("uid", uid)) if value}
    message = f"{problem.part}: {problem.message}" if problem.part else problem.message
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name[:230].rstrip('.-')}.{digest}", "namespace": namespace},
        "involvedObject": involved,
        "reason": problem.reason,
        "message": message[:MAX_MESSAGE_CHARS],
        "type": "Warning",
        "source": {"component": CONTROLLER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
