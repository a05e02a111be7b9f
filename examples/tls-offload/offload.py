"""TLS ends here: the backend is told that there was some, and browsers are told to insist on it."""

from gateway.filters.api import Request, Response


def request(request: Request) -> Response | None:
    if request.connection.scheme != "https":
        return Response(308, "", {"Location": f"https://{request.host.partition(':')[0]}{request.target}"})
    request.headers["X-TLS"] = "offloaded"
    return None


def response(request: Request, response: Response) -> None:
    response.headers["Strict-Transport-Security"] = "max-age=31536000"
