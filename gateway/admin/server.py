"""The admin server: health, readiness, metrics, the snapshot in force, a stream of changes, and a page.

Listens where it is told (loopback by default). Private keys never leave through it, and nothing can be changed through
it but the sources of filters, where whoever runs the data plane offers that and to whoever shows the key. What its callers
may make it spend is bounded (`callers.py`).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.admin.callers import IDLE, STREAMS, AdminListener, Once, Places, bearer, is_of_this_machine, refusal
from gateway.base.logs import SHORT, plain
from gateway.process.messages import Statistics
from gateway.process.metrics import Callers, Supervision, exposition
from gateway.snapshot import Parts, Problem, redacted

log = logging.getLogger("fsm.admin")
PAGE: Final = {  # the files of the page, and what browsers must take them for
    file.name: {"html": "text/html", "css": "text/css", "js": "text/javascript"}[file.name.rpartition(".")[2]]
    for file in (files("gateway.admin") / "page").iterdir()
    if file.is_file()
}
GUARD: Final = {  # with every answer: the page runs its own scripts only, and in nobody's frame; nothing is for other sites
    "Content-Security-Policy": "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "fsm",
}
MAX_SOURCE_BYTES: Final = 1 << 20  # bytes of a source
ANSWERED: Final = 30.0  # seconds in which an answer is made and has been taken
SENT: Final = 10.0  # seconds in which a source has come
SAVED: Final = 120.0  # seconds in which it is in force or refused
ALIVE: Final = 15.0  # seconds between signs of life on a stream of changes
PIECE: Final = 1 << 16  # bytes that are written at once
TOLD: Final = b"event: told\ndata: {}\n\n"  # on the stream of changes
LISTED: Final = 1000  # parts that a change names


class DataPlane(Protocol):
    """What the admin server shows."""

    parts: Parts
    version: str
    bind: str  # the address that it listens on; "" for all
    port_offset: int  # what is added to the ports of listeners

    @property
    def problems(self) -> tuple[Problem, ...]: ...

    async def statistics(self) -> list[Statistics]: ...

    async def is_well(self, *, whole: bool = False) -> bool: ...

    def supervision(self) -> Supervision: ...


class AppliedChange(msgspec.Struct, frozen=True):
    """A change that is in force: when (seconds since 1970), what it touched, and how long that took."""

    at: float
    version: str
    parts: tuple[str, ...]
    milliseconds: float


class FilterSource(msgspec.Struct, frozen=True):
    """A filter's source as it is written. `digest` names this text; "" where it cannot be written: see `unwritable`."""

    name: str
    source: str
    where: str
    digest: str = ""
    unwritable: str = ""


class Saved(msgspec.Struct, frozen=True):
    """What became of a source that was written."""

    in_force: bool
    message: str
    digest: str = ""  # names the text that stands there now


