"""Make what must run for a Gateway, by server-side apply; what goes is removed by its owner or by its labels."""

from __future__ import annotations

import asyncio
import logging

from controller.deploy import manifests
from controller.deploy.manifests import DeploymentSettings, Json
from controller.kubernetes.api import Api, ApiError, path
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
    """Follows the Gateways while `leading`; one task for each Gateway that has work."""

    def __init__(self, api: Api, settings: DeploymentSettings) -> None:
        self._api = api
        self._settings = settings
        self._wanted: dict[GatewayName, Running] = {}
        self._tasks: dict[GatewayName, asyncio.Task[None]] = {}
        self._again: set[GatewayName] = set()
        self._leading = False

    def want(self, name: GatewayName, gateway: Running | None) -> None:
        """A Gateway is ours as it is now, or not ours any more."""
        before = self._wanted.pop(name, None)
        if gateway is not None:
            self._wanted[name] = gateway
        if before is not None or gateway is not None:
            self._start(name, before)

    def repair(self, name: GatewayName) -> None:
        """Something of a Gateway's was changed or removed by somebody else."""
        if name in self._wanted:
            self._start(name, None)

    def lead(self, leading: bool) -> None:
        """Start or stop making."""
        self._leading = leading
        if leading:
            for name in self._wanted:
                self._start(name, None)

    async def stop(self) -> None:
        """End what is under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, name: GatewayName, before: Running | None) -> None:
        if not self._leading:
            return
        if name in self._tasks:
            self._again.add(name)
            return
        self._tasks[name] = asyncio.create_task(self._run(name, before))

    async def _run(self, name: GatewayName, before: Running | None) -> None:
        attempt = 0
        try:
            while True:
                self._again.discard(name)
                gateway = self._wanted.get(name)
                try:
                    if gateway is not None:
                        await self._make(gateway)
                    elif before is not None:
                        await self._remove(before)
                except ApiError as error:
                    attempt += 1
                    log.warning("what runs for Gateway %s/%s: %s", *name, error)
                    await asyncio.sleep(error.retry_after or min(0.2 * 2**attempt, 30))
                    continue
                except Exception:  # of our own: it stays this Gateway's
                    attempt += 1
                    log.exception("what runs for Gateway %s/%s", *name)
                    await asyncio.sleep(min(0.2 * 2**attempt, 30))
                    continue
                attempt = 0
                if name not in self._again:
                    return
        finally:
            self._tasks.pop(name, None)

    async def _make(self, gateway: Running) -> None:
        made = manifests.for_gateway(gateway, self._settings)
        for obj in made:
            await self._api.apply(path_of(obj), obj)
        kinds = {obj["kind"] for obj in made}
        for obj in manifests.optional(gateway.gateway):
            if obj["kind"] not in kinds:
                await self._delete_ours(obj, gateway)

    async def _delete_ours(self, obj: Json, gateway: Running) -> None:
        found = await self._api.find(path_of(obj))
        owners = found["metadata"].get("ownerReferences", []) if found else []
        if any(owner.get("uid") == gateway.gateway.metadata.uid for owner in owners):
            await self._api.delete(path_of(obj), propagationPolicy="Background")

    async def _remove(self, gateway: Running) -> None:
        """A Gateway that is gone takes its own along (ownerReferences); one that left our class does not."""
        for obj in manifests.for_gateway(gateway, self._settings):
            await self._delete_ours(obj, gateway)
