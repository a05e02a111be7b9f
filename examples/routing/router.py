"""Chooses a backend by host and path, from patterns as a shell has them."""

from fnmatch import fnmatch

from gateway.filters.api import Request, Response

ROUTES = {
    "*/v1/*": "app-v1",
    "*/v2/*": "app-v2",
    "beta.*/*": "app-v2",
}


def request(request: Request) -> Response | None:
    for pattern, service in ROUTES.items():
        if fnmatch(request.host.partition(":")[0] + request.path, pattern):
            request.choose(service)
            return None
    return Response(404, "No route\n")
