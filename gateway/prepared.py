"""A rule, prepared: everything that the request path needs of it, looked up once.

Backends and counters outlive the rules that use them: endpoints change in place, and counts go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.balance import Ring, Split
from gateway.filters import headers, mirror, redirect, rewrite
from gateway.http1 import Field
from gateway.peers import Endpoint
from gateway.snapshot import Fault, Filter, Mirror, Redirect, RequestHeaders, ResponseHeaders, Rewrite, Rule


class Backend:
    """A named set of endpoints that changes in place: endpoints come and go without touching a route."""

    __slots__ = ("name", "ring")
    ASIDE: Final = 1.0  # seconds that an endpoint stands aside after it refused a connection

    def __init__(self, name: str) -> None:
        self.name = name
        self.ring: Ring[Endpoint] = Ring()

    def failed(self, endpoint: Endpoint) -> None:
        """Pass over an endpoint for a moment; others of the backend are asked first."""
        self.ring.aside(endpoint)
        asyncio.get_running_loop().call_later(self.ASIDE, self.ring.back, endpoint)


class Counter:
    """What happened at one target of one rule; survives changes of the rule."""

    __slots__ = ("classes", "seconds", "slots")

    def __init__(self) -> None:
        self.classes = [0] * 6  # responses by hundreds of their status
        self.slots = [0] * 32  # responses by duration: slot n counts those under 2**n * 0.5 ms
        self.seconds = 0.0

    def count(self, status: int, seconds: float) -> None:
        """One response."""
        self.classes[status // 100] += 1
        self.slots[min(int(seconds * 2000).bit_length(), 31)] += 1
        self.seconds += seconds


class Target:
    """A prepared target: everything that the request path needs, looked up once."""

    __slots__ = (
        "backend", "counter", "edit_request", "edit_response", "fault", "location", "memo", "mirrors", "reason",
        "redirect_status", "rewrite",
    )  # fmt: skip

    def __init__(self, filters: tuple[Filter, ...], backend: Backend | None, counter: Counter) -> None:
        self.backend = backend
        self.counter = counter
        self.fault = 0
        self.reason = ""
        self.location: redirect.Location | None = None
        self.redirect_status = 302
        self.rewrite: rewrite.Rewritten | None = None
        self.mirrors: tuple[tuple[Callable[[], bool], str], ...] = ()
        on_request: list[headers.Edit] = []
        on_response: list[headers.Edit] = []
        for spec in filters:
            match spec:
                case RequestHeaders():
                    on_request.append(headers.build(spec))
                case ResponseHeaders():
                    on_response.append(headers.build(spec))
                case Redirect():
                    self.location, self.redirect_status = redirect.build(spec), spec.status
                case Rewrite():
                    self.rewrite = rewrite.build(spec)
                case Mirror():
                    self.mirrors += ((mirror.build(spec), spec.backend),)
                case Fault():
                    self.fault, self.reason = spec.status, spec.reason
        self.edit_request = _chain(on_request)
        self.edit_response = _chain(on_response)
        # Response heads seen before, as bytes: what was sent for them, and the length of the whole response.
        self.memo: dict[bytes, tuple[bytes, int]] = {} if on_response else _shared_memo


_shared_memo: dict[bytes, tuple[bytes, int]] = {}


def _chain(edits: list[headers.Edit]) -> headers.Edit | None:
    if len(edits) <= 1:
        return edits[0] if edits else None

    def edit(fields: list[Field]) -> list[Field]:
        for one in edits:
            fields = one(fields)
        return fields

    return edit


class Route:
    """A prepared rule."""

    __slots__ = ("backend_timeout", "name", "request_timeout", "split")

    def __init__(
        self,
        rule: Rule,
        backends: Callable[[str], Backend],
        counters: Callable[[str, str], Counter],
        phase: float,
    ) -> None:
        self.name = rule.name
        self.request_timeout = rule.timeouts.request
        self.backend_timeout = rule.timeouts.backend_request
        targets: list[Target] = []
        weights: list[int] = []
        for spec in rule.targets:
            backend = backends(spec.backend) if spec.backend else None
            target = Target(rule.filters + spec.filters, backend, counters(rule.name, spec.backend))
            if spec.fault:
                target.fault, target.reason = spec.fault, spec.reason
            targets.append(target)
            weights.append(spec.weight)
        if not any(weights):
            # No backendRefs, or none with a weight: 500, unless a filter answers (HTTPRouteRule.backendRefs).
            target = Target(rule.filters, None, counters(rule.name, ""))
            if not target.fault:
                target.fault, target.reason = 500, "this rule has no backend to send the request to"
            targets, weights = [target], [1]
        self.split = Split(targets, weights, phase=phase)
