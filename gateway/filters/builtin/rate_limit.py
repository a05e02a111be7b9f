"""RateLimit: so many requests in so much time, however many workers there are; those over it wait their turn, or are answered.

Turns that nobody took are saved, up to `burst`. Up to `backlog` requests wait (any number with `blocking`, for a minute at
most). With `keyBy` each client address, or each value of a header, has a limit of its own.
"""

import asyncio
from collections.abc import Awaitable

from gateway.base.durations import seconds
from gateway.filters.api import Request, Response, config, log, metrics, shared

MAX_WAIT_SECONDS = 60.0  # seconds that a request waits for its turn
requests, interval = config.get("requests", 5), seconds(config.get("interval", "10s"))
burst, backlog = config.get("burst", 10), config.get("backlog", 5)
if config.get("blocking"):
    backlog = int(MAX_WAIT_SECONDS * requests / interval)
answer = config.get("response", {})
status, body, headers = answer.get("status", 429), answer.get("body", ""), dict(answer.get("headers", {}))
headers.setdefault("Retry-After", str(max(int(interval / requests), 1)))
key_by = config.get("keyBy", {})
header = key_by.get("header", "").lower() if key_by.get("type") == "Header" else ""
is_open = config.get("failurePolicy", "Open") == "Open"
failures = [0]  # failures of the store


def request(request: Request) -> Response | Awaitable[Response | None] | None:
    """Pass, wait, or answer."""
    turn = shared.take(key(request), requests=requests, interval=interval, burst=burst, backlog=backlog)
    return verdict(turn.result()) if turn.done() else asked(turn)


def key(request: Request) -> str:
    """Whose limit it is."""
    if header:
        return request.headers.get(header, "")
    return request.connection.address if key_by else ""


async def asked(turn: Awaitable[float | None]) -> Response | None:
    """The same, where a store keeps the count."""
    try:
        wait = await turn
    except OSError as error:
        metrics.add("rate_limit_store_failures_total")
        failures[0] += 1
        if (
            failures[0] & (failures[0] - 1) == 0
        ):  # the first time, the second, the fourth: a store that is gone fails every request
            log.warning("%s: requests %s (%d times)", error, "pass" if is_open else "are refused", failures[0])
        return None if is_open else Response(status, body, headers)
    result = verdict(wait)
    if result is None or isinstance(result, Response):
        return result
    await result
    return None


def verdict(wait: float | None) -> Response | Awaitable[None] | None:
    """By the seconds until it is this request's turn."""
    if wait is None or wait > MAX_WAIT_SECONDS:
        return Response(status, body, headers)
    return asyncio.sleep(wait) if wait > 0 else None
