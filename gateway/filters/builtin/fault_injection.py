"""FaultInjection: a share of requests waits, and a share is answered with an error, each drawn by itself (percent)."""

import asyncio
import random
from collections.abc import Awaitable

from gateway.base.durations import seconds
from gateway.filters.api import Request, Response, config

delay, abort = config.get("delay"), config.get("abort")
if delay:
    least = seconds(delay.get("min", "1s"))
    most = max(seconds(delay["max"]) if "max" in delay else least, least)
if abort:
    answer = abort.get("response", {})
    status, body, headers = answer.get("status", 500), answer.get("body", ""), answer.get("headers", {})


def request(request: Request) -> Response | Awaitable[Response | None] | None:
    """Wait, answer, or neither."""
    if delay and random.random() * 100 < delay["percentage"]:  # noqa: S311  # nothing depends on its being hard to guess
        return waited()
    return aborted()


async def waited() -> Response | None:
    """The same, a while later."""
    await asyncio.sleep(random.uniform(least, most))  # noqa: S311
    return aborted()


def aborted() -> Response | None:
    """The error, if it is this request's turn."""
    if abort and random.random() * 100 < abort["percentage"]:  # noqa: S311
        return Response(status, body, headers)
    return None
