"""The Service by which an XBackend's pods are found, at an API server: made once, kept in step, removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Json
from support.stage import Stage

from controller.deploy import install
from gateway.snapshot import Backend

GATEWAY = "gateway.networking.k8s.io"
X_GROUP = "gateway.networking.x-k8s.io"
LABEL = "gateway.flomesh.io/xbackend"


def gateway() -> Json:
    spec = {"gatewayClassName": "fsm-gateway-cls", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    return {"apiVersion": f"{GATEWAY}/v1", "kind": "Gateway", "metadata": {"name": "gw", "namespace": "default"}, "spec": spec}


def route(*refs: Json) -> Json:
    spec = {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": list(refs)}]}
    meta = {"name": "r", "namespace": "default"}
    return {"apiVersion": f"{GATEWAY}/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}


def xbackend(port: int = 8080, name: str = "shop", **labels: str) -> Json:
    spec = {
        "type": "EndpointSelector",
        "endpointSelector": {"matchLabels": labels or {"app": "shop"}},
        "port": {"number": port},
    }
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": f"{X_GROUP}/v1alpha1", "kind": "XBackend", "metadata": meta, "spec": spec}


X = {"group": X_GROUP, "kind": "XBackend", "name": "shop"}


def made(stage: Stage) -> list[Json]:
    return [o for at, o in stage.server.objects.items() if at[1] == "services" and LABEL in o["metadata"].get("labels", {})]


def said(one: Json) -> tuple[dict[str, str], list[tuple[int, int]]]:
    return one["spec"]["selector"], [(port["port"], port["targetPort"]) for port in one["spec"]["ports"]]


@contextlib.asynccontextmanager
async def scene() -> AsyncIterator[Stage]:
    stage = Stage(install.objects(install.Values()))
    for plural, one in (("gateways", gateway()), ("xbackends", xbackend()), ("httproutes", route(X))):
        stage.server.put(plural, one)
    async with stage.running():
        await stage.until(lambda: made(stage))
        yield stage
    assert not stage.server.denied


async def test_it_is_made_once_as_its_xbackends() -> None:
    async with scene() as stage:
        server = stage.server
        found = server.find("xbackends", "default", "shop")
        assert found is not None
        (one,) = made(stage)
        meta = one["metadata"]
        assert meta["name"].startswith("shop-")
        assert meta["name"] != "shop-"
        assert meta["labels"] == {LABEL: "shop", "app.kubernetes.io/managed-by": "fsm"}
        (owner,) = meta["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("XBackend", "shop", found["metadata"]["uid"])
        assert one["spec"]["clusterIP"] == "None"
        assert said(one) == ({"app": "shop"}, [(8080, 8080)])
        for _ in range(3):  # whatever else happens
            server.put("httproutes", route(X, X))
            server.put("httproutes", route(X))
            await stage.controller.reconciler.settled()
        assert len(made(stage)) == 1


async def test_it_follows_labels_and_port() -> None:
    async with scene() as stage:
        (before,) = made(stage)
        stage.server.put("xbackends", xbackend(9090, tier="front", app="till"))
        await stage.until(lambda: [said(one) for one in made(stage)] == [({"app": "till", "tier": "front"}, [(9090, 9090)])])
        stage.server.put("xbackends", xbackend(9090, tier="back"))  # a label that goes is not selected by any more
        await stage.until(lambda: [said(one) for one in made(stage)] == [({"tier": "back"}, [(9090, 9090)])])
        assert [one["metadata"]["name"] for one in made(stage)] == [before["metadata"]["name"]]


async def test_what_somebody_else_does_to_it_is_put_right() -> None:
    async with scene() as stage:
        (one,) = made(stage)
        stage.server.put("services", {**one, "spec": {**one["spec"], "selector": {"app": "other"}}})
        await stage.until(lambda: said(made(stage)[0])[0] == {"app": "shop"})
        stage.server.drop("", "services", "default", one["metadata"]["name"])
        await stage.until(lambda: made(stage))
        second = {**made(stage)[0], "metadata": {**made(stage)[0]["metadata"], "name": "shop-twin"}}
        stage.server.put("services", second)
        await stage.until(lambda: len(made(stage)) == 1)


@pytest.mark.parametrize("change", ["route", "type", "invalid"])
async def test_it_goes_where_nobody_asks_for_it_any_more(change: str) -> None:
    async with scene() as stage:
        server = stage.server
        if change == "route":
            server.drop(GATEWAY, "httproutes", "default", "r")
        else:
            spec: dict[str, Any] = {**xbackend()["spec"], "protocol": "MCP"}
            if change == "type":
                spec = {"type": "ExternalHostname", "externalHostname": {"hostname": "a.example"}, "port": {"number": 80}}
            server.put("xbackends", {**xbackend(), "spec": spec})
        await stage.until(lambda: not made(stage))
        server.put("xbackends", xbackend())
        server.put("httproutes", route(X))
        await stage.until(lambda: made(stage))


async def test_another_s_service_with_the_label_is_left_alone() -> None:
    async with scene() as stage:
        meta = {"name": "mine", "namespace": "default", "labels": {LABEL: "shop"}}
        stage.server.put(
            "services", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 1}]}}
        )
        stage.server.drop(GATEWAY, "httproutes", "default", "r")
        await stage.until(lambda: len(made(stage)) == 1)
        assert made(stage)[0]["metadata"]["name"] == "mine"


async def test_its_slices_are_what_data_planes_get(tmp_path: Path) -> None:
    async with scene() as stage, stage.data_plane(tmp_path, "default/gw") as told:
        (one,) = made(stage)
        # As the controllers of Kubernetes make it: named for the Service, with the Service's labels.
        labels = {**one["metadata"]["labels"], "kubernetes.io/service-name": one["metadata"]["name"]}
        meta = {"name": f"{one['metadata']['name']}-abc", "namespace": "default", "labels": labels}
        stage.server.put(
            "endpointslices",
            {
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}], "ports": [{"name": "", "port": 8080}],
            },
        )  # fmt: skip

        def reached() -> list[tuple[str, int]]:
            parts = [part for change in told for part in change.put if isinstance(part, Backend)]
            return [(e.address, e.port) for part in parts for e in part.endpoints]

        async with asyncio.timeout(10):
            await stage.until(lambda: ("10.0.0.1", 8080) in reached())
        found = stage.server.find("xbackends", "default", "shop")
        assert found is not None
        await stage.until(lambda: "status" in (stage.server.find("xbackends", "default", "shop") or {}))
        (entry,) = stage.server.find("xbackends", "default", "shop")["status"]["ancestors"]  # type: ignore[index]
        assert entry["ancestorRef"] == {"group": GATEWAY, "kind": "Gateway", "namespace": "default", "name": "gw"}
        assert [(c["type"], c["status"]) for c in entry["conditions"]] == [("Accepted", "True")]
