"""Passes everything on, and says so to both sides."""

from gateway.filters.api import Request, Response


def request(request: Request) -> None:
    request.headers["X-Client"] = request.connection.address


def response(request: Request, response: Response) -> None:
    response.headers.add("Via", "1.1 fsm")
    if "server" in response.headers:
        del response.headers["server"]
