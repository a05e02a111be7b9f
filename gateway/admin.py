"""The admin server: health, readiness, metrics, the snapshot in force, a stream of changes, and a page.

Listens where it is told (loopback by default). Private keys never leave through it, and nothing can be changed through
it but the sources of filters, where whoever runs the data plane offers that and to whoever shows the key.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.messages import Statistics
from gateway.snapshot import Parts, Problem, redacted
from gateway.telemetry.metrics import Supervision, exposition

PAGE: Final = {  # the files of the page, and what browsers must take them for
    file.name: {"html": "text/html", "css": "text/css", "js": "text/javascript"}[file.name.rpartition(".")[2]]
    for file in (files("gateway") / "page").iterdir()
    if file.is_file()
}
GUARD: Final = {  # the page runs its own scripts only, and in nobody's frame
    "Content-Security-Policy": "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LARGEST: Final = 1 << 20  # bytes of a source


class DataPlane(Protocol):
    """What the admin server shows."""

    parts: Parts
    version: str

    @property
    def problems(self) -> tuple[Problem, ...]: ...

    async def statistics(self) -> list[Statistics]: ...

    async def is_well(self) -> bool: ...

    def supervision(self) -> Supervision: ...


class Applied(msgspec.Struct, frozen=True):
    """A change that is in force: when (seconds since 1970), what it touched, and how long that took."""

    at: float
    version: str
    parts: tuple[str, ...]
    milliseconds: float


class Source(msgspec.Struct, frozen=True):
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
    """Whoever knows where the sources of filters are written."""

    def sources(self) -> list[Source]:
        """All of them."""

    async def save(self, name: str, text: str, digest: str) -> Saved:
        """Write one, if it still is what `digest` names, and wait until it is in force or refused. Raises EditError."""


class Admin:
    """The server. `extra` adds pages of whoever runs the data plane; with an `editor` the sources of filters can be changed."""

    def __init__(
        self, plane: DataPlane, *, extra: dict[str, Callable[[], Awaitable[Any]]] | None = None, editor: Editor | None = None
    ) -> None:
        self._plane = plane
        self._extra = extra or {}
        self._editor = editor
        self._listeners: set[asyncio.Queue[Applied]] = set()
        self._runner: web.AppRunner | None = None
        self._is_local = False
        self.ready = False
        self.address = ""
        self.key = ""  # whoever shows it may edit; "" where nobody may

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any free one. `address` then says where."""
        app = web.Application(client_max_size=LARGEST, middlewares=[self._for_this_machine])
        app.router.add_get("/", self._page)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/snapshot", self._snapshot)
        app.router.add_get("/statistics", self._statistics)
        app.router.add_get("/events", self._events)
        for path, answer in self._extra.items():
            app.router.add_get(path, _json_handler(answer))
        if self._editor is not None:
            app.router.add_get("/filters", self._sources)
            app.router.add_put("/filters/{name}", self._save)
        app.router.add_get("/{file:[a-z]+[.][a-z]+}", self._page)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound = self._runner.addresses[0]
        self.address = f"http://[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"http://{bound[0]}:{bound[1]}"
        self._is_local = _is_of_this_machine(bound[0])
        self.key = secrets.token_urlsafe(18) if self._is_local and self._editor is not None else ""

    async def stop(self) -> None:
        """Stop listening."""
        for queue in self._listeners:
            queue.put_nowait(Applied(0, "", (), 0))
        if self._runner is not None:
            await self._runner.cleanup()

    def applied(self, version: str, parts: tuple[str, ...], seconds: float) -> None:
        """Tell everybody who listens that a change is in force."""
        event = Applied(time.time(), version, parts, seconds * 1000)
        for queue in self._listeners:
            queue.put_nowait(event)

    @web.middleware
    async def _for_this_machine(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """On loopback, a Host that is not of loopback is another site's name that was pointed here (DNS rebinding)."""
        if self._is_local and not _is_of_this_machine(request.url.host or ""):
            words = "this is the admin server of a gateway on this machine: ask for it as 127.0.0.1\n"
            return web.Response(status=421, text=words)
        return await handler(request)

    async def _page(self, request: web.Request) -> web.Response:
        name = request.match_info.get("file", "index.html")
        if name not in PAGE:
            raise web.HTTPNotFound
        text = (files("gateway") / "page" / name).read_text()
        return web.Response(text=text, content_type=PAGE[name], charset="utf-8", headers=GUARD)

    async def _healthz(self, _: web.Request) -> web.Response:
        return await self._health(is_fit=True)

    async def _readyz(self, _: web.Request) -> web.Response:
        return await self._health(is_fit=self.ready)

    async def _health(self, *, is_fit: bool) -> web.Response:
        """Well is a gateway of which a worker answers; they are asked."""
        if not is_fit:
            return web.Response(status=503, text="not ready\n")
        if not await self._plane.is_well():
            return web.Response(status=503, text="no worker answers\n")
        return web.Response(text="ok\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        text = exposition(await self._plane.statistics(), self._plane.supervision())
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _snapshot(self, _: web.Request) -> web.Response:
        return _json(
            {
                "version": self._plane.version,
                "parts": [redacted(part) for part in self._plane.parts.values()],
                "problems": self._plane.problems,
            }
        )

    async def _statistics(self, _: web.Request) -> web.Response:
        return _json(await self._plane.statistics())

    async def _sources(self, _: web.Request) -> web.Response:
        assert self._editor is not None
        return _json(self._editor.sources())

    async def _save(self, request: web.Request) -> web.Response:
        """Write a source. The key comes in a field that no page of another site can send (Fetch, "CORS-safelisted")."""
        assert self._editor is not None
        if not self.key:
            return web.Response(status=403, text="sources can be edited only where the admin server listens on loopback\n")
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), self.key.encode()):
            return web.Response(
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
                text="this is not the key of this gateway; fsm run prints the address that has it, a new one at each start\n",
            )
        digest = request.headers.get("If-Match", "").strip('"')
        if not digest:
            return web.Response(status=428, text='If-Match: "DIGEST" is needed, as /filters gives it\n')
        try:
            text = (await request.read()).decode()
            return _json(await self._editor.save(request.match_info["name"], text, digest))
        except UnicodeDecodeError as error:
            return web.Response(status=400, text=f"the source is not UTF-8: {error}\n")
        except EditError as error:
            return web.Response(status=error.status, text=f"{error}\n")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: one for each change that came into force."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        queue: asyncio.Queue[Applied] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            await response.write(b": hello\n\n")
            while (event := await queue.get()).at:
                await response.write(b"data: " + msgspec.json.encode(event) + b"\n\n")
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._listeners.discard(queue)
        return response


def _is_of_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761, 6.3


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", headers={"Cache-Control": "no-store"})


def _json_handler(answer: Callable[[], Awaitable[Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return _json(await answer())

    return handle
