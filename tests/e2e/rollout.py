"""Writes to the API server what Argo Rollouts and its Gateway API plugin write during a canary, in their order.

Selectors by patch, pods by ReplicaSet size (Deployments here), weights by GET and full-object PUT, tried five
times at conflicts, 10 ms apart.
"""

from __future__ import annotations

import asyncio

from controller.kubernetes.api import Api, ApiError

ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes/argo-rollouts-http-route"
SERVICES = "/api/v1/namespaces/default/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
HASH = "rollouts-pod-template-hash"
STABLE, CANARY = "argo-rollouts-stable-service", "argo-rollouts-canary-service"
LABEL = "rollouts.argoproj.io/gatewayapi-canary"


class Rollout:
    def __init__(self, api: Api, image: str) -> None:
        self._api = api
        self._image = image
        self.conflicts = 0

    async def create(self, revision: str, version: str, replicas: int) -> None:
        """The pods of one revision; `scale` changes their number."""
        labels = {"app": "rollouts-demo", HASH: revision}
        container = {
            "name": "app",
            "image": self._image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-m", "controller.demo.app", "--host=0.0.0.0", f"--version={version}"],
            "ports": [{"name": "http", "containerPort": 8080}],
            # Patient: many pods start at once on few cores, and one that is slow to answer is not gone.
            "readinessProbe": {
                "httpGet": {"path": "/", "port": "http"},
                "periodSeconds": 1,
                "timeoutSeconds": 5,
                "failureThreshold": 5,
            },
        }
        await self._api.apply(
            f"{DEPLOYMENTS}/rollouts-demo-{revision}",
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": f"rollouts-demo-{revision}"},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            },
        )
        await self.wait_available(revision, replicas)

    async def scale(self, revision: str, replicas: int) -> None:
        await self._api.merge(f"{DEPLOYMENTS}/rollouts-demo-{revision}", {"spec": {"replicas": replicas}})

    async def wait_available(self, revision: str, replicas: int) -> None:
        async with asyncio.timeout(90):
            while True:
                found = await self._api.get(f"{DEPLOYMENTS}/rollouts-demo-{revision}")
                if found.get("status", {}).get("availableReplicas", 0) >= replicas:
                    return
                await asyncio.sleep(0.05)

    async def select(self, service: str, revision: str) -> None:
        await self._api.merge(f"{SERVICES}/{service}", {"spec": {"selector": {HASH: revision}}})

    async def set_weight(self, desired: int) -> None:
        for attempt in range(5):
            route = await self._api.get(ROUTE)
            for rule in route["spec"]["rules"]:
                for ref in rule["backendRefs"]:
                    if ref["name"] == CANARY:
                        ref["weight"] = desired
                    if ref["name"] == STABLE:
                        ref["weight"] = 100 - desired
            labels = route["metadata"].setdefault("labels", {})
            if desired:
                labels[LABEL] = "in-progress"
            else:
                labels.pop(LABEL, None)
            try:
                await self._api.replace(ROUTE, route)
            except ApiError as error:
                if error.status != 409 or attempt == 4:
                    raise
                self.conflicts += 1
                await asyncio.sleep(0.01)
            else:
                return

    async def begin(self) -> None:
        """Adoption: both Services select the first revision, all weight on the stable one."""
        await self.select(STABLE, "h1")
        await self.select(CANARY, "h1")
        await self.set_weight(0)

    async def step(self, weight: int, replicas: int) -> None:
        """Pods first; then the canary's selector (once), and weights, in one reconciliation 20 ms apart."""
        await self.scale("h2", replicas)
        await self.wait_available("h2", replicas)
        await self.select(CANARY, "h2")
        await asyncio.sleep(0.02)
        await self.set_weight(weight)

    async def promote(self) -> None:
        """The stable Service moves to the new pods, and 20 ms later all weight moves to the stable Service."""
        await self.select(STABLE, "h2")
        await asyncio.sleep(0.02)
        await self.set_weight(0)
