"""Gives every request a name, for the backend and for the client."""

import secrets

from gateway.filters.api import Request, Response


def request(request: Request) -> None:
    if "x-request-id" not in request.headers:
        request.headers["X-Request-Id"] = secrets.token_hex(8)


def response(request: Request, response: Response) -> None:
    response.headers["X-Request-Id"] = request.headers["x-request-id"]
