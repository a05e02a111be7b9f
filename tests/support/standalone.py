"""`fsm run` as a user runs it: a process of its own, on files in a directory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from controller.ports import free_ports

CANARY = files("controller") / "data" / "canary"


class Running:
    """A gateway process, what it says, and requests to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, admin = free_ports(2)
        self.admin = f"http://127.0.0.1:{admin}"
        self.said = ""
        self.background: list[asyncio.Task[None]] = []
        self.process: asyncio.subprocess.Process
        self.session: aiohttp.ClientSession
        self._reading: asyncio.Task[None]

    async def start(self, *options: str, prefix: tuple[str, ...] = (), path: Path | None = None, ready: bool = True) -> Running:
        self.process = await asyncio.create_subprocess_exec(
            *prefix, sys.executable, "-m", "controller", "run", str(path or self.folder), "--port-offset", str(self.port - 80),
            "--admin", self.admin.removeprefix("http://"), "--workers", "1", *options,
            stderr=asyncio.subprocess.PIPE, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        self.session = aiohttp.ClientSession()
        if ready:
            await self.until(self._is_ready, 60)
        return self

    async def stop(self) -> None:
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        await self.session.close()
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(20):
            await self.process.wait()
            await self._reading

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65536):
            self.said += data.decode()

    async def _is_ready(self) -> bool:
        assert self.process.returncode is None, self.said
        try:
            async with self.session.get(f"{self.admin}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def until(self, check, seconds: float = 40.0) -> None:
        async with asyncio.timeout(seconds):
            while not (await check() if asyncio.iscoroutinefunction(check) else check()):
                await asyncio.sleep(0.005)

    async def get(self, path: str = "/", host: str = "demo.example.com") -> tuple[int, str]:
        async with self.session.get(f"http://127.0.0.1:{self.port}{path}", headers={"Host": host}) as answer:
            return answer.status, await answer.text()

    async def events(self, listening: asyncio.Event) -> AsyncIterator[dict]:
        """Changes as they come into force; `listening` is set once none can be missed."""
        timeout = aiohttp.ClientTimeout(total=None)
        async with self.session.get(f"{self.admin}/events", timeout=timeout) as answer:
            kind = b""
            async for line in answer.content:
                listening.set()
                if line.startswith(b"event: "):
                    kind = line
                elif line.startswith(b"data: ") and not kind:
                    yield json.loads(line[6:])
                elif line == b"\n":
                    kind = b""

    def replace(self, name: str, text: str) -> None:
        """As careful editors do: write beside, then rename."""
        fresh = self.folder / f".{name}.tmp"
        fresh.write_text(text)
        fresh.rename(self.folder / name)


class App:
    """A backend that knows versions, slow downloads and WebSockets."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.port = 0
        app = web.Application()
        app.router.add_get("/ws", self._echo)
        app.router.add_get("/download", self._download)
        app.router.add_get("/{path:.*}", self._version)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> App:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _version(self, _: web.Request) -> web.Response:
        return web.Response(text=self.version)

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        async for message in socket_:
            await socket_.send_str(message.data.upper())
        return socket_

    async def _download(self, request: web.Request) -> web.StreamResponse:
        seconds = float(request.query["seconds"])
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(int(seconds * 10)):
            await response.write(b"%06d\n" % number)
            await asyncio.sleep(0.1)
        return response


@pytest.fixture
async def apps() -> AsyncIterator[tuple[App, App]]:
    made = (await App("v1").start(), await App("v2").start())
    yield made
    for app in made:
        await app.stop()


@pytest.fixture
async def running(tmp_path: Path, apps: tuple[App, App]) -> AsyncIterator[Running]:
    for name in ("gateway.yaml", "services.yaml", "httproute.yaml", "endpoints.yaml"):
        text = (
            (CANARY / name)
            .read_text()
            .replace("port: 8081", f"port: {apps[0].port}")
            .replace("port: 8082", f"port: {apps[1].port}")
        )
        (tmp_path / name).write_text(text)
    gateway = Running(tmp_path)
    yield gateway
    await gateway.stop()
