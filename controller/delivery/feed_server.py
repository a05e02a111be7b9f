"""Serve changes to data planes, and take their acknowledgements.

One WebSocket for each data plane: the whole snapshot first, then each change as it is published. A data plane
proves who it is by its ServiceAccount's token, gets the parts of its own Gateway and nothing else, and can say
no more than what became of these. What it costs is bounded: one connection for each pod, a backlog no larger than
the snapshot, so many messages a second; and it ends as soon as its token is good no more.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import msgspec
from aiohttp import web

from controller.delivery.entrance import Entrance, http_log
from controller.delivery.reconcile import Publication
from controller.translate import GatewayName
from gateway.admin.feed import MAX_MESSAGE_BYTES, REPORTED, Acknowledgement, FromDataPlane, Hello, Proof
from gateway.base.logs import SHORT, plain
from gateway.snapshot import Change, Parts, Problem, key

log = logging.getLogger("fsm.feed")

REMEMBERED: Final = 4096  # versions of a Gateway whose order is known
HEARTBEAT: Final = 5.0
REVIEW: Final = 60.0  # seconds between two looks at whether a token is still good
REFUSED: Final = 1.0  # seconds until somebody is told that a token is not good: so many guesses, and no more
BACKLOG: Final = 1 << 20  # octets that a data plane may be behind before it gets the whole snapshot instead
STALL: Final = 60.0  # seconds for a data plane to take one message
MESSAGES: Final = 50.0  # a second that are read of one data plane
SAVED: Final = 200.0  # of these, for who was silent before
FOLLOWERS: Final = 4096  # of one Gateway
PARTING: Final = 2.0  # seconds for a polite end
TOKEN: Final = 16384  # characters of one

_encode = msgspec.msgpack.Encoder().encode
_decode: msgspec.msgpack.Decoder[FromDataPlane] = msgspec.msgpack.Decoder(FromDataPlane)

# (bearer token, the Gateway asked for) → who it is, such as the pod; "" for somebody who may not read it, and " " for one
# who may and of whom no more is known. Raises UnreviewedError where that cannot be told now.
Authorise = Callable[[str, GatewayName], Awaitable[str]]


class UnreviewedError(Exception):
    """Whether a token is good cannot be told at the moment."""


@dataclass(eq=False)
class FeedConnection:
    """One data plane."""

    gateway: GatewayName
    who: str
    token: str
    websocket: web.WebSocketResponse
    transport: asyncio.Transport
    instance: str = ""
    acknowledged: int = 0
    version: str = ""  # that it has last said to have applied
    problems: tuple[Problem, ...] = ()
    backlog: deque[bytes] = field(default_factory=deque)
    behind: int = 0  # octets of the backlog
    wants_all: bool = True  # the whole snapshot instead of the backlog
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, data: bytes) -> None:
        """Send a change, or everything once that is shorter than what was not taken yet."""
        if not self.wants_all:
            self.backlog.append(data)
            self.behind += len(data)
            if self.behind > BACKLOG:
                self.wants_all = True
                self.backlog.clear()
        self.news.set()


@dataclass
class Channel:
    """One Gateway: its versions in order, and who follows it."""

    connections: set[FeedConnection] = field(default_factory=set)
    order: OrderedDict[str, int] = field(default_factory=OrderedDict)  # version → position
    position: int = 0
    opened: int = 0  # the position since which listeners and certificates are as they are now
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)
    whole: bytes = b""  # the snapshot as it is sent, as long as it is the newest: one for all that want it

    def is_programmed(self) -> bool:
        """Whether a data plane has applied the listeners as they are now."""
        return any(connection.acknowledged >= max(self.opened, 1) for connection in self.connections)

    def reached(self) -> int:
        """The position that every connected data plane has applied."""
        return min((connection.acknowledged for connection in self.connections), default=self.position)

    def problems(self, parts: Parts) -> set[tuple[str, str]]:
        """What data planes could not do, of parts that this Gateway has."""
        names = {name for _, name in parts}
        reported = ((p.part, p.message) for connection in self.connections for p in connection.problems if p.part in names)
        return {problem for problem, _ in zip(reported, range(REPORTED), strict=False)}


class FeedServer:
    """The controller's side of the feed. `on_acknowledged` hears of every acknowledgement and of every data plane that goes."""

    def __init__(self, publications: dict[GatewayName, Publication], authorise: Authorise) -> None:
        self._publications = publications
        self._authorise = authorise
        self._channels: dict[GatewayName, Channel] = {}
        self._runner: web.AppRunner | None = None
        self._entrance: Entrance | None = None
        self._reviews: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.on_acknowledged: Callable[[GatewayName], None] = lambda _: None

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """Listen; returns the port."""
        app = web.Application()
        app.router.add_get("/feed/{namespace}/{name}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, logger=http_log)
        await self._runner.setup()
        assert self._runner.server is not None
        self._entrance = Entrance(self._runner.server, context)
        self._reviews = asyncio.create_task(self._review_all())
        return await self._entrance.start(host, port)

    async def stop(self) -> None:
        """Let every data plane go; they turn to another replica or serve on by themselves."""
        if self._reviews is not None:
            self._reviews.cancel()
            await asyncio.gather(self._reviews, return_exceptions=True)
        if self._entrance is not None:
            await self._entrance.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    def channel(self, gateway: GatewayName) -> Channel:
        """What is known of a Gateway's data planes."""
        return self._channels.setdefault(gateway, Channel())

    def publish(self, gateway: GatewayName, change: Change) -> None:
        """Tell every data plane of a Gateway."""
        channel = self.channel(gateway)
        channel.position += 1
        channel.order[change.version] = channel.position
        channel.order.move_to_end(change.version)
        if len(channel.order) > REMEMBERED:
            channel.order.popitem(last=False)
        kinds = {kind for kind, _ in (*map(key, change.put), *change.drop)}
        if kinds & {"listener", "certificate"}:
            channel.opened = channel.position
        channel.whole = b""
        data = _encode(change)
        for connection in channel.connections:
            connection.tell(data)
            if connection.version == change.version:  # it has that from another replica, and said so before we did
                self._applied(channel, connection)

    def dismiss(self, gateway: GatewayName) -> None:
        """A Gateway is not served any more: its data planes have no business here."""
        channel = self._channels.pop(gateway, None)
        if channel is not None:
            for connection in list(channel.connections):
                self._hang_up(connection, "the Gateway is not served any more")
            channel.connections.clear()
            self._settle(channel)

    async def wait_applied(self, gateways: set[GatewayName], *, at_most: float) -> None:
        """Until every connected data plane of these Gateways has applied what is published now, within reason."""
        waits = []
        for gateway in gateways:
            channel = self.channel(gateway)
            if channel.reached() < channel.position:
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                channel.waiting.append((channel.position, future))
                waits.append(future)
        if waits:
            await asyncio.wait(waits, timeout=at_most)

    # --- who may follow ---

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        gateway = (request.match_info["namespace"], request.match_info["name"])
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            return _refusal(401, "a bearer token is needed")
        try:
            who = await self._authorise(token, gateway)
        except UnreviewedError:
            return _refusal(503, "tokens cannot be reviewed at the moment")
        if not who:
            await asyncio.sleep(REFUSED)
            return _refusal(403, f"this token may not read Gateway {plain('/'.join(gateway), SHORT)}")
        channel = self.channel(gateway)
        # A pod has one address, or one of each family, by which it may find us as two.
        who = f"{who.strip()} {request.remote}"
        if len(channel.connections) >= FOLLOWERS:
            return _refusal(503, "too many data planes follow this Gateway")
        # What is compressed together can be told apart by its length, and expands to more than it says.
        websocket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MAX_MESSAGE_BYTES, compress=False, autoping=False)
        await websocket.prepare(request)
        assert self._entrance is not None
        assert request.transport is not None
        self._entrance.known(request.transport)
        connection = FeedConnection(gateway, who, token, websocket, request.transport)
        for older in [other for other in channel.connections if other.who == who]:
            channel.connections.discard(older)
            self._hang_up(older, "another connection took its place")
        return await self._follow(channel, connection)

    async def _follow(self, channel: Channel, connection: FeedConnection) -> web.WebSocketResponse:
        gateway = connection.gateway
        publication = self._publications.setdefault(gateway, Publication())
        channel.order.setdefault(publication.version, channel.position)
        channel.connections.add(connection)
        connection.news.set()
        sending = asyncio.create_task(self._send(channel, connection))
        try:
            await self._listen(channel, connection)
        except msgspec.DecodeError as error:
            log.warning("data plane %s of %s/%s: %s", connection.instance, *gateway, plain(str(error), SHORT))
            await connection.websocket.close(code=1002, message=b"not a message of the feed")
        finally:
            sending.cancel()
            if connection in channel.connections:
                channel.connections.discard(connection)
                self._settle(channel)
                self.on_acknowledged(gateway)
        return connection.websocket

    async def _review_all(self) -> None:
        """Look at every token again, by and by: one that was taken away, or has expired, ends its connection."""
        while True:
            everybody = [follower for channel in self._channels.values() for follower in channel.connections]
            for connection in everybody:
                await asyncio.sleep(REVIEW / len(everybody) * random.uniform(0.5, 1))  # noqa: S311
                await self._review(connection)
            if not everybody:
                await asyncio.sleep(REVIEW / 10)

    async def _review(self, connection: FeedConnection) -> None:
        try:
            who = await self._authorise(connection.token, connection.gateway)
        except UnreviewedError:
            return  # it was good when we could ask last
        if not who:
            self._hang_up(connection, "its token is not good any more")

    def _hang_up(self, connection: FeedConnection, why: str) -> None:
        log.info("data plane %s of %s/%s: %s", connection.instance, *connection.gateway, why)
        self._closing.add(task := asyncio.create_task(_close(connection, why)))
        task.add_done_callback(self._closing.discard)

    # --- what is said ---

    async def _send(self, channel: Channel, connection: FeedConnection) -> None:
        try:
            while True:
                await connection.news.wait()
                if connection.wants_all:
                    connection.wants_all, connection.behind = False, 0
                    data = self._whole(channel, connection.gateway)
                elif connection.backlog:
                    data = connection.backlog.popleft()
                    connection.behind -= len(data)
                else:
                    connection.news.clear()
                    continue
                async with asyncio.timeout(STALL):
                    await connection.websocket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError):
            pass
        except TimeoutError:
            log.warning("data plane %s of %s/%s does not take what it is sent", connection.instance, *connection.gateway)
            connection.transport.abort()

    def _whole(self, channel: Channel, gateway: GatewayName) -> bytes:
        if not channel.whole:
            channel.whole = _encode(self._publications.setdefault(gateway, Publication()).whole())
        return channel.whole

    # --- what is heard ---

    async def _listen(self, channel: Channel, connection: FeedConnection) -> None:
        websocket = connection.websocket
        allowance = Allowance(asyncio.get_running_loop().time, rate=MESSAGES, saved=SAVED)
        async for message in websocket:
            if wait := allowance.take():
                await asyncio.sleep(wait)
            match message.type:
                case aiohttp.WSMsgType.BINARY:
                    self._receive(channel, connection, _decode.decode(message.data))
                case aiohttp.WSMsgType.PING:
                    await websocket.pong(message.data)
                case aiohttp.WSMsgType.PONG:
                    pass
                case _:
                    await websocket.close(code=1003, message=b"binary messages only")

    def _receive(self, channel: Channel, connection: FeedConnection, message: FromDataPlane) -> None:
        match message:
            case Hello(instance):
                connection.instance = plain(instance, 253)
                log.info("data plane %s follows %s/%s", connection.instance, *connection.gateway)
            case Proof(token):
                connection.token = token[:TOKEN]
            case Acknowledgement(version, problems):
                connection.version = version[:64]
                connection.problems = _clean(problems)
                self._applied(channel, connection)

    def _applied(self, channel: Channel, connection: FeedConnection) -> None:
        connection.acknowledged = max(connection.acknowledged, channel.order.get(connection.version, 0))
        self._settle(channel)
        self.on_acknowledged(connection.gateway)

    def _settle(self, channel: Channel) -> None:
        reached = channel.reached()
        still = []
        for position, future in channel.waiting:
            if position <= reached:
                if not future.done():
                    future.set_result(None)
            else:
                still.append((position, future))
        channel.waiting = still


