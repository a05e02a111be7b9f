"""Serve changes to data planes, and take their acknowledgements.

One WebSocket for each data plane: the whole snapshot first, then each change as it is published. A data plane
proves who it is by its ServiceAccount's token, and gets the parts of its own Gateway and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import msgspec
from aiohttp import web

from controller.reconcile import Publication
from controller.translate import GatewayName
from gateway.feed import Applied, FromDataPlane, Hello
from gateway.snapshot import Change, Problem, key

log = logging.getLogger("fsm.feed")

REMEMBERED: Final = 4096  # versions of a Gateway whose order is known
HEARTBEAT: Final = 5.0

_encode = msgspec.msgpack.Encoder().encode
_decode: msgspec.msgpack.Decoder[FromDataPlane] = msgspec.msgpack.Decoder(FromDataPlane)

# (bearer token, the Gateway asked for) → whether it may read it.
Authorise = Callable[[str, GatewayName], Awaitable[bool]]


@dataclass(eq=False)
class Connection:
    """One data plane."""

    gateway: GatewayName
    instance: str = ""
    queue: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    acknowledged: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass
class Channel:
    """One Gateway: its versions in order, and who follows it."""

    connections: set[Connection] = field(default_factory=set)
    order: OrderedDict[str, int] = field(default_factory=OrderedDict)  # version → position
    position: int = 0
    opened: int = 0  # the position since which listeners and certificates are as they are now
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    def is_programmed(self) -> bool:
        """Whether a data plane has applied the listeners as they are now."""
        return any(connection.acknowledged >= max(self.opened, 1) for connection in self.connections)

    def reached(self) -> int:
        """The position that every connected data plane has applied."""
        return min((connection.acknowledged for connection in self.connections), default=self.position)


class FeedServer:
    """See the module. `on_acknowledged` hears of every acknowledgement and of every data plane that goes."""

    def __init__(self, publications: dict[GatewayName, Publication], authorise: Authorise) -> None:
        self._publications = publications
        self._authorise = authorise
        self._channels: dict[GatewayName, Channel] = {}
        self._runner: web.AppRunner | None = None
        self.on_acknowledged: Callable[[GatewayName], None] = lambda _: None

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """Listen; returns the port."""
        app = web.Application()
        app.router.add_get("/feed/{namespace}/{name}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Let every data plane go; they turn to another replica or serve on by themselves."""
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
        data = _encode(change)
        for connection in channel.connections:
            connection.queue.put_nowait(data)

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

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        gateway = (request.match_info["namespace"], request.match_info["name"])
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise web.HTTPUnauthorized(text="a bearer token is needed\n")
        if not await self._authorise(token, gateway):
            raise web.HTTPForbidden(text=f"this token may not read Gateway {gateway[0]}/{gateway[1]}\n")
        websocket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=1 << 20)
        await websocket.prepare(request)
        channel = self.channel(gateway)
        connection = Connection(gateway)
        publication = self._publications.setdefault(gateway, Publication())
        channel.order.setdefault(publication.version, channel.position)
        connection.queue.put_nowait(_encode(publication.whole()))
        channel.connections.add(connection)
        sending = asyncio.create_task(self._send(websocket, connection))
        try:
            async for message in websocket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    self._receive(channel, connection, _decode.decode(message.data))
        except msgspec.DecodeError as error:
            log.warning("data plane %s of %s/%s: %s", connection.instance, *gateway, error)
        finally:
            sending.cancel()
            channel.connections.discard(connection)
            self._settle(channel)
            self.on_acknowledged(gateway)
        return websocket

    async def _send(self, websocket: web.WebSocketResponse, connection: Connection) -> None:
        try:
            while True:
                await websocket.send_bytes(await connection.queue.get())
        except (ConnectionError, aiohttp.ClientError):
            pass

    def _receive(self, channel: Channel, connection: Connection, message: FromDataPlane) -> None:
        match message:
            case Hello(instance):
                connection.instance = instance
                log.info("data plane %s follows %s/%s", instance, *connection.gateway)
            case Applied(version, problems):
                connection.acknowledged = max(connection.acknowledged, channel.order.get(version, 0))
                connection.problems = problems
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
