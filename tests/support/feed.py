"""Both sides of the feed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller.delivery.feed_server import FeedServer
from controller.delivery.reconcile import Publication
from controller.kubernetes.feed_tls import Authority
from gateway.admin.feed import Feed, FeedSource
from gateway.snapshot import Change, Problem, key

GATEWAY = ("default", "gw")
NAME = "localhost"


async def authorise(token: str, gateway: tuple[str, str]) -> str:
    return " " if token == "good" and gateway == GATEWAY else ""


class Side:
    """A controller's side: publications and the server."""

    def __init__(self) -> None:
        self.publications = {GATEWAY: Publication()}
        self.server = FeedServer(self.publications, authorise)
        self.port = 0

    async def start(self, authority: Authority, port: int = 0) -> Side:
        self.port = await self.server.start("127.0.0.1", port, authority.server_context(NAME))
        return self

    def publish(self, *parts) -> Change:
        change = self.publications[GATEWAY].advance({key(part): part for part in parts})
        self.server.publish(GATEWAY, change)
        return change


class Plane:
    """A data plane's side: what it was told, and a token."""

    def __init__(
        self, side: Side, authority: Authority, folder: Path, *, token: str = "good", gateway: str = "default/gw"
    ) -> None:
        file = folder / "token"
        file.write_text(token)
        source = FeedSource(f"https://{NAME}:{side.port}", gateway, token=file, authority=authority.pem)
        self.told: list[Change] = []
        self.problems: tuple[Problem, ...] = ()
        self.feed = Feed(source, self.put, cache=folder / "snapshot", instance="plane")
        self.task = asyncio.create_task(self.feed.run())

    async def put(self, change: Change) -> tuple[Problem, ...]:
        self.told.append(change)
        return self.problems

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(check, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.005)


@pytest.fixture
def authority() -> Authority:
    return Authority.new()