class EditError(Exception):
    """A source that is not written: an HTTP status, and why in words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Editor(Protocol):
    """Finds where the sources of filters are written, and writes them."""

    def sources(self) -> list[FilterSource]:
        """All of them."""

    async def save(self, name: str, text: str, digest: str) -> Saved:
        """Write one, if it still is what `digest` names, and wait until it is in force or refused. Raises EditError."""


class Admin:
    """The server. `extra` adds pages of whoever runs the data plane; with an `editor` the sources of filters can be changed."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        extra: Mapping[str, Callable[[], Awaitable[Any]]] | None = None,
        editor: Editor | None = None,
    ) -> None:
        self._plane = plane
        self._editor = editor
        self._listeners: set[AdminListener] = set()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._places: Places | None = None
        self._let_go = 0  # listeners that did not read, or were one too many
        self._is_local = False
        self._reads: dict[str, tuple[Once, str]] = {
            "/metrics": (Once(self._metrics), "text/plain; version=0.0.4; charset=utf-8"),
            "/snapshot": (Once(self._snapshot, fresh=True), "application/json"),
            "/statistics": (Once(self._statistics), "application/json"),
            **{
                path: (Once(partial(_encoded, answer), fresh=True), "application/json")
                for path, answer in (extra or {}).items()
            },
        }
        if editor is not None:
            self._reads["/filters"] = Once(self._sources, fresh=True), "application/json"
        self.ready = False
        self.address = ""
        self.key = ""  # whoever shows it may edit; "" where nobody may

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any free one. `address` then says where."""
        app = web.Application(client_max_size=MAX_SOURCE_BYTES, middlewares=[self._bounded])
        app.router.add_get("/", self._page)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/events", self._events, allow_head=False)
        for path in self._reads:
            app.router.add_get(path, self._read)
        if self._editor is not None:
            app.router.add_put("/filters/{name}", self._save)
        app.router.add_get("/{file:[a-z]+[.][a-z]+}", self._page)
        app.on_response_prepare.append(_guard)
        # What callers do wrong is theirs; what we do wrong is logged below.
        silent = logging.getLogger("fsm.admin.http")
        silent.setLevel(logging.CRITICAL)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=0.5,
            keepalive_timeout=IDLE,
            auto_decompress=False,
            lingering_time=1.0,
            logger=silent,
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._places = Places(self._runner.server)
        self._server = await asyncio.get_running_loop().create_server(self._places.protocol, host, port)
        bound = self._server.sockets[0].getsockname()
        self.address = f"http://[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"http://{bound[0]}:{bound[1]}"
        self._is_local = is_of_this_machine(bound[0])
        self.key = secrets.token_urlsafe(18) if self._is_local and self._editor is not None else ""

    async def stop(self) -> None:
        """Stop listening."""
        for listener in self._listeners:
            listener.close()
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def applied(self, version: str, parts: tuple[str, ...], seconds: float) -> None:
        """Tell everybody who listens that a change is in force."""
        if not self._listeners:
            return
        named = (*parts[:LISTED], f"and {len(parts) - LISTED} more") if len(parts) > LISTED else parts
        self._tell(b"data: " + msgspec.json.encode(AppliedChange(time.time(), version, named, seconds * 1000)) + b"\n\n")

    def told(self) -> None:
        """Tell everybody who listens that something else is said now of what was written: /status, /faults, problems."""
        self._tell(TOLD)

    def _tell(self, event: bytes) -> None:
        for listener in list(self._listeners):
            self._let_go += not listener.tell(event)

    @web.middleware
    async def _bounded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse who may not ask; answer whatever happens, and within reason."""
        try:
            refused = refusal(request, is_local=self._is_local)
            if refused is not None:
                return refused
            if request.path == "/events":
                return await handler(request)
            within = SAVED if request.method == "PUT" else ANSWERED
            async with asyncio.timeout(within):
                response = await handler(request)
                await response.prepare(request)
                await response.write_eof()
            return response
        except web.HTTPException as error:  # of the router and of bodies that are too large
            return web.Response(status=error.status, text=f"{error.status}: {error.reason}\n", headers=_allowed(error))
        except TimeoutError:
            if request.transport is not None and not request.writer.output_size:
                return web.Response(status=503, text=f"there is no answer within {within:g} s\n")
            if request.transport is not None:  # whoever asked does not read
                request.transport.abort()
            raise ConnectionError from None
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s", plain(request.path, SHORT))
            if request.writer.output_size:
                raise ConnectionError from None
            return web.Response(status=500, text="this is a fault of the admin server; its log says more\n")

    async def _read(self, request: web.Request) -> web.StreamResponse:
        once, content_type = self._reads[request.path]
        body = await once.get()
        response = web.StreamResponse(headers={"Content-Type": content_type})
        response.content_length = len(body)
        await response.prepare(request)
        if request.method != "HEAD":
            view = memoryview(body)  # all who ask get the same bytes, without a copy for each
            for at in range(0, len(body), PIECE):
                await response.write(view[at : at + PIECE])
        return response

    async def _page(self, request: web.Request) -> web.Response:
        name = request.match_info.get("file", "index.html")
        if name not in PAGE:
            raise web.HTTPNotFound
        text = (files("gateway.admin") / "page" / name).read_text()
        return web.Response(text=text, content_type=PAGE[name], charset="utf-8")

    async def _healthz(self, _: web.Request) -> web.Response:
        return await self._health()

    async def _readyz(self, _: web.Request) -> web.Response:
        if not self.ready:
            return web.Response(status=503, text="not ready\n")
        return await self._health(whole=True)

    async def _health(self, *, whole: bool = False) -> web.Response:
        """Well is a gateway of which a worker answers; they are asked."""
        if not await self._plane.is_well(whole=whole):
            return web.Response(status=503, text=f"no worker{' that has all that is in force' if whole else ''} answers\n")
        return web.Response(text="ok\n")

    async def _metrics(self) -> bytes:
        workers, supervision = await self._plane.statistics(), self._plane.supervision()
        turned_away = self._places.turned_away if self._places is not None else 0
        counts = Callers(len(self._listeners), self._let_go, turned_away)
        return await asyncio.to_thread(exposition, workers, supervision, counts)

    async def _snapshot(self) -> bytes:
        plane = self._plane
        version, parts, problems = plane.version, list(plane.parts.values()), plane.problems
        bind, offset = plane.bind, plane.port_offset

        def encoded() -> bytes:
            shown = {"version": version, "listening": bind, "port_offset": offset, "problems": problems}
            return msgspec.json.encode({**shown, "parts": [redacted(part) for part in parts]})

        return await asyncio.to_thread(encoded)  # so that a large one does not keep the loop

    async def _statistics(self) -> bytes:
        return msgspec.json.encode(await self._plane.statistics())

    async def _sources(self) -> bytes:
        assert self._editor is not None
        return msgspec.json.encode(self._editor.sources())

    async def _save(self, request: web.Request) -> web.Response:
        """Write a source. The key comes in a field that no page of another site can send (Fetch, "CORS-safelisted")."""
        assert self._editor is not None
        if not self.key:
            return web.Response(status=403, text="sources can be edited only where the admin server listens on loopback\n")
        if not hmac.compare_digest(bearer(request), self.key.encode()):
            return web.Response(
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
                text="this is not the key of this gateway; fsm run prints the address that has it, a new one at each start\n",
            )
        digest = request.headers.get("If-Match", "").strip('"')
        if not digest:
            return web.Response(status=428, text='If-Match: "DIGEST" is needed, as /filters gives it\n')
        try:
            async with asyncio.timeout(SENT):
                text = (await request.read()).decode()
        except TimeoutError:
            return web.Response(
                status=408, text=f"the source has not come within {SENT:g} s\n", headers={"Connection": "close"}
            )
        except UnicodeDecodeError as error:
            return web.Response(status=400, text=f"the source is not UTF-8: {error}\n")
        try:
            return _json(await self._editor.save(request.match_info["name"], text, digest))
        except EditError as error:
            return web.Response(status=error.status, text=f"{plain(str(error), SHORT)}\n")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: one for each change that came into force. Who does not read is let go."""
        if len(self._listeners) >= STREAMS:
            self._let_go += 1
            return web.Response(status=503, text=f"{STREAMS} listen already\n", headers={"Retry-After": "10"})
        transport = request.transport
        listener = AdminListener(transport.abort if transport is not None else lambda: None)
        self._listeners.add(listener)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b": hello\n\n")
            while not listener.is_over:
                event = await listener.next(ALIVE)
                if not listener.is_over:
                    async with asyncio.timeout(ANSWERED):
                        await response.write(event or b": still here\n\n")
        except (ConnectionError, asyncio.CancelledError):
            pass
        except TimeoutError:
            self._let_go += 1
            listener.close()
            if transport is not None:
                transport.abort()
        finally:
            self._listeners.discard(listener)
        return response


async def _guard(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(GUARD)


def _allowed(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


async def _encoded(answer: Callable[[], Awaitable[Any]]) -> bytes:
    return msgspec.json.encode(await answer())
