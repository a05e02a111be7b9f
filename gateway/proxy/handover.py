"""What the fast path hands over to an exchange, which then knows as much as if it had begun the request itself.

The fast path takes requests without a body. Whatever it cannot do, at whatever moment, an exchange goes on with: nothing
has been sent yet, or the request has, or a part of the response has been passed on; filters have seen none of it, the
request, or the response as well.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from gateway.filters import api
from gateway.filters.api.bodies import BodySource
from gateway.http.http1 import Response
from gateway.interfaces import UpstreamStream
from gateway.proxy.route import Target
from gateway.scripting.program import ActiveFilter


class FilterResult(NamedTuple):
    """Where filters left off with a request or a response: the last that was called, and what it returned or raised."""

    at: int
    result: Any = None
    error: Exception | None = None


class SeenRequest(Protocol):
    """A request that all filters have seen on the fast path."""

    active: list[ActiveFilter]

    def pass_to(self, view: api.Request) -> None:
        """From now on it is this one."""


class ResponseShown(Protocol):
    """What filters have been shown of the response to it."""

    @property
    def reply(self) -> api.Response | None: ...  # once there is one
    @property
    def left(self) -> FilterResult | None: ...
    @property
    def octets(self) -> int: ...  # of its body, so far
    def taken(self, response: Response, source: BodySource) -> api.Response:
        """The response that filters were shown, from the one that an exchange has parsed."""


class Handover(NamedTuple):
    """A request on the fast path, with what has become of it."""

    target: Target
    since: float  # when it began, as `time.monotonic` has it
    peer: UpstreamStream | None = None  # to which it was sent
    status_class: int = 0  # of the response's status, once a part of it has been passed on
    request: SeenRequest | None = None
    response: ResponseShown | None = None
