"""CircuitBreaker: where too many requests fail or are slow, the backend is left alone for a while.

An error is an answer of 5xx, none at all, or one that took `latencyThreshold` or longer. They are counted over all workers,
from the first request on for `checkInterval` at a time. With `anyOf` (as CircuitBreakingPolicies have it), errors and slow
answers are counted apart, and either number or share of either is enough.
"""

from collections.abc import Awaitable

from gateway.base.durations import seconds
from gateway.filters.api import Exchange, Request, Response, config, metrics, shared
from gateway.filters.api import log as logger

slow = seconds(config.get("latencyThreshold", "1s"))
errors_allowed, ratio = config.get("errorCountThreshold", 10), float(config.get("errorRatioThreshold", 0.5))
at_a_time = config.get("concurrencyThreshold", 0)
window, pause = seconds(config.get("checkInterval", "5s")), seconds(config.get("breakInterval", "30s"))
minimum, any_of = config.get("minRequests", 0), config.get("anyOf", {})
answer = config.get("response", {})
status, headers = answer.get("status", 429), answer.get("headers", {})
body = answer.get("body", "Circuit breaker triggered")


def request(request: Request) -> Response | Awaitable[Response | None] | None:
    """Answer where the circuit is open, or too many are under way."""
    opened = shared.count("open")
    return admitted(request, opened.result()) if opened.done() else asked(request, opened)


async def asked(request: Request, opened: Awaitable[float]) -> Response | None:
    """The same, where a store keeps the count."""
    return admitted(request, await opened)


def admitted(request: Request, is_open: float) -> Response | None:
    """By whether it is open. What is held is this data plane's own, so that answer is there at once."""
    if is_open or (at_a_time and not shared.hold("under way", most=at_a_time).result()):
        return Response(status, body, headers)
    request.state["counts"] = True
    return None


def log(exchange: Exchange) -> Awaitable[None] | None:
    """Count what came of it."""
    if not exchange.request.state.pop("counts", False):
        return None
    if at_a_time:
        shared.release("under way")
    total = shared.add("total", seconds=window)
    failed, late = not exchange.status or exchange.status >= 500, 0 < slow <= exchange.seconds
    return judged(total, failed, late) if failed or late or not total.done() else None


async def judged(counting: Awaitable[float], failed: bool, late: bool) -> None:
    """Open the circuit, if that was one too many."""
    total = await counting
    if not failed and not late:
        return
    if any_of:
        is_enough = await enough("errors", total) if failed else False
        is_enough = (await enough("slow", total) if late else False) or is_enough
    else:
        errors = await shared.add("errors", seconds=window)
        is_enough = errors >= errors_allowed and errors >= ratio * total
    if is_enough and await shared.add("open", seconds=pause) == 1:
        metrics.add("circuit_breaks_total")
        logger.warning("too many of %d requests failed or took too long: open for %g s", total, pause)


async def enough(what: str, total: float) -> bool:
    """One more of these: whether that is too many."""
    count = await shared.add(what, seconds=window)
    amount, share = any_of.get(what, (0, 0))
    return total >= minimum and bool((amount and count >= amount) or (share and count >= share * total))
