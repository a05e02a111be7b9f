"""Among 5,000 routes a change costs about what it costs among 5: counted where it can be, timed within wide bounds."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.objects import gateway, route, service, slice_, world

from controller.delivery.barrier import Barrier
from controller.delivery.reconcile import Publication
from controller.objects.kinds import AnyObject
from controller.ports import free_ports
from controller.translate import Translator
from gateway.runtime.runtime import Runtime
from gateway.snapshot import Change

GATEWAY = ("default", "gw")


class Line:
    """From an object to the workers' tables, without the network."""

    def __init__(self, routes: int, port_offset: int) -> None:
        self.world = world(gateway())
        for number in range(routes):
            self.world.put(service(f"s{number}"))
            self.world.put(slice_(f"s{number}", "127.0.0.1"))
            self.world.put(route(f"r{number}", f"s{number}", hostnames=[f"h{number % 2000}.example"]))
        self.translator = Translator(self.world)
        self.barrier = Barrier(self.translator.is_fresh)
        self.publication = Publication()
        self.runtime = Runtime(bind="127.0.0.1", port_offset=port_offset)

    async def step(self) -> None:
        changes = self.translator.update().parts.get(GATEWAY, {})
        released = self.barrier.filter(changes, self.translator.parts[GATEWAY], 0.0)
        assert not await self.runtime.apply(self.publication.advance(released))

    async def cost(self, make: Callable[[int], AnyObject]) -> float:
        """Seconds for one change; the least of many, as everything else is noise."""
        least = float("inf")
        for number in range(40):
            self.world.put(make(number))
            started = time.perf_counter()
            await self.step()
            least = min(least, time.perf_counter() - started)
        return least


def edited(number: int) -> AnyObject:
    return route("r1", {"name": "s1", "port": 80, "weight": number + 2}, hostnames=["h1.example"])


def moved(number: int) -> AnyObject:
    return slice_("s2", f"127.0.0.{number + 2}")


async def test_a_change_among_5000_routes() -> None:
    few, many = (Line(count, port - 80) for count, port in zip((5, 5000), free_ports(2), strict=True))
    for line in (few, many):
        await line.step()
    for make in (edited, moved):
        small, large = await few.cost(make), await many.cost(make)
        print(f"{make.__name__}: {1e6 * small:.0f} µs among 5, {1e6 * large:.0f} µs among 5,000")
        assert large < 5 * small + 0.0005, f"{1e6 * small:.0f} µs among 5, {1e6 * large:.0f} µs among 5,000"
    started = time.perf_counter()
    whole = many.publication.whole()
    await many.runtime.apply(Change(whole.version, whole.put, reset=True))
    assert time.perf_counter() - started < 1.0, "a worker that starts anew must not take long over what it knows"
    for line in (few, many):
        for opened in line.runtime.ports.tcp.values():
            opened.server.close()
