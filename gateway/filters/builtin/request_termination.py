"""RequestTermination: every request is answered here, with what the spec says; 500 and no body unless it says more."""

from gateway.filters.api import Request, Response, config

answer = config.get("response", {})
status, body, headers = answer.get("status", 500), answer.get("body", ""), answer.get("headers", {})


def request(request: Request) -> Response:
    """Answer."""
    return Response(status, body, headers)
