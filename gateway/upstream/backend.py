"""What a worker knows of a backend: its endpoints, by turns, and which of them are well."""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.interfaces import Endpoint
from gateway.upstream.health_checks import Checks
from gateway.upstream.load_balancing import EndpointPicker


class Backend:
    """A named set of endpoints that changes in place: endpoints come and go without touching a route."""

    __slots__ = ("checks", "endpoints", "name")
    EJECTION: Final = 1.0  # seconds that an endpoint stands aside after it refused a connection

    def __init__(self, name: str) -> None:
        self.name = name
        self.endpoints: EndpointPicker[Endpoint] = EndpointPicker()
        self.checks: Checks | None = None

    def failed(self, endpoint: Endpoint) -> None:
        """Pass over an endpoint for a moment; others of the backend are asked first."""
        if self.checks is not None and self.checks.failed(endpoint):
            return
        self.endpoints.eject(endpoint)
        asyncio.get_running_loop().call_later(self.EJECTION, self.endpoints.restore, endpoint)
