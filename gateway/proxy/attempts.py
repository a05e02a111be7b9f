"""Further attempts at a backend after one has failed: at once, where nobody has seen a byte of it, or later, as a rule says.

Most requests need none of this, so it is made for those that do.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from gateway.base.durations import backoff
from gateway.http.http1 import Request
from gateway.interfaces import Endpoint
from gateway.proxy.route import Route, Target
from gateway.routing.table import RouteMatch
from gateway.transport.dial import DialError
from gateway.upstream.backend import Backend

BACKOFF: Final = 0.01  # seconds before the first of further attempts, where a rule does not say
MAX_BACKOFF: Final = 1.0  # seconds
MAX_RESENT: Final = 3  # endpoints to which a request is sent again without a word of its rule
# RFC 9110 §9.2.2: what may be sent twice without being asked.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class Attempting(Protocol):
    """The exchange whose request is sent once more."""

    @property
    def request(self) -> Request: ...
    @property
    def entry(self) -> RouteMatch[Route]: ...
    @property
    def target(self) -> Target: ...

    @property
    def can_resend(self) -> bool:
        """Whether all of the request is still here, and nobody has seen a byte of a response."""

    def rewind(self) -> None:
        """The last attempt is given up; what has come of the request's body waits to be sent once more."""

    def attempt(self, endpoint: Endpoint, *, fresh: bool = False) -> None:
        """Send the request to an endpoint, over a connection that has not idled where it must be `fresh`."""

    def refuse(self, status: int, reason: str) -> None:
        """Answer here."""


class Attempts:
    """The attempts that a request has had, and those that it may still have."""

    __slots__ = ("_exchange", "_later", "_retries", "_tried")

    def __init__(self, exchange: Attempting, endpoint: Endpoint) -> None:
        self._exchange = exchange
        self._tried = [endpoint]
        self._retries = 0
        self._later: asyncio.TimerHandle | None = None  # of the next attempt

    @property
    def is_waiting(self) -> bool:
        """Whether the next attempt is made later."""
        return self._later is not None

    def cancel(self) -> None:
        """There will be none any more."""
        if self._later is not None:
            self._later.cancel()

    def elsewhere(self, failure: DialError) -> bool:
        """No connection could be made: pass over that endpoint, and ask one that has not been asked; False without one."""
        self._backend.failed(self._tried[-1], failure)
        endpoint = self._untried(self._backend)
        if endpoint is None:
            return False
        self._attempt(endpoint)
        return True

    def at_once(self, *, reused: bool, untouched: bool) -> bool:
        """Send the request once more, where that is safe; False where it is not.

        `reused`: the connection that failed had carried others before. `untouched`: its backend says that it has not looked
        at the request.
        """
        exchange = self._exchange
        retry = exchange.entry.route.retry
        if retry is not None and retry.attempts and not untouched:
            return False  # the rule says how often
        if not exchange.can_resend or len(self._tried) > MAX_RESENT:
            return False
        if not (untouched or exchange.request.method in IDEMPOTENT):
            return False
        # A reused connection may have been closed while idle: its endpoint deserves a fresh one first.
        endpoint = self._tried[-1] if reused else self._untried(self._backend)
        if endpoint is None:
            return False
        if not untouched and not self._is_granted():
            return True
        exchange.rewind()
        self._attempt(endpoint, fresh=True)  # an idle connection may have been closed like the last
        return True

    def after_loss(self, *, reused: bool, untouched: bool) -> bool:
        """The connection was lost before the response began: send the request once more, at once or later; False where it may
        not be. `reused` and `untouched` as for `at_once`."""
        return self.at_once(reused=reused, untouched=untouched) or self.later(
            is_safe=self._exchange.request.method in IDEMPOTENT
        )

    def later(self, *, is_safe: bool = True) -> bool:
        """HTTPRouteRetry: another attempt, if the rule grants one; False where it does not. Where its backend's budget grants
        none, that is the answer (GEP-3388), and what the last attempt came to is not passed on."""
        exchange = self._exchange
        retry = exchange.entry.route.retry
        if retry is None or not is_safe or self._retries >= retry.attempts or not exchange.can_resend:
            return False
        if not self._is_granted():
            return True
        exchange.rewind()
        # At least what the rule says; without a word of it, a little, and more each time.
        delay = retry.backoff or backoff(BACKOFF, self._retries, MAX_BACKOFF)
        self._retries += 1
        self._later = asyncio.get_running_loop().call_later(delay, self._retry)
        return True

    def _is_granted(self) -> bool:
        """Whether the backend's budget has room for one more; where it has not, the request is answered."""
        budget = self._backend.budget
        if budget is None or budget.allows():
            return True
        self._exchange.refuse(503, "the retry budget of the backend is used up")
        return False

    def _retry(self) -> None:
        self._later = None
        exchange, backend = self._exchange, self._backend
        if not exchange.can_resend:
            exchange.refuse(503, "the request has become too long to be sent once more")
            return
        endpoint = self._untried(backend) or backend.endpoints.next()
        if endpoint is None:
            exchange.refuse(503, "no endpoint of the backend is ready")
            return
        self._tried = []
        exchange.rewind()
        self._attempt(endpoint)

    def _attempt(self, endpoint: Endpoint, *, fresh: bool = False) -> None:
        self._tried.append(endpoint)
        self._exchange.attempt(endpoint, fresh=fresh)

    @property
    def _backend(self) -> Backend:
        backend = self._exchange.target.backend
        assert backend is not None
        return backend

    def _untried(self, backend: Backend) -> Endpoint | None:
        """The next endpoint that has not been asked."""
        for _ in range(len(backend.endpoints)):
            endpoint = backend.endpoints.next()
            if endpoint is not None and endpoint not in self._tried:
                return endpoint
        return None
