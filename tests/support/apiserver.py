"""An API server in a few lines: objects in memory, lists, watches, patches, TokenReviews; and RBAC, which it keeps account of.

Nothing is granted but what `rules` grant, as in a cluster; `used` says which of it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from aiohttp import web

from support.https_server import Serving

Json = dict[str, Any]


class Right(NamedTuple):
    """What RBAC grants or refuses, one at a time."""

    verb: str
    group: str
    resource: str
    namespace: str = ""  # of a Role; "" for everywhere
    name: str = ""  # of resourceNames


def rights(objects: Iterable[Json]) -> Iterator[Right]:
    """What Roles and ClusterRoles grant; an aggregate for each is not unrolled, as we make none."""
    for obj in objects:
        if obj["kind"] not in ("Role", "ClusterRole"):
            continue
        for rule in obj["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        for name in rule.get("resourceNames", [""]):
                            yield Right(verb, group, resource, obj["metadata"].get("namespace", ""), name)


class Place(NamedTuple):
    """What a path names."""

    group: str
    version: str
    resource: str
    namespace: str
    name: str
    subresource: str


def place(path: str) -> Place:
    parts = path.strip("/").split("/")
    group, version, *rest = ("", *parts[1:]) if parts[0] == "api" else parts[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return Place(group, version, rest[0], namespace, *[*rest[1:], "", ""][:2])


class ApiServer(Serving):
    """See the module. `granted` None lets everybody do everything."""

    def __init__(self, granted: Iterable[Right] | None = None) -> None:
        super().__init__()
        self.granted = set(granted) if granted is not None else None
        self.used: set[Right] = set()
        self.denied: list[str] = []
        self.objects: dict[tuple[str, str, str, str], Json] = {}  # group, resource, namespace, name
        self.version = 1
        self.tokens: dict[str, Json] = {}  # token → the status of its review
        self.reviews: list[Json] = []
        self.conflict_once: set[str] = set()  # resources of which the first status that is written meets a conflict
        self.down = False
        self.missed: list[str] = []  # what it was asked for meanwhile
        self._watches: dict[asyncio.Queue[Json], tuple[Place, dict[str, str]]] = {}
        self._seen: set[tuple[str, ...]] = set()
        self.app.router.add_route("*", "/{path:.*}", self._serve)

    # --- what the test does ---

    def put(self, resource: str, obj: Json) -> None:
        """An object is made or changed by somebody."""
        group = obj["apiVersion"].rpartition("/")[0]
        meta = obj.setdefault("metadata", {})
        at = (group, resource, meta.get("namespace", ""), meta["name"])
        self._store(at, {**obj, "status": self.objects[at]["status"]} if "status" in self.objects.get(at, {}) else obj)

    def drop(self, group: str, resource: str, namespace: str, name: str) -> None:
        self._tell("DELETED", (group, resource, namespace, name), self.objects.pop((group, resource, namespace, name)))

    def find(self, resource: str, namespace: str, name: str) -> Json | None:
        return next((o for at, o in self.objects.items() if at[1:] == (resource, namespace, name)), None)

    # --- what the server does ---

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.down:
            self.missed.append(request.path)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        where = place(request.path)
        with_watch = "watch" in request.query
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
            request.method, "watch" if with_watch else "get" if where.name else "list"
        )
        at = (where.group, where.resource, where.namespace, where.name)
        verbs = [verb]
        if verb == "patch" and request.content_type == "application/apply-patch+yaml" and at not in self.objects:
            verbs.append("create")  # server-side apply
        if not all(self._may(one, where, request.query) for one in verbs):
            return self._status(403, f"may not {verb} {request.path}")
        if where.resource == "tokenreviews":
            return web.json_response(self._review(await request.json()))
        if verb in ("list", "watch"):
            return await self._watch(request, where) if with_watch else self._list(where, request.query)
        if verb == "create":
            body = await request.json()
            beginning = body["metadata"].pop("generateName", "")
            if "name" not in body["metadata"]:
                body["metadata"]["name"] = f"{beginning}{self.version:05d}"
            at = (*at[:3], body["metadata"]["name"])
            if at in self.objects:
                return self._status(409, "exists")
            return web.json_response(self._store(at, body), status=201)
        found = self.objects.get(at)
        if verb == "delete" and found is not None:
            self.drop(*at)
            return web.json_response({})
        if verb == "patch" and request.content_type == "application/apply-patch+yaml":
            return web.json_response(self._store(at, {**(found or {}), **await request.json()}))
        if found is None:
            return self._status(404, "not found")
        if verb == "get":
            return web.json_response(found)
        return self._change(where, at, found, await request.json(), verb)

    def _change(self, where: Place, at: tuple[str, str, str, str], found: Json, body: Json, verb: str) -> web.Response:
        if where.subresource == "status":
            if at[:2] not in self._seen and where.resource in self.conflict_once:
                self._seen.add(at[:2])
                return self._status(409, "the object has been modified")
            patched = {**found, "status": merge(found.get("status", {}), body["status"])}
        else:
            patched = body if verb == "update" else merge(found, body)
        return web.json_response(self._store(at, patched))

    def _may(self, verb: str, where: Place, query: Any) -> bool:
        resource = f"{where.resource}/{where.subresource}" if where.subresource else where.resource
        terms = dict(t.split("=", 1) for t in query.get("fieldSelector", "").split(",") if "=" in t and "!=" not in t)
        name = where.name or terms.get("metadata.name", "")
        if self.granted is None:
            return True
        for right in (
            Right(verb, where.group, resource),
            Right(verb, where.group, resource, where.namespace),
            Right(verb, where.group, resource, where.namespace, name),
        ):
            if right in self.granted:
                self.used.add(right)
                return True
        self.denied.append(f"{verb} {where.group}/{resource} in {where.namespace!r} {name!r}")
        return False

    def _review(self, body: Json) -> Json:
        self.reviews.append(body["spec"])
        status = copy.deepcopy(self.tokens.get(body["spec"]["token"], {"authenticated": False}))
        if status.get("authenticated") and "audiences" in status:
            status["audiences"] = [one for one in body["spec"]["audiences"] if one in status["audiences"]]
            if not status["audiences"]:
                status = {"authenticated": False}
        return {**body, "status": status}

    def _list(self, where: Place, query: Any) -> web.Response:
        items = [obj for at, obj in self.objects.items() if _selected(where, query, at, obj)]
        return web.json_response({"items": items, "metadata": {"resourceVersion": str(self.version)}})

    async def _watch(self, request: web.Request, where: Place) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[Json] = asyncio.Queue()
        since = int(request.query["resourceVersion"])
        for at, obj in self.objects.items():  # what came between the list and this
            if int(obj["metadata"]["resourceVersion"]) > since and _selected(where, request.query, at, obj):
                queue.put_nowait({"type": "MODIFIED", "object": obj})
        self._watches[queue] = (where, dict(request.query))
        try:
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                while True:
                    await response.write(json.dumps(await queue.get()).encode() + b"\n")
        finally:
            del self._watches[queue]
        return response

    def _store(self, at: tuple[str, str, str, str], obj: Json) -> Json:
        self.version += 1
        before = self.objects.get(at)
        meta = {**obj["metadata"], "resourceVersion": str(self.version)}
        if at[2]:
            meta["namespace"] = at[2]
        meta.setdefault("uid", f"uid-of-{at[3]}")
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        spoken = before is not None and obj.get("spec") == before.get("spec")
        meta["generation"] = (before["metadata"]["generation"] + (not spoken)) if before else 1
        stored = self.objects[at] = {**obj, "metadata": meta}
        self._tell("MODIFIED" if before else "ADDED", at, stored)
        return stored

    def _tell(self, type_: str, at: tuple[str, str, str, str], obj: Json) -> None:
        for queue, (where, query) in self._watches.items():
            if _selected(where, query, at, obj):
                queue.put_nowait({"type": type_, "object": obj})

    def _status(self, code: int, message: str) -> web.Response:
        return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def merge(before: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _selected(where: Place, query: Any, at: tuple[str, str, str, str], obj: Json) -> bool:
    if at[:2] != (where.group, where.resource) or (where.namespace and at[2] != where.namespace):
        return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        field, _, value = term.partition("=")
        is_not = field.endswith("!")
        got = obj["metadata"]["name"] if field.rstrip("!") == "metadata.name" else obj.get(field.rstrip("!"), "")
        if (got == value) == is_not:
            return False
    for term in filter(None, query.get("labelSelector", "").split(",")):
        label, _, value = term.partition("=")
        if obj["metadata"].get("labels", {}).get(label) != value:
            return False
    return True
