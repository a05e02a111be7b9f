"""CircuitBreaker: where too many requests fail or are slow, the backend is left alone for a while.

An error is an answer of 5xx, none at all, or one that took `latencyThreshold` or longer. They are counted over all workers,
from the first request on for `checkInterval` at a time.
"""

from gateway.durations import seconds
from gateway.filters.api import Exchange, Request, Response, config, metrics, shared
from gateway.filters.api import log as logger

slow = seconds(config.get("latencyThreshold", "1s"))
errors_allowed, ratio = config.get("errorCountThreshold", 10), float(config.get("errorRatioThreshold", 0.5))
at_a_time = config.get("concurrencyThreshold", 0)
window, pause = seconds(config.get("checkInterval", "5s")), seconds(config.get("breakInterval", "30s"))
answer = config.get("response", {})
status, headers = answer.get("status", 429), answer.get("headers", {})
body = answer.get("body", "Circuit breaker triggered")


async def request(request: Request) -> Response | None:
    """Answer where the circuit is open, or too many are under way."""
    if await shared.count("open"):
        return Response(status, body, headers)
    if at_a_time and not await shared.hold("under way", most=at_a_time):
        return Response(status, body, headers)
    request.state["counts"] = True
    return None


async def log(exchange: Exchange) -> None:
    """Count what came of it."""
    if not exchange.request.state.pop("counts", False):
        return
    if at_a_time:
        await shared.release("under way")
    total = await shared.add("total", seconds=window)
    if exchange.status and exchange.status < 500 and exchange.seconds < slow:
        return
    errors = await shared.add("errors", seconds=window)
    if errors >= errors_allowed and errors >= ratio * total and await shared.add("open", seconds=pause) == 1:
        metrics.add("circuit_breaks_total")
        logger.warning("%d of %d requests failed or took %g s: open for %g s", errors, total, slow, pause)
