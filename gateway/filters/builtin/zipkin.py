"""Zipkin: requests carry B3 fields, so that those who answer them can say which trace they belong to.

A trace that began before is continued, by whatever its client decided; of others `samplePercentage` are sampled. See
B3 Propagation (openzipkin/b3-propagation). With a `target`, the gateway's own spans are sent there, as Zipkin's API v2 has
them (openzipkin/zipkin-api), a batch a second; what is not taken is lost, and counted.
"""

import random
import re

import msgspec

from gateway.filters.api import Exchange, Request, config, every, http, metrics
from gateway.filters.api import log as logger

share = config.get("samplePercentage", 10)
collector = "/".join(config.get("target", "").split("/")[:3])  # what of it may be told: the rest may be a key
target, service = config.get("target", ""), config.get("serviceName", "fsm-gateway")
MAX_SPANS = 1000  # spans that wait
spans: list[dict[str, object]] = []
TRACE = re.compile(r"[0-9a-f]{16}(?:[0-9a-f]{16})?")
SPAN = re.compile(r"[0-9a-f]{16}")


def request(request: Request) -> None:
    """Say which trace, which span of it, and whose child."""
    headers = request.headers
    if "b3" in headers:  # the four in one field
        trace, span, sampled = [*headers["b3"].split("-")[:3], "", "", ""][:3]
        del headers["b3"]
    else:
        trace, span, sampled = (headers.get(f"x-b3-{word}", "") for word in ("traceid", "spanid", "sampled"))
    if TRACE.fullmatch(trace) and SPAN.fullmatch(span):
        headers["x-b3-parentspanid"] = span
    else:
        trace, sampled = f"{random.getrandbits(128):032x}", ""  # a name, not a secret
        headers.pop("x-b3-parentspanid", None)
    if sampled not in ("0", "1", "d"):
        sampled = "1" if random.random() * 100 < share else "0"  # noqa: S311
    own = f"{random.getrandbits(64):016x}"
    headers["x-b3-traceid"] = trace
    headers["x-b3-spanid"] = own
    headers["x-b3-sampled"] = "1" if sampled == "d" else sampled
    if target and sampled != "0":
        request.state["span"] = {"traceId": trace, "id": own, **({"parentId": span} if "x-b3-parentspanid" in headers else {})}


def recorded(exchange: Exchange) -> None:
    """Keep the span of a request that is over."""
    span = exchange.request.state.get("span")
    if span is None:
        return
    if len(spans) >= MAX_SPANS:
        metrics.add("zipkin_dropped_total")
        return
    request, address = exchange.request, exchange.request.connection.address
    tags = {"http.method": request.method, "http.path": request.path, "http.status_code": str(exchange.status)}
    if not exchange.status or exchange.status >= 500:
        tags["error"] = str(exchange.status or "no answer")
    spans.append(
        {
            **span,
            "kind": "SERVER",
            "name": request.route,
            "timestamp": int(exchange.started * 1e6),
            "duration": max(int(exchange.seconds * 1e6), 1),
            "localEndpoint": {"serviceName": service},
            "remoteEndpoint": {"ipv6" if ":" in address else "ipv4": address},
            "tags": {**tags, "backend": exchange.backend},
        }
    )


async def send() -> None:
    """Send what there is."""
    if not spans:
        return
    batch, wrong = msgspec.json.encode(spans), ""
    count = len(spans)
    spans.clear()
    try:
        reply = await http.request("POST", target, batch, {"Content-Type": "application/json"})
        wrong = f"{collector} answers {reply.status}" if reply.status >= 400 else ""
    except OSError as error:
        wrong = str(error)
    if wrong:
        metrics.add("zipkin_dropped_total", count)
        logger.warning("%s: %d spans are lost", wrong, count)


if target:
    log = recorded
    every(1)(send)
