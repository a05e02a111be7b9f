"""`fsm demo`: the canary on this machine, in a terminal and on a page."""

from __future__ import annotations

import asyncio
import signal
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from aiohttp import web
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.cli.console import out
from controller.demo.canary import HOST, Canary, started

PAUSE, SHORT = 30.0, 5.0  # seconds at each step


def run_demo(*, fast: bool, rate: int, port_offset: int, output: Path | None) -> None:
    """Run it; exit with 1 when a request failed or a share was off."""
    raise SystemExit(uvloop.run(_demo(SHORT if fast else PAUSE, rate, port_offset, output)))


async def _demo(pause: float, rate: int, port_offset: int, output: Path | None) -> int:
    task = asyncio.current_task()
    assert task is not None
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)
    try:
        async with started(rate=rate, port_offset=port_offset) as canary:
            page = Page(canary)
            await page.start()
            try:
                if out.is_terminal:
                    await _watch_live(canary, pause, page.address)
                else:
                    await _watch_lines(canary, pause, page.address)
            finally:
                await page.stop()
            return _finish(canary, output)
    except asyncio.CancelledError:
        out.print("interrupted; everything is stopped")
        return 130


def curl(canary: Canary) -> str:
    """The line to try it."""
    return f"curl -H 'Host: {HOST}' http://127.0.0.1:{canary.port}/callme"


async def _watch_live(canary: Canary, pause: float, page: str) -> None:
    with Live(_screen(canary, page), console=out, refresh_per_second=4, transient=False) as live:
        running = asyncio.create_task(canary.run(pause))
        while not running.done():
            live.update(_screen(canary, page))
            await asyncio.wait([running], timeout=0.25)
        live.update(_screen(canary, page))
        await running


def _screen(canary: Canary, page: str) -> Group:
    table = Table("step", "desired", "observed", "requests", "failed", "p50", "p99", "in force after", title="canary 2.0")
    for index, step in enumerate(canary.steps):
        tally = step.tally
        row = [str(index + 1), f"{step.desired} %"]
        if tally is not None:
            row += [
                f"{step.observed:.1f} %" if step.observed is not None else "…",
                str(tally.requests),
                str(len(tally.failures)),
                f"{tally.quantile(0.5):.1f} ms",
                f"{tally.quantile(0.99):.1f} ms",
                f"{step.propagation_ms:.1f} ms" if step.propagation_ms is not None else "–",
            ]
        table.add_row(*row, style="bold cyan" if index == canary.current and tally else "")
    return Group(table, Text(f"try it: {curl(canary)}"), Text(f"page:   {page}    admin: {canary.admin}"))


async def _watch_lines(canary: Canary, pause: float, page: str) -> None:
    out.print(f"try it: {curl(canary)}", soft_wrap=True)
    out.print(f"page: {page}  admin: {canary.admin}", soft_wrap=True)

    def tell() -> None:
        step = canary.steps[canary.current]
        when = f", in force after {step.propagation_ms:.1f} ms" if step.propagation_ms is not None else ""
        out.print(f"step {canary.current + 1}: {100 - step.desired}/{step.desired}{when}", soft_wrap=True)

    canary.on_change = tell
    await canary.run(pause)


def _finish(canary: Canary, output: Path | None) -> int:
    summary = canary.summary()
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    for step in summary["steps"]:
        out.print(f"desired {step['desired']:>3} %  observed {step['observed']} %  requests {step['requests']}")
    times, latency = summary["propagation_ms"], summary["latency_ms"]
    out.print(
        f"{summary['requests']} requests, {summary['failed']} failed, p50 {latency['p50']} ms, p99 {latency['p99']} ms; "
        f"changes in force after p50 {times['p50']} ms, p99 {times['p99']} ms",
        soft_wrap=True,
    )
    faults = canary.faults()
    for fault in faults:
        out.print(f"[red]{fault}[/]", soft_wrap=True)
    if not faults:
        out.print(
            "[green]The canary went from 0 to 100 % with no failed request and every share as asked for.[/]",
            soft_wrap=True,
        )
    return 1 if faults else 0


class Page:
    """The demo in a browser: the page that shows the canary while it goes."""

    def __init__(self, canary: Canary) -> None:
        self._canary = canary
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/events", self._events)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._stopping = asyncio.Event()
        self.address = ""

    async def start(self) -> None:
        """Listen on a free port of the loopback."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"http://{host}:{port}"

    async def stop(self) -> None:
        """End it, and every open stream."""
        self._stopping.set()
        await self._runner.cleanup()

    def _state(self) -> dict[str, Any]:
        return {**self._canary.summary(), "current": self._canary.current, "curl": curl(self._canary)}

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=(files("controller") / "demo" / "page.html").read_text(), content_type="text/html")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        while not self._stopping.is_set():
            try:
                await response.write(b"data: " + msgspec.json.encode(self._state()) + b"\n\n")
            except ConnectionError:
                break
            await asyncio.wait([asyncio.ensure_future(self._stopping.wait())], timeout=0.5)
        return response
