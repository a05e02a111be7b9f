"""The timeouts of a rule, for one request (HTTPRouteTimeouts)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from gateway.proxy.route import Route


class TimedExchange(Protocol):
    """The exchange of the request."""

    def timed_out(self) -> None:
        """`request` is up, which is for all attempts together."""

    def attempt_timed_out(self) -> None:
        """`backendRequest` is up, which is for each attempt anew."""


class Untimed:
    """No timeouts: nothing runs."""

    __slots__ = ()

    def time_request(self, elapsed: float = 0.0) -> None:
        """The request has begun, so many seconds ago; said again, it means nothing."""

    def time_attempt(self, elapsed: float = 0.0) -> None:
        """An attempt has begun, so many seconds ago."""

    def end_attempt(self) -> None:
        """The attempt is given up."""

    def end(self) -> None:
        """The request is over."""


UNTIMED: Final = Untimed()  # of all requests whose rules have no timeouts


class RouteTimers(Untimed):
    """What runs for one request, by a rule that has timeouts."""

    __slots__ = ("_attempt", "_exchange", "_request", "_route")

    def __init__(self, exchange: TimedExchange, route: Route) -> None:
        self._exchange: TimedExchange | None = exchange  # None: it is over
        self._route = route
        self._request: asyncio.TimerHandle | None = None
        self._attempt: asyncio.TimerHandle | None = None

    def time_request(self, elapsed: float = 0.0) -> None:
        seconds = self._route.request_timeout
        if seconds and self._exchange is not None and self._request is None:
            self._request = _call_later(seconds - elapsed, self._exchange.timed_out)

    def time_attempt(self, elapsed: float = 0.0) -> None:
        self.end_attempt()
        seconds = self._route.backend_timeout
        if seconds and self._exchange is not None:
            self._attempt = _call_later(seconds - elapsed, self._exchange.attempt_timed_out)

    def end_attempt(self) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None

    def end(self) -> None:
        self.end_attempt()
        if self._request is not None:
            self._request.cancel()
        self._exchange = self._request = None


def _call_later(seconds: float, expired: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(max(seconds, 0.0), expired)
