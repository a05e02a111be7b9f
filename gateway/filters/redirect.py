"""RequestRedirect: answer with a Location; the request goes no further (HTTPRequestRedirectFilter)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from gateway.filters import path_modifier
from gateway.http import grammar
from gateway.http.http1 import Request
from gateway.snapshot import Redirect

# (request, matched prefix, the listener's scheme and port) → Location.
Location: TypeAlias = Callable[[Request, bytes, str, int], bytes]

PORT_OF = {"http": 80, "https": 443}


def build(spec: Redirect) -> Location:
    """What the Location says where the spec is silent comes from the request and its listener. Raises ValueError for what
    cannot be written."""
    if spec.scheme and spec.scheme not in PORT_OF:
        raise ValueError(f"{grammar.shown(spec.scheme)} is no scheme that a redirect can have: {', '.join(PORT_OF)}")
    if spec.hostname:
        grammar.host(spec.hostname)
    new_target = path_modifier.build(spec.path) if spec.path else None

    def location(request: Request, prefix: bytes, scheme: str, port: int) -> bytes:
        # The spec's port wins; else a given scheme implies its own port; else the listener's stays.
        port = spec.port or (PORT_OF[spec.scheme] if spec.scheme else port)
        scheme = spec.scheme or scheme
        host = spec.hostname or _without_port(request.host.decode("latin-1"))
        origin = host if port == PORT_OF[scheme] else f"{host}:{port}"
        target = new_target(request, prefix) if new_target else request.target
        return f"{scheme}://{origin}".encode("latin-1") + target

    return location


def _without_port(host: str) -> str:
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
