"""Follow the controller's feed, and keep the last good snapshot on disk.

Every controller replica serves the same feed, so a data plane keeps a connection to each: it follows one,
tells all of them which version it has applied (snapshots are named by their content, so a version means the
same everywhere), and changes over to another without a pause when that one goes. Without any it serves on with
what it knows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from gateway.snapshot import RANK, Change, Key, Part, Parts, Problem, apply, difference, key

log = logging.getLogger("fsm.feed")

LOOK_UP: Final = 10.0  # seconds between two looks for replicas that are new
HEARTBEAT: Final = 5.0  # seconds without a word after which a replica counts as gone
MAX_MESSAGE: Final = 1 << 30
SAVE: Final = 1.0  # seconds after a change until the snapshot is kept; what comes meanwhile is kept with it


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Who connects, for the controller's messages to people."""

    instance: str


class Applied(msgspec.Struct, frozen=True, tag=True):
    """A version is in force, but for the problems."""

    version: str
    problems: tuple[Problem, ...] = ()


FromDataPlane = Hello | Applied

_encode = msgspec.msgpack.Encoder().encode
_change: msgspec.msgpack.Decoder[Change] = msgspec.msgpack.Decoder(Change)


class Source:
    """Where the feed is, and how to prove who we are."""

    def __init__(self, url: str, gateway: str, *, token: Path | None = None, authority: str = "") -> None:
        self.url = url.rstrip("/")
        self.gateway = gateway
        self._token = token
        host_and_port = self.url.partition("://")[2].partition("/")[0]
        self.host, _, port = host_and_port.rpartition(":")
        self.port = int(port)
        self.secure = self.url.startswith("https:")
        self.context: ssl.SSLContext | bool = True
        if self.secure:
            self.context = ssl.create_default_context(cadata=authority) if authority else ssl.create_default_context()

    def headers(self) -> dict[str, str]:
        """Read anew each time: Kubernetes replaces the token's file before it expires."""
        return {"Authorization": f"Bearer {self._token.read_text().strip()}"} if self._token else {}


class Replica:
    """One controller replica, and what it has told us."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.parts: Parts = {}
        self.version = ""
        self.news: dict[Key, Part | None] | None = None  # since it was last looked at; None: compare everything
        self.socket: aiohttp.ClientWebSocketResponse | None = None

    def receive(self, change: Change) -> None:
        """Take a change in."""
        apply(self.parts, change)
        self.version = change.version
        if change.reset:
            self.news = None
        elif self.news is not None:
            self.news.update(dict.fromkeys(change.drop))
            self.news.update((key(part), part) for part in change.put)

    def change(self, applied: Parts) -> Change:
        """What leads from `applied` to this replica's snapshot; costs what changed where that is known."""
        news, self.news = self.news, {}
        if news is None:
            return difference(applied, self.parts, self.version)
        put = sorted((part for part in news.values() if part is not None), key=lambda part: RANK[key(part)[0]])
        return Change(self.version, tuple(put), tuple(k for k, part in news.items() if part is None))

    @property
    def is_live(self) -> bool:
        """Connected, and told us a whole snapshot."""
        return self.socket is not None and bool(self.version)


