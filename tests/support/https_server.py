"""An HTTP server on loopback for one test."""

from __future__ import annotations

from aiohttp import web


class Serving:
    """Whoever inherits it adds its routes to `app`."""

    def __init__(self) -> None:
        self.app = web.Application()
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()
