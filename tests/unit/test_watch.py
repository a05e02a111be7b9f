"""Following the API server through everything that ends a watch; the server here says what real ones say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio import client
from serving import Serving

from controller.kubernetes.api import Api
from controller.kubernetes.watch import Follower, Stored
from controller.objects.base import Ref
from controller.objects.kinds import KINDS, AnyObject


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


async def test_list_then_events(stage: Stage) -> None:
    stage.server.lists = [([service("a", 1)], 5, "more"), ([service("b", 2)], 5, "")]
    stage.server.watches = [
        [event("ADDED", service("c", 6)), event("MODIFIED", service("a", 7, 81)), event("DELETED", service("b", 8))]
    ]
    stage.follow()
    await stage.until({"a": 81, "c": 80})
    assert [query.get("continue") for query in stage.server.asked] == [None, "more", None]
    assert stage.server.asked[2]["resourceVersion"] == "5"
    assert stage.server.asked[2]["allowWatchBookmarks"] == "true"


async def test_a_watch_that_ends_goes_on_where_it_ended(stage: Stage) -> None:
    stage.server.lists = [([service("a", 1)], 5, "")]
    bookmark = {"metadata": {"resourceVersion": "9"}}
    stage.server.watches = [[event("BOOKMARK", bookmark), b""], [event("ADDED", service("b", 10))]]
    stage.follow()
    await stage.until({"a": 80, "b": 80})
    assert [query.get("resourceVersion") for query in stage.server.asked] == [None, "5", "9"]


@pytest.mark.parametrize("how", ["event", "answer"])
async def test_410_gone_reads_the_list_again_and_drops_what_is_missing(stage: Stage, how: str) -> None:
    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
    stage.server.lists = [([service("a", 1), service("b", 1)], 5, ""), ([service("b", 1, 81)], 20, "")]
    first = [event("ERROR", gone), b""] if how == "event" else web.json_response(gone, status=410)
    stage.server.watches = [first, None]
    stage.follow()
    await stage.until({"b": 81})
    await stage.server.streams.get()
    assert stage.server.asked[-1]["resourceVersion"] == "20"


async def test_a_line_in_pieces(stage: Stage) -> None:
    whole = event("ADDED", service("a", 6))
    stage.server.lists = [([], 5, "")]
    stage.server.watches = [[whole[:7], whole[7:20], whole[20:] + event("ADDED", service("b", 7))[:-1], b"\n"]]
    stage.follow()
    await stage.until({"a": 80, "b": 80})


async def test_an_expired_token_is_read_again(stage: Stage) -> None:
    tokens = iter(["Bearer old", "Bearer new", "Bearer new"])

    def refresh(configuration: Any, *_: Any) -> None:
        configuration.api_key["BearerToken"] = next(tokens, "Bearer new")

    stage.configuration.api_key["BearerToken"] = "Bearer old"
    stage.configuration.refresh_api_key_hook = refresh
    stage.server.lists = [web.json_response({"message": "Unauthorized"}, status=401), ([service("a", 1)], 5, "")]
    stage.follow()
    await stage.until({"a": 80})
    assert stage.server.tokens[:2] == ["Bearer old", "Bearer new"]


async def test_an_api_server_that_is_overloaded_is_asked_again_when_it_says(stage: Stage) -> None:
    busy = web.json_response({"message": "too many requests"}, status=429, headers={"Retry-After": "0.05"})
    stage.server.lists = [busy, ([service("a", 1)], 5, "")]
    stage.follow()
    await stage.until({"a": 80})


async def test_a_missing_optional_kind_is_no_kind(stage: Stage) -> None:
    follower = stage.follow("XBackend")
    async with asyncio.timeout(5):
        await follower.synced.wait()
        await stage.tasks[0]


async def test_an_object_that_cannot_be_understood_hides_no_other(stage: Stage) -> None:
    odd = service("odd", 1)
    odd["spec"]["ports"] = "many"
    stage.server.lists = [([odd, service("a", 1)], 5, "")]
    stage.follow()
    await stage.until({"a": 80})