class Feed:
    """See the module. `put` brings the workers forward and returns what they could not do."""

    def __init__(
        self, source: Source, put: Callable[[Change], Awaitable[tuple[Problem, ...]]], *, cache: Path | None, instance: str
    ) -> None:
        self._source = source
        self._put = put
        self._cache = cache
        self._instance = instance
        self._replicas: dict[str, Replica] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._active: Replica | None = None
        self._applied: Parts = {}
        self._version = ""
        self._problems: tuple[Problem, ...] = ()
        self._saving: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self.synced = asyncio.Event()  # set when a first snapshot is in force, from wherever it came

    async def run(self) -> None:
        """Until cancelled."""
        await self._restore()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            group.create_task(self._look_for_replicas(session, group))
            group.create_task(self._bring_forward())

    # --- replicas ---

    async def _look_for_replicas(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        delay = 0.2
        while True:
            addresses = await self._resolve()
            for address in addresses:
                if address not in self._tasks:
                    self._tasks[address] = group.create_task(self._follow(session, address))
            live = any(replica.is_live for replica in self._replicas.values())
            delay = LOOK_UP if live else min(delay * 1.5, 2.0)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311

    async def _resolve(self) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._source.host, self._source.port, type=socket.SOCK_STREAM)
        except OSError as error:
            log.warning("the controller's name %s is not known: %s", self._source.host, error)
            return []
        return sorted({str(sockaddr[0]) for *_, sockaddr in found})

    async def _follow(self, session: aiohttp.ClientSession, address: str) -> None:
        replica = Replica(address)
        try:
            await self._listen(session, replica)
        except (aiohttp.ClientError, OSError, msgspec.DecodeError, TimeoutError) as error:
            log.info("controller %s: %s", address, error)
        finally:
            replica.socket = None
            self._replicas.pop(address, None)
            self._tasks.pop(address, None)
            if self._active is replica:
                self._active = None
                self._news.set()

    async def _listen(self, session: aiohttp.ClientSession, replica: Replica) -> None:
        source = self._source
        host = f"[{replica.address}]" if ":" in replica.address else replica.address
        url = f"{'wss' if source.secure else 'ws'}://{host}:{source.port}/feed/{source.gateway}"
        async with session.ws_connect(
            url,
            ssl=source.context,
            server_hostname=source.host if source.secure else None,
            headers=source.headers(),
            heartbeat=HEARTBEAT,
            max_msg_size=MAX_MESSAGE,
        ) as websocket:
            self._replicas[replica.address] = replica
            replica.socket = websocket
            await websocket.send_bytes(_encode(Hello(self._instance)))
            async for message in websocket:
                if message.type != aiohttp.WSMsgType.BINARY:
                    break
                replica.receive(_change.decode(message.data))
                if self._active is None or self._active is replica:
                    self._news.set()
            if websocket.close_code not in (None, 1000, 1001, 1006):
                log.error("controller %s refuses: %s", replica.address, websocket.close_code)

    # --- applying ---

    async def _bring_forward(self) -> None:
        """What arrives while the workers are busy joins the next change."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._active is None:
                self._active = next((r for r in self._replicas.values() if r.is_live), None)
                if self._active is not None:
                    self._active.news = None
            if self._active is None:
                continue
            await self._apply(self._active.change(self._applied))
            await self._acknowledge()
            if self._saving is None and self._cache is not None:
                self._saving = asyncio.get_running_loop().call_later(SAVE, self._save)

    async def _apply(self, change: Change) -> None:
        apply(self._applied, change)
        self._problems = await self._put(change)
        self._version = change.version
        self.synced.set()

    async def _acknowledge(self) -> None:
        message = _encode(Applied(self._version, self._problems))
        for replica in list(self._replicas.values()):
            if replica.socket is not None and not replica.socket.closed:
                try:
                    await replica.socket.send_bytes(message)
                except (aiohttp.ClientError, OSError):
                    pass  # its own task sees the end of it

    # --- the last good snapshot ---

    async def _restore(self) -> None:
        if self._cache is None or not self._cache.exists():
            return
        try:
            change = _change.decode(self._cache.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the kept snapshot %s is of no use: %s", self._cache, error)
            return
        await self._apply(change)
        log.info("serving version %s, kept from before", self._version[:12])

    def _save(self) -> None:
        self._saving = None
        if self._cache is None:
            return
        whole = Change(self._version, tuple(self._applied.values()), reset=True)
        fresh = self._cache.with_suffix(".new")
        try:
            # It holds private keys: nobody else may read it.
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(_encode(whole))
            fresh.replace(self._cache)
        except OSError as error:
            log.warning("the snapshot cannot be kept in %s: %s", self._cache, error)
            self._cache = None
