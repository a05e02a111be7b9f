"""`fsm controller`: the controller's process, with its probes."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable

import uvloop
from aiohttp import web

from controller.delivery.entrance import Entrance, http_log
from controller.deploy import manifests
from controller.deploy.install import NAME, namespaces
from controller.kubernetes.api import connect
from controller.kubernetes.controller import Cluster, Options
from gateway.base.logs import FORMAT
from gateway.base.privacy import keep_to_yourself


def run_controller(
    *, namespace: str, identity: str, image: str, feed_port: int, health_port: int, inline: bool, secret_namespaces: str
) -> None:
    """Run until SIGTERM."""
    keep_to_yourself()
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    options = Options(
        namespace=namespace,
        identity=identity or socket.gethostname(),
        image=image or manifests.default_image(),
        feed_host=f"{NAME}.{namespace}.svc",
        feed_port=feed_port,
        inline_filters=inline,
        secret_namespaces=namespaces(secret_namespaces),
    )
    raise SystemExit(uvloop.run(_run(options, health_port)))


async def _run(options: Options, health_port: int) -> int:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with connect() as api:
        cluster = Cluster(api, options)
        health = await _serve_health(cluster, health_port)
        running = asyncio.create_task(cluster.run())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        cluster.ready = False
        failed = running.done()
        running.cancel()
        stopped.cancel()
        (result,) = await asyncio.gather(running, return_exceptions=True)
        await health()
        if failed and isinstance(result, Exception):
            raise result
    return 0


async def _serve_health(cluster: Cluster, port: int) -> Callable[[], Awaitable[None]]:
    """Answer probes; returns how to stop that."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if cluster.ready else web.Response(status=503, text="not ready\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=cluster.reconciler.problems.metrics(), content_type="text/plain")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, logger=http_log)
    await runner.setup()
    assert runner.server is not None
    entrance = Entrance(runner.server)  # where everybody stays a stranger
    await entrance.start("", port)

    async def stop() -> None:
        await entrance.stop()
        await runner.cleanup()

    return stop
