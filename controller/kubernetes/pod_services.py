"""The Services by which Kubernetes finds the pods of XBackends: made, kept in step, and removed where nobody asks for them.

`Pods` says what there is and what there should be, anew with each change of either; what goes with its XBackend is removed by
its owner. The API server chooses the names (generateName), so a Service that was made and not seen yet is remembered.
"""

from __future__ import annotations

import logging

from controller.deploy import manifests
from controller.kubernetes.api import Api, path
from controller.kubernetes.upkeep import Upkeep
from controller.objects.base import Ref
from controller.translate.xbackends import Pods

log = logging.getLogger("fsm.infrastructure")


class PodServiceWriter:
    """Follows the XBackends while it leads."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._wanted: dict[Ref, Pods] = {}
        self._made: dict[Ref, str] = {}  # names of Services that may not have been seen yet
        self._upkeep = Upkeep(self._keep, lambda xbackend: f"the Service that finds the pods of {xbackend}", log)

    def want(self, xbackend: Ref, pods: Pods | None) -> None:
        """What should be there for an XBackend, and what is."""
        if pods is None:
            self._wanted.pop(xbackend, None)
            self._made.pop(xbackend, None)
            return
        self._wanted[xbackend] = pods
        self._upkeep.start(xbackend)

    def lead(self, leading: bool) -> None:
        """Start or stop making."""
        self._upkeep.leading = leading
        for xbackend in self._wanted:
            self._upkeep.start(xbackend)

    async def stop(self) -> None:
        """End what is under way."""
        await self._upkeep.stop()

    async def _keep(self, xbackend: Ref) -> None:
        pods = self._wanted.get(xbackend)
        if pods is None:
            return
        if not pods.standing:
            if pods.wanted is not None and not await self._is_made(xbackend):
                made = manifests.pod_service(xbackend, pods.uid, pods.wanted)
                self._made[xbackend] = (await self._api.create(path("v1", "services", xbackend.namespace), made))["metadata"][
                    "name"
                ]
            return
        kept = pods.standing[0][0] if pods.wanted is not None else ""
        for name, stands in pods.standing:
            where = path("v1", "services", xbackend.namespace, name)
            if name != kept:
                await self._api.delete(where)
            elif pods.wanted is not None and stands != pods.wanted:
                change = manifests.pod_service_change(pods.wanted, (label for label, _ in stands.selector))
                await self._api.merge(where, change)

    async def _is_made(self, xbackend: Ref) -> bool:
        """Whether there is one that we have not been told of yet."""
        name = self._made.get(xbackend)
        return name is not None and await self._api.find(path("v1", "services", xbackend.namespace, name)) is not None
