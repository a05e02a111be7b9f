"""What runs for a Gateway follows what is wanted, whatever happens while it is being made."""

from __future__ import annotations

import asyncio
from typing import Any

from support.manifests import SETTINGS
from support.objects import gateway, gateway_class

from controller.kubernetes.api import Api, ApiError
from controller.kubernetes.infrastructure import InfrastructureWriter
from controller.state.view import View
from controller.state.world import World
from controller.translate.gateways import gateways
from controller.translate.gateways.gateways import Running

NAME = ("default", "gw")


class SlowServer(Api):
    """Objects by path; the first one that is made waits until it may."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.asked = asyncio.Event()
        self.may = asyncio.Event()
        self.failures = 0

    async def apply(self, where: str, body: Any) -> Any:
        self.asked.set()
        await self.may.wait()
        if self.failures:
            self.failures -= 1
            raise ApiError(500, "not now", 0.001)
        self.objects[where] = body

    async def find(self, where: str) -> Any:
        return self.objects.get(where)

    async def delete(self, where: str, **query: str) -> None:
        del self.objects[where]


def running() -> Running:
    world = World()
    for one in (gateway_class(), gateway()):
        world.put(one)
    found = View(world).call(gateways.running, *NAME)
    assert found is not None
    return found


async def until(check: Any) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0)


async def test_a_gateway_that_leaves_while_it_is_being_made_leaves_nothing_behind() -> None:
    server = SlowServer()
    writer = InfrastructureWriter(server, SETTINGS)
    writer.lead(True)
    writer.want(NAME, running())
    await server.asked.wait()
    writer.want(NAME, None)
    server.may.set()
    await until(lambda: not writer._upkeep._tasks)
    assert server.objects == {}
    await writer.stop()


async def test_what_failed_is_tried_again_and_one_that_comes_back_stays() -> None:
    server = SlowServer()
    server.failures = 2
    writer = InfrastructureWriter(server, SETTINGS)
    writer.lead(True)
    writer.want(NAME, running())
    await server.asked.wait()
    writer.want(NAME, None)
    writer.want(NAME, running())
    server.may.set()
    await until(lambda: not writer._upkeep._tasks)
    assert len(server.objects) == 3
    await writer.stop()
