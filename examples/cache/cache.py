"""Keeps answers for files of some kinds, for ten seconds."""

import time
from collections import OrderedDict

from gateway.filters.api import Request, Response

KINDS, TTL, MOST = (".css", ".js", ".png"), 10.0, 1000
kept: OrderedDict[str, tuple[float, int, bytes, str]] = OrderedDict()


def request(request: Request) -> Response | None:
    key = request.state["key"] = request.host + request.target
    found = kept.get(key) if request.method == "GET" else None
    if found is None or found[0] < time.monotonic():
        return None
    _, status, body, kind = found
    return Response(status, body, {"X-Cache": "hit"}, content_type=kind)


async def response(request: Request, response: Response) -> None:
    cacheable = request.method == "GET" and request.path.endswith(KINDS) and response.status == 200
    if not cacheable or response.headers.get("x-cache"):
        return
    body = await response.body()
    kept[request.state["key"]] = time.monotonic() + TTL, 200, body, response.headers.get("content-type", "")
    if len(kept) > MOST:
        kept.popitem(last=False)
