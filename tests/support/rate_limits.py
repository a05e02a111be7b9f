"""Rules with limits, and who asks too often."""

from __future__ import annotations

import asyncio
import json
import time

from gateway.snapshot import Attachment, Listener, Order, Part, Rule, Script, Scripted, Store

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
