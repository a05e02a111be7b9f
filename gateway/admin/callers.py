"""Who may ask the admin server, and how much they may make it spend; kept apart from what it says.

Its law: whoever reaches the port costs a bounded number of connections, one answer at a time of each kind, and no more than
half of the process's time; and the caller with the most connections is the one who loses one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

CONNECTIONS: Final = 128
IDLE: Final = 60.0  # seconds that a connection may wait for a (whole) head
EVENTS: Final = 64  # changes that a listener may be behind
STREAMS: Final = 32  # listeners
# RFC 9110, 7.2: uri-host [ ":" port ]; of a reg-name what names of machines are made of.
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)


def is_of_this_machine(host: str) -> bool:
    """Whether a host is loopback's: an address, or a name that means it everywhere (RFC 6761, 6.3)."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        name = host.lower().removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")


def refusal(request: web.Request, *, is_local: bool) -> web.Response | None:
    """The answer to who may not ask, whatever it is; None for who may.

    On loopback, a Host that is not of loopback is another site's name that was pointed here (DNS rebinding).
    """
    hosts = request.headers.getall("Host", [])
    if not hosts and request.version < (1, 1):
        asked = []
    elif len(hosts) == 1:  # RFC 9112, 3.2
        asked = hosts
    else:
        return _refused(400, "exactly one Host is needed")
    absolute = _ABSOLUTE.match(request.raw_path)
    if absolute:  # RFC 9112, 3.2.2: it is what is asked for, whatever Host says
        asked = [*asked, absolute[1]]
    for host in asked:
        match = _HOST.fullmatch(host)
        if match is None:
            return _refused(400, "this is no host")
        if is_local and not is_of_this_machine(match[1]):
            return _refused(421, "this is the admin server of a gateway on this machine: ask for it as 127.0.0.1")
    # What a page of another site sends by itself (Fetch Metadata); following a link is all right.
    site, mode = request.headers.get("Sec-Fetch-Site", ""), request.headers.get("Sec-Fetch-Mode", "")
    if site in ("cross-site", "same-site") and not (mode == "navigate" and request.method == "GET"):
        return _refused(403, "this is not for pages of other sites")
    return None


def bearer(request: web.Request) -> bytes:
    """The one token of a request, b"" where it has none (RFC 6750, 2.1)."""
    fields = request.headers.getall("Authorization", [])
    if len(fields) != 1:
        return b""
    scheme, _, token = fields[0].partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


def _refused(status: int, words: str) -> web.Response:
    return web.Response(status=status, text=f"{words}\n")


class Places:
    """So many connections and no more: a new one takes the place of the oldest one of whoever has most."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self.turned_away = 0

    def protocol(self) -> asyncio.BaseProtocol:
        """Make room for one more connection, by closing an older one where there are too many."""
        asyncio.get_running_loop().call_soon(self._make_room)  # of a burst, those before it are there by then
        return self._server()

    def _make_room(self) -> None:
        transports = [connection.transport for connection in self._server.connections]
        held = [
            (_address(transport), transport) for transport in transports if transport is not None and not transport.is_closing()
        ]
        while len(held) >= CONNECTIONS:
            ((most, _),) = Counter(address for address, _ in held).most_common(1)
            oldest = next(pair for pair in held if pair[0] == most)
            held.remove(oldest)
            oldest[1].abort()
            self.turned_away += 1


def _address(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


class Once:
    """An answer that costs something: who asks while it is made gets the same; and the next is made when as much time has
    passed as the last one took, so that who asks on and on takes half of the time at most.

    Where it must tell of what happened before it was asked for (`fresh`), those who ask while one is made share the next.
    """

    def __init__(self, make: Callable[[], Awaitable[bytes]], *, fresh: bool = False) -> None:
        self._make = make
        self._fresh = fresh
        self._making: asyncio.Task[bytes] | None = None  # the latest
        self._has_begun = False
        self._earliest = 0.0

    async def get(self) -> bytes:
        """The answer."""
        before = self._making
        if before is None or (self._fresh and self._has_begun):
            self._has_begun = False
            self._making = asyncio.create_task(self._made(before))
            self._making.add_done_callback(self._done)
        assert self._making is not None
        return await asyncio.shield(self._making)

    async def _made(self, before: asyncio.Task[bytes] | None) -> bytes:
        if before is not None:
            await asyncio.wait([before])
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._earliest - loop.time(), 0.0))
        self._has_begun = True
        began = loop.time()
        try:
            return await self._make()
        finally:
            now = loop.time()
            self._earliest = now + (now - began)

    def _done(self, task: asyncio.Task[bytes]) -> None:
        if self._making is task:
            self._making = None
        if not task.cancelled():
            task.exception()  # whoever asked has seen it, or is gone


class AdminListener:
    """Somebody who follows changes: what is to be said, bounded."""

    def __init__(self, give_up: Callable[[], Any]) -> None:
        self._waiting: deque[bytes] = deque()
        self._awake = asyncio.Event()
        self._give_up = give_up
        self.is_over = False

    def tell(self, event: bytes) -> bool:
        """One more; False where it is too far behind, and is let go. What is to be said last anyhow is not said twice."""
        if self._waiting and self._waiting[-1] == event:
            return True
        if len(self._waiting) >= EVENTS:
            self.close()
            self._give_up()
            return False
        self._waiting.append(event)
        self._awake.set()
        return True

    def close(self) -> None:
        """Nothing more is said."""
        self.is_over = True
        self._waiting.clear()
        self._awake.set()

    async def next(self, within: float) -> bytes:
        """What is to be said next; b"" at the end, or where there was nothing within so many seconds."""
        if not self._waiting and not self.is_over:
            self._awake.clear()
            try:
                async with asyncio.timeout(within):
                    await self._awake.wait()
            except TimeoutError:
                pass
        return self._waiting.popleft() if self._waiting else b""
