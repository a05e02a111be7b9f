"""Follow one kind of object: list once, then every event, for ever.

A watch resumes from the last resourceVersion that it saw (bookmarks keep that fresh); when the API server no
longer knows it (410 Gone), or the kind has come back, the list is read again and what is missing is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import msgspec

from controller.kubernetes.api import Api, ApiError, path
from controller.kubernetes.pieces import elements, members
from controller.objects.base import Ref
from controller.objects.decoding import Reader, Unreadable
from controller.objects.kinds import AnyObject, Kind
from gateway.base.durations import backoff

log = logging.getLogger("fsm.watch")

PAGE: Final = 500  # objects asked for at once
WATCH: Final = 290  # seconds after which the API server ends a watch by itself
STEADY: Final = 1.0  # seconds after which a watch that has told nothing counts as one that works
SILENCE: Final = 120.0  # seconds without an event or a bookmark after which a watch counts as dead


class ListMeta(msgspec.Struct, rename="camel"):
    """ListMeta."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class RawList(msgspec.Struct):
    """A list whose items are decoded one by one: one that is odd must not hide the others."""

    items: list[msgspec.Raw] | None  # null is how some servers say that there are none
    metadata: ListMeta


class Event(msgspec.Struct):
    """A watch event."""

    type: str
    object: msgspec.Raw


class OnlyMeta(msgspec.Struct, rename="camel"):
    """What is read of every object, whatever else it holds."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    generation: int = 0
    uid: str = ""


class Stored(msgspec.Struct):
    """An object's identity and status as they stand in the API server."""

    metadata: OnlyMeta
    status: Any = None


class WatchProblem(msgspec.Struct):
    """A Status object."""

    code: int = 0
    message: str = ""


_list: msgspec.json.Decoder[RawList] = msgspec.json.Decoder(RawList)
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_stored: msgspec.json.Decoder[Stored] = msgspec.json.Decoder(Stored)


def _page(data: bytes) -> RawList:
    """A page of a list, however odd one of its items is."""
    try:
        return _list.decode(data)
    except RecursionError:
        parts = members(data)
        meta = members(parts["metadata"])
        version, following = (_text(meta.get(name, b"")) for name in ("resourceVersion", "continue"))
        return RawList([msgspec.Raw(item) for item in elements(parts["items"])], ListMeta(version, following))


def _identified(raw: msgspec.Raw | bytes) -> Stored:
    """An object's identity, however odd the rest of it is."""
    try:
        return _stored.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        meta = members(members(bytes(raw)).get("metadata", b""))
        name, namespace, version, uid = (_text(meta.get(key, b"")) for key in ("name", "namespace", "resourceVersion", "uid"))
        return Stored(OnlyMeta(name, namespace, version, 0, uid))


def _text(raw: bytes) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeError):
        return ""


class _GoneError(Exception):
    """The list must be read again."""


def _event_of(line: bytes) -> Event:
    try:
        return _event.decode(line)
    except RecursionError:
        parts = members(line)
        return Event(_text(parts["type"]), msgspec.Raw(parts["object"]))


