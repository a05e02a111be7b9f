"""A follower of an API server that says what a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio import client

from controller.kubernetes.api import Api
from controller.kubernetes.watch import Follower, Stored
from controller.objects.base import Ref
from controller.objects.kinds import KINDS, AnyObject
from support.https_server import Serving


def service(name: str, version: int, port: int = 80) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "resourceVersion": str(version)},
        "spec": {"ports": [{"port": port}]},
    }


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


class ApiServer(Serving):
    """Lists and watches, as scripted; remembers what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: list[Any] = []
        self.watches: list[Any] = []
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self.streams: asyncio.Queue[web.StreamResponse] = asyncio.Queue()
        self.app.router.add_get("/api/v1/services", self._serve)
        self.app.router.add_get("/apis/gateway.networking.x-k8s.io/v1alpha1/xbackends", self._missing)

    async def _missing(self, _: web.Request) -> web.Response:
        return web.json_response({"message": "the server could not find the requested resource"}, status=404)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self.tokens.append(request.headers.get("Authorization", ""))
        script = self.watches if "watch" in request.query else self.lists
        answer = script.pop(0) if script else None
        if isinstance(answer, web.Response):
            return answer
        if "watch" not in request.query:
            items, version, following = answer
            return web.json_response({"items": items, "metadata": {"resourceVersion": str(version), "continue": following}})
        response = web.StreamResponse()
        await response.prepare(request)
        for line in answer or ():
            await response.write(line)
        if answer is None or b"" not in answer:
            await self.streams.put(response)
            await asyncio.sleep(30)
        return response


class Stage:
    def __init__(self, server: ApiServer, api: Api, configuration: Any) -> None:
        self.server = server
        self.api = api
        self.configuration = configuration
        self.known: dict[str, int] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def follow(self, kind: str = "Service") -> Follower:
        follower = Follower(self.api, KINDS[kind], self._put, self._drop)
        self.tasks.append(asyncio.create_task(follower.run()))
        return follower

    def _put(self, obj: AnyObject, _: Stored) -> None:
        self.known[obj.metadata.name] = obj.spec.ports[0].port

    def _drop(self, ref: Ref) -> None:
        self.known.pop(ref.name, None)

    async def until(self, known: dict[str, int]) -> None:
        async with asyncio.timeout(5):
            while self.known != known:
                await asyncio.sleep(0.005)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    server = ApiServer()
    configuration = client.Configuration(host=await server.start())
    api_client = client.ApiClient(configuration=configuration)
    made = Stage(server, Api(api_client), configuration)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await api_client.close()
    await server.stop()
