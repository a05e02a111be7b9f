"""Secrets are followed one by one, as long as something names them; what names them waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio import client
from support.https_server import Serving
from support.objects import obj

from controller.kubernetes import secrets
from controller.kubernetes.api import Api
from controller.kubernetes.secrets import NamedSecrets, named
from controller.kubernetes.watch import Stored
from controller.objects.base import Ref
from controller.objects.kinds import AnyObject

STORED = Stored(None)


def filter_(name: str, *keys: str, store: str = "") -> AnyObject:
    spec: dict[str, Any] = {"type": "T", "secrets": [{"name": key, "secretRef": {"name": key, "key": "k"}} for key in keys]}
    if store:
        spec["store"] = {"host": "valkey", "passwordRef": {"name": store, "key": "k"}}
    return obj("Filter", name, spec=spec)


@pytest.mark.parametrize(
    ("one", "names"),
    [
        (filter_("f"), set()),
        (filter_("f", "a", "b", store="c"), {"a", "b", "c"}),
        (obj("ListenerFilter", "l", spec={"type": "T", "secrets": [{"name": "x", "secretRef": {"name": "a", "key": "k"}}]}), {"a"}),
        (obj("UpstreamTLSPolicy", "u", spec={"ports": [{"port": 1, "config": {"certificateRef": {"name": "ca"}}}]}), {"ca"}),
        (obj("RateLimitPolicy", "r", spec={"config": {"store": {"host": "h", "passwordRef": {"name": "p", "key": "k"}}}}), {"p"}),
        (obj("Service", "s", spec={}), set()),
    ],
)  # fmt: skip
def test_what_is_named(one: AnyObject, names: set[str]) -> None:
    assert named(one) == {Ref("Secret", "default", name) for name in names}


class ApiServer(Serving):
    """Secrets by name, as an API server selects them; a list can be held back."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[str, str] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.watching: dict[str, web.StreamResponse] = {}
        self.app.router.add_get("/api/v1/namespaces/default/secrets", self._serve)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        selector = dict(term.split("=", 1) for term in request.query["fieldSelector"].split(",") if "!=" not in term)
        assert "type!=kubernetes.io/tls" in request.query["fieldSelector"]
        name = selector["metadata.name"]
        if "watch" not in request.query:
            await self.gate.wait()
            items = [self._secret(name)] if name in self.secrets else []
            return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})
        response = self.watching[name] = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        self.watching.pop(name, None)
        return response

    def _secret(self, name: str) -> dict[str, Any]:
        meta = {"name": name, "namespace": "default", "resourceVersion": "1"}
        return {"metadata": meta, "stringData": {"k": self.secrets[name]}}

    async def change(self, name: str, value: str) -> None:
        self.secrets[name] = value
        event = {"type": "MODIFIED", "object": self._secret(name)}
        await self.watching[name].write(json.dumps(event).encode() + b"\n")


class Stage:
    """What the world was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.server = ApiServer()
        self.named: NamedSecrets

    def put(self, one: AnyObject, _: Stored) -> None:
        value = (one.string_data or {})["k"] if one.ref.kind == "Secret" else ""
        self.told.append(f"{one.ref.name}={value}" if value else one.ref.name)

    def drop(self, ref: Ref) -> None:
        self.told.append(f"-{ref.name}")

    async def until(self, *told: str) -> None:
        async with asyncio.timeout(5):
            while self.told != list(told):
                await asyncio.sleep(0.002)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    api_client = client.ApiClient(configuration=client.Configuration(host=await made.server.start()))
    ended = asyncio.Event()

    async def live(started: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            made.named = NamedSecrets(Api(api_client), group, made.put, made.drop)
            started.set()
            await ended.wait()

    started = asyncio.Event()
    living = asyncio.create_task(live(started))
    await started.wait()
    yield made
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    await api_client.close()
    await made.server.stop()


async def test_an_object_comes_after_what_it_names(stage: Stage) -> None:
    stage.server.secrets = {"a": "1", "b": "2"}
    stage.server.gate.clear()
    stage.named.put(filter_("f", "a", "b"), STORED)
    stage.named.put(filter_("plain"), STORED)
    assert stage.told == ["plain"], "who names none does not wait"
    stage.server.gate.set()
    async with asyncio.timeout(5):
        await stage.named.settled()
    assert sorted(stage.told[1:3]) == ["a=1", "b=2"]
    assert stage.told[3:] == ["f"]


async def test_a_secret_that_changes_is_told_and_one_that_nobody_names_is_forgotten(stage: Stage) -> None:
    stage.server.secrets = {"a": "1"}
    stage.named.put(filter_("f", "a"), STORED)
    await stage.until("a=1", "f")
    stage.named.put(filter_("g", "a"), STORED)
    async with asyncio.timeout(5):
        while "a" not in stage.server.watching:
            await asyncio.sleep(0.002)
    await stage.server.change("a", "2")
    await stage.until("a=1", "f", "g", "a=2")
    stage.named.drop(Ref("Filter", "default", "f"))
    assert stage.told[4:] == ["-f"], "g names it still"
    stage.named.put(filter_("g"), STORED)
    assert stage.told[5:] == ["-a", "g"]


async def test_a_secret_that_is_not_there_keeps_nobody(stage: Stage) -> None:
    stage.named.put(filter_("f", "missing"), STORED)
    await stage.until("f")


async def test_what_cannot_be_read_keeps_nobody_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "PATIENCE", 0.05)
    stage.server.gate.clear()
    stage.named.put(filter_("f", "a"), STORED)
    await stage.until("f")


async def test_the_newest_counts_of_what_waits(stage: Stage) -> None:
    stage.server.secrets = {"a": "1", "b": "2"}
    stage.server.gate.clear()
    stage.named.put(filter_("f", "a"), STORED)
    stage.named.put(filter_("f", "b"), STORED)
    stage.named.put(filter_("g", "a"), STORED)
    stage.named.drop(Ref("Filter", "default", "g"))
    stage.server.gate.set()
    async with asyncio.timeout(5):
        await stage.named.settled()
    assert "b=2" in stage.told
    assert stage.told.count("f") == 1
    assert "g" not in stage.told
