"""So many requests a second, over all workers; those who come too early wait, and too many of these are sent away."""

import asyncio

from gateway.filters.api import Request, Response, metrics, shared

PER_SECOND, WAITING = 100, 50


async def request(request: Request) -> Response | None:
    wait = await shared.take(requests=PER_SECOND, interval=1, burst=1, backlog=WAITING)
    if wait is None:
        metrics.add("throttled_total")
        return Response(429, "Too many requests\n", {"Retry-After": "1"})
    await asyncio.sleep(wait)
    return None
