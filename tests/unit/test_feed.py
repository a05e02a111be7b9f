"""The feed over real TLS: who may read what, acknowledgements, and changing over to another replica."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from controller.delivery.feed_server import FeedServer
from controller.delivery.reconcile import Publication
from controller.kubernetes.feed_tls import Authority
from gateway.admin.feed import Feed, FeedSource
from gateway.snapshot import Backend, Change, Endpoint, Listener, Problem, difference, key

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


async def test_a_data_plane_is_told_everything_then_what_changes(tmp_path: Path, authority: Authority) -> None:
    side = await Side().start(authority)
    side.publish(Listener("l", 80), Backend("b"))
    plane = Plane(side, authority, tmp_path)
    await until(lambda: plane.told)
    assert {part.name for part in plane.told[0].put} == {"l", "b"}
    channel = side.server.channel(GATEWAY)
    await until(channel.is_programmed)
    change = side.publish(Backend("b", (Endpoint("10.0.0.1", 80),)))
    await side.server.wait_applied({GATEWAY}, at_most=5)
    assert plane.told[-1] == difference({}, {("backend", "b"): Backend("b", (Endpoint("10.0.0.1", 80),))}, change.version)
    side.publish(Listener("m", 81))
    assert not channel.is_programmed()
    await until(channel.is_programmed)
    plane.problems = (Problem("m", "port 81 is in use"),)
    side.publish(Listener("m", 82))
    await until(lambda: any(c.problems for c in channel.connections))
    await plane.stop()
    await side.server.stop()


@pytest.mark.parametrize(
    ("token", "gateway", "status"), [("bad", "default/gw", 403), ("good", "other/gw", 403), ("", "default/gw", 401)]
)
async def test_who_may_not(authority: Authority, token: str, gateway: str, status: int) -> None:
    side = await Side().start(authority)
    side.publish(Listener("l", 80))
    source = FeedSource(f"https://{NAME}:{side.port}", gateway, authority=authority.pem)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"wss://{NAME}:{side.port}/feed/{gateway}", ssl=source.context, headers=headers)
    assert caught.value.status == status
    await side.server.stop()


async def test_a_controller_that_cannot_prove_its_name_is_not_listened_to(tmp_path: Path, authority: Authority) -> None:
    side = await Side().start(Authority.new())
    side.publish(Listener("l", 80))
    plane = Plane(side, authority, tmp_path)
    await asyncio.sleep(0.5)
    assert not plane.told
    await plane.stop()
    await side.server.stop()


async def test_the_last_good_snapshot_serves_without_a_controller(tmp_path: Path, authority: Authority) -> None:
    side = await Side().start(authority)
    side.publish(Listener("l", 80))
    first = Plane(side, authority, tmp_path)
    await until(lambda: (tmp_path / "snapshot").exists())
    assert (tmp_path / "snapshot").stat().st_mode & 0o777 == 0o600
    await first.stop()
    await side.server.stop()
    second = Plane(side, authority, tmp_path)
    await until(lambda: second.told)
    assert {part.name for part in second.told[0].put} == {"l"}
    # The controller comes back with something else: only the difference is told.
    again = Side()
    again.publish(Listener("l", 80), Backend("b"))
    await again.start(authority, side.port)
    await until(lambda: len(second.told) > 1, 10)
    assert {part.name for part in second.told[1].put} == {"b"}
    await second.stop()
    await again.server.stop()


async def test_a_gateway_with_nothing_to_serve_is_followed_all_the_same(tmp_path: Path, authority: Authority) -> None:
    """Its listeners are not valid, say: the data plane is ready, and waits for better days."""
    side = await Side().start(authority)
    plane = Plane(side, authority, tmp_path)
    async with asyncio.timeout(5):
        await plane.feed.synced.wait()
    side.publish(Listener("l", 80))
    await until(lambda: plane.told and plane.told[-1].put)
    await plane.stop()
    await side.server.stop()
