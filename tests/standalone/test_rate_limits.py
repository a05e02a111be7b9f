"""Rate limits admit what they say, however many workers there are."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from support.rate_limits import hammer, parts

from controller.ports import free_ports
from gateway.process.supervisor import Workers
from gateway.snapshot import Change


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_a_rate_limit_is_one_for_all_workers(count: int) -> None:
    (port,) = free_ports(1)
    workers = Workers(count, bind="127.0.0.1", port_offset=port - 80)
    await workers.start()
    try:
        assert not await workers.apply(Change("1", parts(requests=1, interval="1h", burst=700, backlog=0)))
        admitted, _ = await hammer([port], 1.5)
        assert admitted == 700
        limit = parts(requests=400, interval="1s", burst=100, backlog=0)
        assert not await workers.apply(Change("2", limit, reset=True))
        await hammer([port], 0.6)  # what was saved is used up
        admitted, took = await hammer([port], 2.0)
        print(f"{count} workers: {admitted} of {400 * took:.0f} in {took:.2f} s")
        assert admitted == pytest.approx(400 * took, rel=0.01)
    finally:
        await workers.stop(grace=1)


@pytest.mark.parametrize("count", [2])
async def test_a_worker_that_is_replaced_goes_on_where_the_other_was(count: int) -> None:
    (port,) = free_ports(1)
    workers = Workers(count, bind="127.0.0.1", port_offset=port - 80)
    workers.on_failure = lambda _: None
    await workers.start()
    try:
        assert not await workers.apply(Change("1", parts(requests=1, interval="1h", burst=100, backlog=0)))
        assert (await hammer([port], 0.5))[0] == 100
        before = set(workers.pids())
        os.kill(next(iter(before)), signal.SIGKILL)
        async with asyncio.timeout(10):
            while len(workers.pids()) < count or set(workers.pids()) == before:
                await asyncio.sleep(0.01)
        assert (await hammer([port], 0.3))[0] == 0
    finally:
        await workers.stop(grace=1)
