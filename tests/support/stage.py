"""A controller at an API server that knows rights."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from kubernetes_asyncio import client

from controller.kubernetes import feed_tls
from controller.kubernetes.api import Api
from controller.kubernetes.controller import Cluster, Options
from controller.objects.kinds import KINDS
from controller.ports import free_ports
from gateway.admin.feed import Feed, FeedSource
from gateway.snapshot import Change, Problem
from support.apiserver import ApiServer, Json, rights

PLURALS = {name: kind.plural for name, kind in KINDS.items()}


class Stage:
    """A cluster's API server, and the controller at it."""

    def __init__(self, granted: list[Json] | None, secret_namespaces: tuple[str, ...] = ()) -> None:
        self.secret_namespaces = secret_namespaces
        self.server = ApiServer(rights(granted) if granted is not None else None)
        (self.port,) = free_ports(1)
        self.controller: Cluster

    @contextlib.asynccontextmanager
    async def running(self, identity: str = "one") -> AsyncIterator[Cluster]:
        host = await self.server.start()
        api_client = client.ApiClient(configuration=client.Configuration(host=host))
        options = Options(
            "fsm-system", identity, "image:1", "localhost", self.port, "127.0.0.1", secret_namespaces=self.secret_namespaces
        )
        self.controller = Cluster(Api(api_client), options)
        running = asyncio.create_task(self.controller.run())
        try:
            await self.until(lambda: self.controller.ready)
            yield self.controller
        finally:
            running.cancel()
            result = await asyncio.gather(running, return_exceptions=True)
            await api_client.close()
            await self.server.stop()
            assert isinstance(result[0], asyncio.CancelledError), result[0]

    async def until(self, check, seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while not check():
                await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def data_plane(self, folder: Path, gateway: str, problems: tuple[Problem, ...] = ()) -> AsyncIterator[list[Change]]:
        namespace, _, name = gateway.partition("/")
        user = f"system:serviceaccount:{namespace}:{name}-fsm-gateway-cls"
        self.server.tokens["mine"] = {"authenticated": True, "audiences": ["fsm-feed"], "user": {"username": user}}
        (folder / "token").write_text("mine")
        secret = self.server.find("secrets", "fsm-system", feed_tls.SECRET)
        assert secret is not None
        source = FeedSource(
            f"https://localhost:{self.port}",
            gateway,
            token=folder / "token",
            authority=feed_tls.Authority.from_secret(secret).pem,
        )
        told: list[Change] = []

        async def put(change: Change) -> tuple[Problem, ...]:
            told.append(change)
            return problems

        following = asyncio.create_task(Feed(source, put, cache=None, instance="plane").run())
        try:
            yield told
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