class Follower:
    """Follows the objects of one kind by list and watch.

    Tells `put(object, stored)` and `drop(ref)`; of what cannot be read, or put, `odd` hears.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        put: Callable[[AnyObject, Stored], None],
        drop: Callable[[Ref], None],
        *,
        query: Mapping[str, str] | None = None,
        namespace: str = "",
        odd: Callable[[Ref, str, Stored], None] = lambda *_: None,
    ) -> None:
        self._odd = odd  # (ref, what is wrong or "" where nothing is, stored)
        self._api = api
        self._kind = kind
        self._put = put
        self._drop = drop
        self._query = query or {}
        self._namespace = namespace  # "" for all
        self._reader = Reader(kind)
        self._known: dict[Ref, None] = {}
        self._version = ""
        self._api_version = kind.api_versions[0]
        self._failures = 0  # in a row, of whatever was asked
        self._gone = 0  # in a row, of versions that a list gave and that a watch could not go on from
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled, or until the kind is not served (then everything known of it is dropped)."""
        while True:
            try:
                if not self._version:
                    await self._read_list()
                    self.synced.set()
                began = asyncio.get_running_loop().time()
                await self._watch()
                if asyncio.get_running_loop().time() - began < STEADY:
                    await asyncio.sleep(0.1)  # a server that hangs up at once is not asked in a tight loop
            except _GoneError:
                await self._list_again()
            except ApiError as error:
                if error.status == 404:
                    if await self._next_version():
                        continue
                    for ref in list(self._known):
                        self._forget(ref)
                    self.synced.set()
                    return
                if error.status == 410:
                    await self._list_again()
                    continue
                self._failures += 1
                log.warning("watching %s: %s", self._kind.plural, error)
                await asyncio.sleep(error.retry_after or backoff(0.1, self._failures, 10) * random.uniform(0.5, 1))  # noqa: S311
            except (msgspec.DecodeError, KeyError) as error:
                # Not what an API server says (a proxy's page, half a line): the list is read again, and not in a tight loop.
                self._failures += 1
                self._version = ""
                log.warning("watching %s: what came cannot be read: %s", self._kind.plural, error)
                await asyncio.sleep(backoff(0.1, self._failures, 10))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                # The connection ended; where it ended is known, so nothing is read twice.
                self._failures += 1
                log.info("watching %s: %s", self._kind.plural, error or type(error).__name__)
                await asyncio.sleep(backoff(0.02, self._failures, 2))

    async def _list_again(self) -> None:
        """At once where the version was old; a server that knows none of those that it gives is not kept busy with lists."""
        self._version = ""
        self._gone += 1
        if self._gone > 1:
            await asyncio.sleep(backoff(0.1, self._gone, 10))

    def _heard(self) -> None:
        """The watch works: what failed before is over."""
        self._failures = self._gone = 0

    async def _next_version(self) -> bool:
        """An older cluster may serve only an older version."""
        at = self._kind.api_versions.index(self._api_version) + 1
        if at >= len(self._kind.api_versions):
            return False
        self._api_version = self._kind.api_versions[at]
        return True

    @property
    def _path(self) -> str:
        return path(self._api_version, self._kind.plural, self._namespace)

    async def _read_list(self) -> None:
        listed: dict[Ref, None] = {}
        query = {**self._query, "limit": str(PAGE)}
        while True:
            page = _page(await self._api.raw("GET", self._path, query=query))
            for raw in page.items or ():
                ref = self._take(raw)
                if ref is not None:
                    listed[ref] = None
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        for ref in self._known.keys() - listed.keys():
            self._forget(ref)
        self._version = page.metadata.resource_version

    async def _watch(self) -> None:
        query = {**self._query, "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH), "resourceVersion": self._version}
        async with self._api.watch(self._path, query, silence=SILENCE) as stream:
            steady = asyncio.get_running_loop().call_later(STEADY, self._heard)
            try:
                rest = b""
                async for chunk in stream.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            self._handle(_event_of(line))
            finally:
                steady.cancel()

    def _handle(self, event: Event) -> None:
        if event.type == "ERROR":
            problem = msgspec.json.decode(event.object, type=WatchProblem)
            if problem.code == 410:
                raise _GoneError
            raise ApiError(problem.code, problem.message)
        self._heard()
        stored = _identified(event.object)
        if event.type == "DELETED":
            self._forget(Ref(self._kind.type.__name__, stored.metadata.namespace, stored.metadata.name))
        elif event.type in ("ADDED", "MODIFIED"):
            self._take(event.object)
        self._version = stored.metadata.resource_version

    def _take(self, raw: msgspec.Raw) -> Ref | None:
        stored = _identified(raw)
        ref = Ref(self._kind.type.__name__, stored.metadata.namespace, stored.metadata.name)
        self._known[ref] = None
        obj = self._reader.read(raw, ref)
        if isinstance(obj, Unreadable):
            # What we knew of it stays in force.
            log.error("%s cannot be read: %s", ref, obj)
            self._odd(ref, str(obj), stored)
            return ref
        try:
            self._put(obj, stored)
        except Exception as error:
            log.exception("%s", ref)
            self._odd(ref, f"the controller fails at it ({type(error).__name__}: {error})", stored)
        else:
            self._odd(ref, "", stored)
        return ref

    def _forget(self, ref: Ref) -> None:
        self._known.pop(ref, None)
        try:
            self._drop(ref)
        except Exception:
            log.exception("%s is gone", ref)
