"""Says how long the backend took (Server-Timing)."""

import time

from gateway.filters.api import Request, Response


def request(request: Request) -> None:
    request.state["began"] = time.monotonic()


def response(request: Request, response: Response) -> None:
    took = (time.monotonic() - request.state["began"]) * 1000
    response.headers.add("Server-Timing", f"backend;dur={took:.1f}")
