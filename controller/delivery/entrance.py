"""Accept connections for a web server of ours. Its law: a stranger holds one of few places, and not for long.

A stranger is who has connected and not shown yet who it is (`known`), in the middle of a TLS handshake or of a request's
head for instance. There are so many places for strangers in all, and so many for one address; who comes when they are
taken is hung up on at once. So nobody keeps others out, nor takes descriptors that the controller needs for itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp.http_exceptions import HttpProcessingError

log = logging.getLogger("fsm.entrance")

STRANGERS: Final = 256
OF_ONE_ADDRESS: Final = 32
SECONDS: Final = 10.0  # that a stranger may stay one
HANDSHAKE: Final = 5.0  # seconds for TLS, of these
BACKLOG: Final = 128
STALL: Final = 60.0  # seconds for what is sent to arrive
PAUSE: Final = 0.2  # seconds without accepting where the system has no descriptor left


class _OursOnly(logging.Filter):
    """What is no HTTP is its sender's fault: a stranger does not write into our log, least of all tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not isinstance(error, HttpProcessingError | ConnectionError)


http_log = logging.getLogger("fsm.entrance.http")  # for web servers behind an entrance
http_log.addFilter(_OursOnly())


class Guest(asyncio.Protocol):
    """One connection: passes everything on to the web server's own protocol, and notices its end."""

    def __init__(self, inner: asyncio.Protocol, address: str, entrance: Entrance) -> None:
        self._inner = inner
        self._entrance = entrance
        self.address = address
        self.peer: object = None
        self.transport: asyncio.Transport | None = None
        self.data_received = inner.data_received  # type: ignore[method-assign]  # one call less for each read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self.peer = transport.get_extra_info("peername")
        self._entrance.guests[self.peer] = self
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._entrance.gone(self)
        self._inner.connection_lost(error)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class Entrance:
    """Admits connections of data planes before they have authenticated themselves.

    `make` gives the web server's protocol for one connection (`web.AppRunner.server`).
    """

    def __init__(
        self, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None = None, *,
        strangers: int = STRANGERS, of_one_address: int = OF_ONE_ADDRESS, seconds: float = SECONDS,
    ) -> None:  # fmt: skip
        self._make = make
        self._context = context
        self._most = strangers
        self._most_of_one = of_one_address
        self._seconds = seconds
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: dict[Guest, asyncio.TimerHandle] = {}
        self._places: Counter[str] = Counter()  # that strangers of an address hold
        self.guests: dict[Any, Guest] = {}
        self.refused = 0

    async def start(self, host: str, port: int) -> int:
        """Listen, on every address where `host` is empty; returns the port."""
        addresses = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in addresses:
            try:
                listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)  # IPv6 is bound for itself
            except OSError:
                if len(addresses) == 1:
                    raise
                continue  # of several addresses one may be missing: a machine without IPv6
            listening.setblocking(False)
            self._sockets.append(listening)
            self._spawn(self._accept(listening))
        if not self._sockets:
            raise OSError(f"port {port} cannot be listened on")
        return int(self._sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Let nobody in any more; whoever is in, stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()

    def known(self, transport: asyncio.BaseTransport | None) -> None:
        """The connection has authenticated itself and keeps its place."""
        guest = self.guests.get(transport.get_extra_info("peername")) if transport is not None else None
        if guest is not None:
            self._leave_place(guest)

    def gone(self, guest: Guest) -> None:
        """A connection has ended."""
        self.guests.pop(guest.peer, None)
        self._leave_place(guest)

    def strangers(self) -> int:
        """How many places are taken."""
        return len(self._strangers)

    # --- one connection ---

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:
                log.warning("connections cannot be accepted: %s", error)
                await asyncio.sleep(PAUSE)
                continue
            if len(self._strangers) >= self._most or self._places[peer[0]] >= self._most_of_one:
                self.refused += 1
                accepted.close()
                continue
            # Who takes nothing of what it is sent for so long is gone, whatever it says meanwhile (Linux: tcp(7)).
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL * 1000))
            guest = Guest(self._make(), peer[0], self)
            self._places[guest.address] += 1
            self._strangers[guest] = loop.call_later(self._seconds, self._expel, guest)
            self._spawn(self._welcome(guest, accepted))

    async def _welcome(self, guest: Guest, accepted: socket.socket) -> None:
        within = HANDSHAKE if self._context is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guest, accepted, ssl=self._context, ssl_handshake_timeout=within
            )
        except (OSError, ssl.SSLError, TimeoutError):
            accepted.close()
            self.gone(guest)
        except BaseException:
            accepted.close()
            self.gone(guest)
            raise

    def _expel(self, guest: Guest) -> None:
        if guest.transport is not None:
            guest.transport.abort()

    def _leave_place(self, guest: Guest) -> None:
        timer = self._strangers.pop(guest, None)
        if timer is not None:
            timer.cancel()
            self._places[guest.address] -= 1
            if not self._places[guest.address]:
                del self._places[guest.address]

    def _spawn(self, work: Any) -> None:
        self._tasks.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self._tasks.discard)
