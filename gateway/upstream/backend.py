"""What a worker knows of a backend: its endpoints, by turns, and which of them are well."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

from gateway.interfaces import Endpoint
from gateway.transport.dial import DialError
from gateway.upstream.health_checks import Checks
from gateway.upstream.load_balancing import EndpointPicker
from gateway.upstream.retry_budget import RetryAllowance

log = logging.getLogger("fsm.upstream")
TOLD_AGAIN: Final = 60.0  # seconds after which the same reason is told again


class Backend:
    """A named set of endpoints that changes in place: endpoints come and go without touching a route."""

    __slots__ = ("_quiet_until", "budget", "checks", "endpoints", "failures", "name")
    EJECTION: Final = 1.0  # seconds that an endpoint stands aside after it refused a connection

    def __init__(self, name: str) -> None:
        self.name = name
        self.endpoints: EndpointPicker[Endpoint] = EndpointPicker()
        self.checks: Checks | None = None
        self.budget: RetryAllowance | None = None
        self.failures: Counter[str] = Counter()  # to connect, by reason
        self._quiet_until: dict[str, float] = {}  # of each: it has been told

    def failed(self, endpoint: Endpoint, failure: DialError) -> None:
        """Pass over an endpoint for a moment; others of the backend are asked first."""
        self.failures[failure.reason] += 1
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until.get(failure.reason, 0.0):
            self._quiet_until[failure.reason] = now + TOLD_AGAIN
            log.warning("backend %s, endpoint %s: %s", self.name, endpoint.name, failure)
        if self.checks is not None and self.checks.failed(endpoint):
            return
        self.endpoints.eject(endpoint)
        asyncio.get_running_loop().call_later(self.EJECTION, self.endpoints.restore, endpoint)
