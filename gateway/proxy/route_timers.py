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


class RouteTimers:
    """What runs for one request."""

    __slots__ = ("_attempt", "_attempt_seconds", "_exchange", "_request", "_request_seconds")

    def __init__(self, exchange: TimedExchange | None = None, route: Route | None = None) -> None:
        self._exchange = exchange
        self._request_seconds = route.request_timeout if route is not None else 0.0  # 0: as long as it takes
        self._attempt_seconds = route.backend_timeout if route is not None else 0.0
        self._request: asyncio.TimerHandle | None = None
        self._attempt: asyncio.TimerHandle | None = None

    def time_request(self, elapsed: float = 0.0) -> None:
        """The request has begun, so many seconds ago; said again, it means nothing."""
        if self._exchange is not None and self._request_seconds and self._request is None:
            self._request = _call_later(self._request_seconds - elapsed, self._exchange.timed_out)

    def time_attempt(self, elapsed: float = 0.0) -> None:
        """An attempt has begun, so many seconds ago."""
        if self._exchange is not None and self._attempt_seconds:
            self.end_attempt()
            self._attempt = _call_later(self._attempt_seconds - elapsed, self._exchange.attempt_timed_out)

    def end_attempt(self) -> None:
        """The attempt is given up."""
        if self._attempt is not None:
            self._attempt.cancel()

    def end(self) -> None:
        """The request is over."""
        for timer in (self._attempt, self._request):
            if timer is not None:
                timer.cancel()


UNTIMED: Final = RouteTimers()  # of all requests whose rules have no timeouts


def _call_later(seconds: float, expired: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(max(seconds, 0.0), expired)
