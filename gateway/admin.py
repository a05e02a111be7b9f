"""The admin server: health, readiness, metrics, the snapshot in force, a stream of changes, and a page.

Listens where it is told (loopback by default). Private keys never leave through it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Protocol

import msgspec
from aiohttp import web

from gateway.messages import Statistics
from gateway.snapshot import Parts, Problem, redacted
from gateway.telemetry.metrics import exposition


class DataPlane(Protocol):
    """What the admin server shows."""

    parts: Parts
    version: str
    problems: tuple[Problem, ...]

    async def statistics(self) -> list[Statistics]: ...


class Applied(msgspec.Struct, frozen=True):
    """A change that is in force: when (seconds since 1970), what it touched, and how long that took."""

    at: float
    version: str
    parts: tuple[str, ...]
    milliseconds: float


class Admin:
    """The server. `extra` adds pages of whoever runs the data plane."""

    def __init__(self, plane: DataPlane, *, extra: dict[str, Callable[[], Awaitable[Any]]] | None = None) -> None:
        self._plane = plane
        self._extra = extra or {}
        self._listeners: set[asyncio.Queue[Applied]] = set()
        self._runner: web.AppRunner | None = None
        self.ready = False
        self.alive = True
        self.address = ""

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any free one. `address` then says where."""
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/snapshot", self._snapshot)
        app.router.add_get("/statistics", self._statistics)
        app.router.add_get("/events", self._events)
        for path, answer in self._extra.items():
            app.router.add_get(path, _json_handler(answer))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound = self._runner.addresses[0]
        self.address = f"http://{bound[0]}:{bound[1]}"

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

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=(files("gateway") / "page.html").read_text(), content_type="text/html")

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self.alive else web.Response(status=503, text="not alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self.ready else web.Response(status=503, text="not ready\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        text = exposition(await self._plane.statistics())
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


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _json_handler(answer: Callable[[], Awaitable[Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return _json(await answer())

    return handle
