"""Make what must run for a Gateway, by server-side apply; what goes is removed by its owner or by its labels."""

from __future__ import annotations

import logging

from controller.deploy import manifests
from controller.deploy.manifests import DeploymentSettings, Json
from controller.kubernetes.api import Api, path
from controller.kubernetes.upkeep import Upkeep
from controller.translate import GatewayName
from controller.translate.gateways.gateways import Running

log = logging.getLogger("fsm.infrastructure")

PLURALS = {
    "ServiceAccount": "serviceaccounts", "Deployment": "deployments", "Service": "services",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers", "PodDisruptionBudget": "poddisruptionbudgets",
}  # fmt: skip


def path_of(obj: Json) -> str:
    """Where an object made here lies."""
    meta = obj["metadata"]
    return path(obj["apiVersion"], PLURALS[obj["kind"]], meta["namespace"], meta["name"])


class InfrastructureWriter:
    """Follows the Gateways while it leads."""

    def __init__(self, api: Api, settings: DeploymentSettings) -> None:
        self._api = api
        self._settings = settings
        self._wanted: dict[GatewayName, Running] = {}
        self._leaving: dict[GatewayName, Running] = {}  # not ours any more, and not yet removed
        self._upkeep = Upkeep(self._keep, lambda name: f"what runs for Gateway {'/'.join(name)}", log)

    def want(self, name: GatewayName, gateway: Running | None) -> None:
        """A Gateway is ours as it is now, or not ours any more."""
        before = self._wanted.pop(name, None)
        if gateway is not None:
            self._wanted[name] = gateway
            self._leaving.pop(name, None)
        elif before is not None and self._upkeep.leading:
            self._leaving[name] = before
        if before is not None or gateway is not None:
            self._upkeep.start(name)

    def repair(self, name: GatewayName) -> None:
        """Something of a Gateway's was changed or removed by somebody else."""
        if name in self._wanted:
            self._upkeep.start(name)

    def lead(self, leading: bool) -> None:
        """Start or stop making."""
        self._upkeep.leading = leading
        for name in self._wanted:
            self._upkeep.start(name)

    async def stop(self) -> None:
        """End what is under way."""
        await self._upkeep.stop()

    async def _keep(self, name: GatewayName) -> None:
        gateway = self._wanted.get(name)
        if gateway is not None:
            await self._make(gateway)
        elif name in self._leaving:
            await self._remove(self._leaving[name])
            self._leaving.pop(name, None)

    async def _make(self, gateway: Running) -> None:
        objects = manifests.for_gateway(gateway, self._settings)
        for obj in objects:
            await self._api.apply(path_of(obj), obj)
        kinds = {obj["kind"] for obj in objects}
        for obj in manifests.optional(gateway.gateway):
            if obj["kind"] not in kinds:
                await self._delete_ours(obj, gateway)

    async def _delete_ours(self, obj: Json, gateway: Running) -> None:
        existing = await self._api.find(path_of(obj))
        owners = existing["metadata"].get("ownerReferences", []) if existing else []
        if any(owner.get("uid") == gateway.gateway.metadata.uid for owner in owners):
            await self._api.delete(path_of(obj), propagationPolicy="Background")

    async def _remove(self, gateway: Running) -> None:
        """A Gateway that is gone takes its own along (ownerReferences); one that left our class does not."""
        for obj in manifests.for_gateway(gateway, self._settings):
            await self._delete_ours(obj, gateway)
