"""Rate limits admit what they say, however many workers there are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

import pytest

from controller.ports import free_ports
from gateway.process.supervisor import Workers
from gateway.snapshot import Attachment, Change, Listener, Order, Part, Rule, Script, Scripted, Store

CONNECTIONS = 24


def parts(store: Store | None = None, **spec: object) -> tuple[Part, ...]:
    """A rule that answers 200 as often as a RateLimit allows."""
    limit = Script("default/limit", "", json.dumps(spec), "inline", built_in="RateLimit", seconds=60.0, store=store)
    hello = Script("default/hello", "", '{"response": {"status": 200, "body": "ok"}}', "inline", built_in="RequestTermination")
    rule = Rule("r", Order(), (Attachment("l"),), filters=(Scripted(limit.name), Scripted(hello.name)))
    return Listener("l", 80), limit, hello, rule


async def hammer(ports: list[int], seconds: float) -> tuple[int, float]:
    """Ask as fast as possible over many connections, to each port in turn: how many were admitted, in what time."""
    admitted = 0
    began = time.monotonic()

    async def one(port: int) -> None:
        nonlocal admitted
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() - began < seconds:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            assert head[9:12] in (b"200", b"429"), head
            admitted += head[9:12] == b"200"
        writer.close()

    await asyncio.gather(*(one(ports[index % len(ports)]) for index in range(CONNECTIONS)))
    return admitted, time.monotonic() - began


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
