"""Follow the controller's feed, and keep the last good snapshot on disk.

Every controller replica serves the same feed, so a data plane keeps a connection to each: it follows one,
tells all of them which version it has applied (snapshots are named by their content, so a version means the
same everywhere), and changes over to another without a pause when that one goes. Without any it serves on with
what it knows. Its law: whatever a controller, a name server or the disk has for it, it serves on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from gateway.admin.kept import Kept
from gateway.base.logs import SHORT, plain
from gateway.snapshot import RANK, Change, Key, Part, Parts, Problem, apply, difference, key

log = logging.getLogger("fsm.feed")

LOOK_UP: Final = 10.0  # seconds between two looks for replicas that are new
HEARTBEAT: Final = 5.0  # seconds without a word after which a replica counts as gone
MAX_MESSAGE: Final = 1 << 30
SAVE: Final = 1.0  # seconds after a change until the snapshot is kept; what comes meanwhile is kept with it
REPLICAS: Final = 16  # that are followed; whoever answers for the controller's name may say more
MAX_MESSAGE_BYTES: Final = 1 << 20  # octets of a message to the controller
REPORTED: Final = 100  # problems that it is told of at once
RETRY: Final = 5.0  # seconds until a change that the workers could not take at all is tried again, as a whole


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first message of a data plane: who it is, for what the controller tells people."""

    instance: str


class Acknowledgement(msgspec.Struct, frozen=True, tag="Applied"):
    """A version is in force, but for the problems."""

    version: str
    problems: tuple[Problem, ...] = ()


class Proof(msgspec.Struct, frozen=True, tag=True):
    """The token that proves who this is, in place of the one before, which is about to expire."""

    token: str


FromDataPlane = Hello | Acknowledgement | Proof

_encode = msgspec.msgpack.Encoder().encode
_change: msgspec.msgpack.Decoder[Change] = msgspec.msgpack.Decoder(Change)


class FeedSource:
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
        if token is not None and not self.secure:
            raise ValueError(f"{url}: a token is not sent in the clear; the feed's URL must begin with https://")
        if self.secure:
            self.context = ssl.create_default_context(cadata=authority) if authority else ssl.create_default_context()
            self.context.minimum_version = ssl.TLSVersion.TLSv1_3

    def token(self) -> str:
        """Read anew each time: Kubernetes replaces the token's file before it expires. OSError where there is none."""
        if self._token is None:
            return ""
        token = self._token.read_bytes()[:16384].decode("ascii", errors="replace").strip()
        if not token.isascii() or not token.isprintable():
            raise OSError(f"{self._token} holds no token")
        return token


class Replica:
    """One controller replica, and what it has told us."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.token = ""  # that it has seen
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
    """The data plane's side of the feed, over all replicas of the controller.

    `put` brings the workers forward and returns what they could not do.
    """

    def __init__(
        self, source: FeedSource, put: Callable[[Change], Awaitable[tuple[Problem, ...]]], *, cache: Path | None, instance: str
    ) -> None:
        self._source = source
        self._put = put
        self._kept = Kept(cache) if cache is not None else None
        self._instance = instance
        self._replicas: dict[str, Replica] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._active: Replica | None = None
        self._applied: Parts = {}
        self._is_lost = False  # what the workers have is not known: the next change is to start from nothing
        self._version = ""
        self._problems: tuple[Problem, ...] = ()
        self._saving: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self.synced = asyncio.Event()  # set when a first snapshot is in force, from wherever it came

    async def run(self) -> None:
        """Until cancelled."""
        await self._restore()
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(_refuse_redirect)
        async with aiohttp.ClientSession(trust_env=False, trace_configs=[tracing]) as session, asyncio.TaskGroup() as group:
            group.create_task(self._look_for_replicas(session, group))
            group.create_task(self._bring_forward())

    # --- replicas ---

    async def _look_for_replicas(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        delay = 0.2
        while True:
            addresses = await self._resolve()
            for address in addresses:
                if address not in self._tasks and len(self._tasks) < REPLICAS:
                    self._tasks[address] = group.create_task(self._follow(session, address))
            live = any(replica.is_live for replica in self._replicas.values())
            delay = LOOK_UP if live else min(delay * 1.5, 2.0)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
            await self._prove_anew()

    async def _resolve(self) -> list[str]:
        try:
            addresses = await asyncio.get_running_loop().getaddrinfo(
                self._source.host, self._source.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            log.warning("the controller's name %s is not known: %s", self._source.host, error)
            return []
        return sorted({str(sockaddr[0]) for *_, sockaddr in addresses})

    async def _follow(self, session: aiohttp.ClientSession, address: str) -> None:
        replica = Replica(address)
        try:
            await self._listen(session, replica)
        except Exception as error:  # whatever a replica does ends its own connection, and nothing else
            log.info("controller %s: %s", address, plain(str(error), SHORT) or type(error).__name__)
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
        replica.token = source.token()
        async with session.ws_connect(
            url,
            ssl=source.context,
            server_hostname=source.host if source.secure else None,
            headers={"Authorization": f"Bearer {replica.token}"} if replica.token else {},
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

    async def _prove_anew(self) -> None:
        """Show the token that has taken the place of the one with which a connection began."""
        try:
            token = self._source.token()
        except OSError as error:
            log.warning("the token cannot be read: %s", error)
            return
        for replica in list(self._replicas.values()):
            if replica.token != token:
                replica.token = token
                await self._send(replica, Proof(token))

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
            change = self._active.change(self._applied)
            if self._is_lost:
                change = msgspec.structs.replace(change, reset=True)
            if await self._apply(change):
                await self._acknowledge()
                if self._saving is None and self._kept is not None:
                    self._saving = asyncio.get_running_loop().call_later(SAVE, self._save)
            else:
                self._active.news = None
                asyncio.get_running_loop().call_later(RETRY, self._news.set)

    async def _apply(self, change: Change) -> bool:
        """Bring the workers forward; False where that failed altogether, and everything must be told anew."""
        try:
            problems = await self._put(change)
            apply(self._applied, change)
        except Exception:
            log.exception("version %s cannot be taken; what is in force stays", plain(change.version, 12))
            self._applied, self._is_lost = {}, True
            return False
        self._is_lost = False
        self._problems = problems
        self._version = change.version
        self.synced.set()
        return True

    async def _acknowledge(self) -> None:
        for replica in list(self._replicas.values()):
            await self._send(replica, Acknowledgement(self._version, _short(self._problems)))

    async def _send(self, replica: Replica, message: FromDataPlane) -> None:
        if replica.socket is not None and not replica.socket.closed:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await replica.socket.send_bytes(_encode(message))
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass  # its own task sees the end of it

    # --- the last good snapshot ---

    async def _restore(self) -> None:
        change = self._kept.read() if self._kept is not None else None
        if change is not None and await self._apply(change):
            log.info("serving version %s, kept from before", plain(self._version, 12))

    def _save(self) -> None:
        self._saving = None
        if self._kept is not None:
            self._kept.write(Change(self._version, tuple(self._applied.values()), reset=True))


def _short(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """As many as the controller takes; the rest is in our own log."""
    return tuple(Problem(problem.part, plain(problem.message, SHORT)) for problem in problems[:REPORTED])


async def _refuse_redirect(_session: object, _context: object, parameters: aiohttp.TraceRequestRedirectParams) -> None:
    """Where the feed is was said when this process started; nobody sends us, or our token, elsewhere (RFC 9110 §15.4)."""
    raise aiohttp.ClientConnectionError(f"the feed answers {parameters.response.status}, a redirect")
