"""Metrics: requests, statuses and durations by route, host, path and backend, under the names that FSM gives them.

They are counted as they happen and read whole at each scrape, so `sampleInterval` changes nothing.
"""

from gateway.filters.api import Exchange
from gateway.filters.api import metrics as measured


def log(exchange: Exchange) -> None:
    """Count it."""
    request = exchange.request
    labels = {"route": request.route, "backend": exchange.backend, "target": exchange.endpoint}
    measured.add("fgw_http_request_total", route=request.route)
    measured.add(
        "fgw_http_status_total", code=str(exchange.status), matched_host=request.host, matched_uri=request.path, **labels
    )
    measured.observe("fgw_http_latency_seconds", exchange.seconds, type="request", **labels)
    measured.add("fgw_bandwidth_total", exchange.response_bytes, type="egress", **labels)