class Allowance:
    """So many of something a second, and some more at once for who was silent before."""

    def __init__(self, clock: Callable[[], float], *, rate: float, saved: float) -> None:
        self._clock = clock
        self._rate = rate
        self._most = saved
        self._left = saved
        self._at = clock()

    def take(self) -> float:
        """One more; returns the seconds to wait before it is looked at."""
        self._renew()
        self._left -= 1
        return max(-self._left / self._rate, 0.0)

    def wait(self) -> float:
        """Seconds until one more can be taken without waiting; takes none."""
        self._renew()
        return max((1 - self._left) / self._rate, 0.0)

    def _renew(self) -> None:
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._rate, self._most)
        self._at = now


async def _close(connection: FeedConnection, why: str) -> None:
    """Say why, to one that listens; whoever does not read does not answer a polite close either."""
    try:
        async with asyncio.timeout(PARTING):
            await connection.websocket.close(code=1008, message=why.encode())
    except TimeoutError:
        pass
    finally:
        connection.transport.abort()


def _clean(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """What a data plane says ends in statuses and logs, and is believed as far as that goes."""
    short = (
        Problem(problem.part, plain(problem.message, SHORT)) for problem, _ in zip(problems, range(REPORTED), strict=False)
    )
    return tuple(short)


def _refusal(status: int, text: str) -> web.Response:
    """A refusal, and the end of the connection: who tries again comes in by the door again."""
    response = web.Response(status=status, text=f"{text}\n")
    response.force_close()
    return response
