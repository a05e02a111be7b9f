"""A client comes back to the endpoint that it met first: by a cookie, whatever the worker or the replica."""

import secrets

from gateway.filters.api import Request, Response

COOKIE = "_srv_id"


def request(request: Request) -> None:
    client = request.cookies.get(COOKIE) or secrets.token_urlsafe(12)
    request.state["client"] = client
    request.choose("app", key=client)


def response(request: Request, response: Response) -> None:
    if COOKIE not in request.cookies:
        response.set_cookie(COOKIE, request.state["client"], max_age=3600)
