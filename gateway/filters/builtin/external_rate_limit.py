"""ExternalRateLimit: a service is asked about each request, with its method, path and the fields that it may see.

It answers 200 where the request may pass; any other answer is the client's. No answer is 503, unless `failurePolicy` is Open.
"""

from gateway.base.durations import seconds
from gateway.filters.api import Request, Response, config, http, metrics
from gateway.filters.api import log as logger

host = config["throttleHost"]
fields = tuple(name.lower() for name in config.get("passHeaders", ()))
patience = seconds(config.get("timeout", "1s"))
is_open = config.get("failurePolicy", "Closed") == "Open"
failures = [0]  # failures
HOP = {"content-length", "transfer-encoding", "connection"}


async def request(request: Request) -> Response | None:
    """Ask."""
    passed = {name: request.headers[name] for name in fields if name in request.headers}
    passed["X-Forwarded-Host"] = request.host
    try:
        reply = await http.request(request.method, f"http://{host}{request.target}", headers=passed, timeout=patience)
    except OSError as error:
        metrics.add("external_rate_limit_failures_total")
        failures[0] += 1
        if failures[0] & (failures[0] - 1) == 0:  # the first time, the second, the fourth: each request asks
            logger.warning("%s; requests %s (%d times)", error, "pass" if is_open else "are refused", failures[0])
        return None if is_open else Response(503, "the service that limits requests does not answer")
    if reply.status == 200:
        return None
    kept = [(name, value) for name, value in reply.headers.items() if name not in HOP]
    return Response(reply.status, reply.body, kept)
