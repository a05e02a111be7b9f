"""At most two requests at a time to a backend that can take no more; the others wait their turn, for half a second."""

import asyncio

from gateway.filters.api import Exchange, Request, Response

MOST, PATIENCE = 2, 0.5
free = asyncio.Semaphore(MOST)


async def request(request: Request) -> Response | None:
    try:
        await asyncio.wait_for(free.acquire(), PATIENCE)
    except TimeoutError:
        return Response(503, "busy\n", {"Retry-After": "1"})
    request.state["has_place"] = True
    return None


def log(exchange: Exchange) -> None:
    if exchange.request.state.pop("has_place", False):
        free.release()
