"""What a filter in Python sees: requests, responses, chunks, connections.

    from gateway.filters.api import Request, Response, config

    def request(request: Request) -> Response | None:
        if request.headers.get("x-api-key") not in config["keys"]:
            return Response(401, "an API key is needed")
        request.headers["x-checked"] = "yes"

Changing an object changes what is sent on; returning a `Response` answers. What would break the message (a field
that frames it, a line break in a value) is refused where it is written, with a ValueError. Nothing here does I/O:
what must wait (`await request.body()`) is done by whoever runs the filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.filters.api.bodies import Refused
from gateway.filters.api.connection import Connection, Data, Datagram
from gateway.filters.api.filter_metrics import Metrics
from gateway.filters.api.headers import Headers
from gateway.filters.api.http_client import HttpClient, Reply
from gateway.filters.api.request import Query, Request
from gateway.filters.api.response import Chunk, Exchange, Response
from gateway.filters.api.shared_state import Shared

if TYPE_CHECKING:
    import logging

    # Each filter imports its own: they are bound to the one that is being loaded (see `__getattr__`).
    config: Mapping[str, Any]
    log: logging.Logger
    http: HttpClient
    shared: Shared
    metrics: Metrics
    secrets: Mapping[str, str]

    def every(seconds: float) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        """Call a function that takes nothing each so many seconds, and once more at the end."""


__all__ = [
    "Chunk", "Connection", "Data", "Datagram", "Exchange", "Headers", "HttpClient", "Metrics", "Query", "Refused", "Reply",
    "Request", "Response", "Shared",
]  # fmt: skip
# No module of this package may have one of these names: it would be found in their place.
SUPPLIES: Final = ("config", "log", "http", "shared", "metrics", "secrets", "every")
_loading: list[Mapping[str, Any]] = []


class loading:  # noqa: N801  # reads as a statement: `with loading(services):`
    """While a filter is being loaded: what it imports from here is its own."""

    def __init__(self, services: Mapping[str, Any]) -> None:
        self._services = services

    def __enter__(self) -> None:
        _loading.append(self._services)

    def __exit__(self, *_: object) -> None:
        _loading.pop()


def __getattr__(name: str) -> Any:
    if _loading and name in _loading[-1]:
        return _loading[-1][name]
    if name in SUPPLIES:
        raise ImportError(f"{name} belongs to a filter and can be imported only by one")
    raise AttributeError(f"gateway.filters.api has no {name!r}")
