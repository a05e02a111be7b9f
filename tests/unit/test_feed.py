"""The feed over real TLS: who may read what, acknowledgements, and changing over to another replica."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from support.feed import GATEWAY, NAME, Plane, Side, authority, until

from controller.kubernetes.feed_tls import Authority
from gateway.admin.feed import FeedSource
from gateway.snapshot import Backend, Endpoint, Listener, Problem, difference

__all__ = ["authority"]


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
