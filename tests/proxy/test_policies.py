"""Kinds of filters that come with the gateway, through real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from proxying import Proxy, Server, make_rule

from gateway.snapshot import Backend, Endpoint, Listener, Script, Scripted, Target


async def policy(proxy: Proxy, server: Server, kind: str, **spec: Any) -> None:
    """A rule with one of them."""
    script = Script("p", "", json.dumps(spec), "inline", built_in=kind, seconds=3600.0)
    await proxy.apply(
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", server.port),)), script,
        make_rule("r", targets=(Target(1, "b"),), filters=(Scripted("p"),)),
    )  # fmt: skip


async def test_request_termination(proxy: Proxy, server: Server) -> None:
    await policy(
        proxy, server, "RequestTermination", response={"status": 503, "headers": {"Retry-After": "60"}, "body": "closed"}
    )
    status, fields, body = await proxy.get()
    assert (status, fields["retry-after"], body) == (503, "60", b"closed")
    await policy(proxy, server, "RequestTermination")
    assert (await proxy.get())[::2] == (500, b"")
    assert not server.seen


async def test_fault_injection_aborts_its_share(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "FaultInjection", abort={"percentage": 100, "response": {"status": 502, "body": "injected"}})
    assert (await proxy.get())[::2] == (502, b"injected")
    await policy(proxy, server, "FaultInjection", abort={"percentage": 0})
    assert (await proxy.get())[::2] == (200, b"ok")
    await policy(proxy, server, "FaultInjection", abort={"percentage": 50})
    found = [(await proxy.get())[0] for _ in range(400)]
    assert 120 < found.count(500) < 280  # eight standard deviations
    assert found.count(500) + found.count(200) == 400


@pytest.mark.parametrize(
    ("delay", "least"), [({"min": "60ms"}, 0.06), ({"min": "60ms", "max": "80ms"}, 0.06)], ids=["min", "range"]
)
async def test_fault_injection_delays_in_the_units_that_it_says(
    proxy: Proxy, server: Server, delay: dict, least: float
) -> None:
    await policy(proxy, server, "FaultInjection", delay={"percentage": 100, **delay}, abort={"percentage": 100})
    began = time.monotonic()
    answers = await asyncio.gather(*(proxy.get() for _ in range(5)))
    took = time.monotonic() - began
    assert [status for status, _, _ in answers] == [500] * 5
    assert least <= took < 2
    assert not server.seen
