"""A page of ours where the backend has none."""

from gateway.filters.api import Request, Response


def response(request: Request, response: Response) -> Response | None:
    if response.status == 404:
        return Response(404, "There is nothing here. Try /\n")
    return None
