"""ProxyTag: a field of the request says for which host it is meant; the host that it named is kept in another."""

from gateway.filters.api import Request, config

tag = config.get("dstHostHeader", "proxy-tag")
kept = config.get("srcHostHeader", "orig-host")


def request(request: Request) -> None:
    """Let the tag decide."""
    host = request.headers.pop(tag, None)
    if host:
        request.headers[kept] = request.host
        request.host = host
