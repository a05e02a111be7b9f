"""HTTPLog: a record of each request, sent as JSON to an HTTP service, in batches.

Who reads the log decides nothing here: what it does not take within the buffer is dropped, and counted.
"""

import os
from datetime import UTC, datetime

import msgspec

from gateway.base.durations import seconds
from gateway.filters.api import Exchange, config, every, http, metrics
from gateway.filters.api import log as logger

collector = "/".join(config["target"].split("/")[:3])  # what of it may be told: the rest may be a key
target, method, headers = config["target"], config.get("method", "POST"), dict(config.get("headers", {}))
headers.setdefault("Content-Type", "application/json")
batch = config.get("batch", {})
size, interval = batch.get("size", 1000), seconds(batch.get("interval", "1s"))
prefix, postfix = batch.get("prefix", "").encode(), batch.get("postfix", "").encode()
separator = batch.get("separator", "\n").encode()
most = config.get("bufferLimit", 1 << 20)
pod = os.environ.get("HOSTNAME", "")
WITHHELD = {"authorization", "cookie", "proxy-authorization", "set-cookie"}

waiting: list[bytes] = []
held = 0


def log(exchange: Exchange) -> None:
    """Keep a record."""
    global held
    record = msgspec.json.encode(recorded(exchange))
    if held + len(record) > most:
        metrics.add("http_log_dropped_total")
        return
    waiting.append(record)
    held += len(record)


def recorded(exchange: Exchange) -> dict[str, object]:
    """What is said of a request; keys and cookies are not."""
    request, connection = exchange.request, exchange.request.connection
    began = exchange.started * 1000
    return {
        "type": "fgw",
        "pod": pod,
        "remoteAddr": connection.address,
        "localPort": connection.port,
        "time": datetime.fromtimestamp(exchange.started, UTC).isoformat(),
        "reqTime": round(began),
        "endTime": round(began + exchange.seconds * 1000),
        "route": request.route,
        "req": {
            "protocol": "HTTP",
            "scheme": connection.scheme,
            "authority": request.host,
            "method": request.method,
            "path": request.target,
            "headers": {name: value for name, value in request.headers.items() if name not in WITHHELD},
        },
        "res": {"status": exchange.status, "resSize": exchange.response_bytes},
        "backend": exchange.backend,
        "target": exchange.endpoint,
    }


@every(interval)
async def send() -> None:
    """Send what there is, a batch at a time."""
    global held
    while waiting:
        records = waiting[:size]
        del waiting[: len(records)]
        held -= sum(map(len, records))
        try:
            reply = await http.request(method, target, prefix + separator.join(records) + postfix, headers)
            wrong = f"{collector} answers {reply.status}" if reply.status >= 400 else ""
        except OSError as error:
            wrong = str(error)
        if wrong:
            metrics.add("http_log_dropped_total", len(records))
            logger.warning("%s: %d records are lost", wrong, len(records))
            return
