"""The fast path: a request that repeats one before it, sent on without being parsed.

A client connection tries it first. When the data is exactly one head that a template accepts, and its request line
leads to a rule that only forwards, the head is composed from prepared pieces and written to a kept connection; the
answer, when it comes whole and its head is known too, is written back. No exchange is made, nothing is allocated
but the bytes. Whatever is not so plain, at whatever moment, is handed to an exchange (`promote`,
`gateway.proxy.handover`), which then knows as much as if it had begun the request itself.

Measured with `python -m bench.inprocess`: a request costs 1.5 µs of Python this way and 22 µs with every head parsed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from gateway.downstream.known_heads import Template, rewritten
from gateway.downstream.last_response import LastResponse
from gateway.downstream.lazy_request import BEFORE, LazyRequest
from gateway.downstream.lazy_response import LazyResponseFilter
from gateway.downstream.port import ListenerPort
from gateway.http.head_templates import Composition
from gateway.interfaces import UpstreamStream
from gateway.proxy import mirroring
from gateway.proxy.exchange import Exchange
from gateway.proxy.handover import FilterResult
from gateway.proxy.route import ResponseHeadCache, Route, Target
from gateway.proxy.scripted_exchange import ScriptedExchange
from gateway.routing.table import RouteDecision


class FastPath(asyncio.Protocol):
    """The part of a client connection that takes the fast path; who inherits it knows the slow one."""

    __slots__ = (
        "_data",
        "_decision",
        "_exchange",
        "_lazy_request",
        "_listener_port",
        "_ready",
        "_response_filter",
        "_since",
        "_status_class",
        "_target",
        "_template",
        "address",
        "answers",
        "deadline",
        "listener",
        "peer",
        "write",
    )  # fmt: skip

    def __init__(self, listener_port: ListenerPort) -> None:
        # Connection.
        self._listener_port = listener_port
        self.write: Callable[[bytes | memoryview], None]
        self.address = b""
        self.deadline = listener_port.idle_until
        self.listener = ""  # to which the connection belongs, by its server name
        self._ready = True  # between two requests, with nothing that waits
        self._template: Template | None = listener_port.templates.latest
        # Request, on the slow path.
        self._exchange: Exchange | None = None
        # Request, on the fast path.
        self.peer: UpstreamStream | None = None
        self.answers: ResponseHeadCache | None = None
        self._data = b""
        self._decision: RouteDecision[Route]
        self._target: Target
        self._since = 0.0
        self._status_class = 0  # of the response's status, once a part of it has been passed on
        self._lazy_request: LazyRequest | None = None  # what all filters of the target have seen, where it has such
        self._response_filter: LazyResponseFilter | None = None  # who shows them the answer to that

    def receive(self, data: bytes) -> None:
        """The slow path: parse what has come."""
        raise NotImplementedError

    def owes(self) -> int:
        """Bytes that the client has not taken yet."""
        raise NotImplementedError

    def finished(self, *, reuse: bool) -> None:
        """The request under way is answered; where it was the last, the connection is closed."""
        raise NotImplementedError

    def promote(self) -> Exchange:
        """Hand the request under way to an exchange, which can do everything."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        template = self._template
        if template is None or not self._ready:
            self.receive(data)
            return
        end = data.find(b"\r\n")
        if not (data.startswith(template.first, end) and data.endswith(template.last, 0, template.longest)):
            self.receive(data)
            return
        varying = data[end + template.skip : template.stop]
        if not ((template.is_single and varying.isalnum()) or template.holds(varying)):
            self.receive(data)
            return
        listener_port = self._listener_port
        if template.table is not listener_port.table:
            template.renew(listener_port.table)
        decision = template.plans.get(data[:end]) or template.decision(data, end, varying, listener_port.limits)
        if decision is None or decision.listener != self.listener:
            self.receive(data)
            return
        self._ready = False
        self._data = data
        self._decision = decision
        self._since = monotonic()
        self.deadline = listener_port.stalled_at
        target = self._target = next(decision.route.turns)
        edit = target.edit_request
        composed = template.composed.get(edit) or template.compose(edit)
        if target.is_plain and composed.is_whole:
            # As in Composition.fill, which a call would make dearer.
            head = b"".join((decision.start, composed.before, varying, composed.after, self.address, composed.end))
        else:
            filled = self._fill(composed, data[:end], varying)
            if not filled:
                if filled is None:
                    self.promote().proceed()
                return
            head = filled
        endpoint = next(target.endpoints.turns, None)
        if endpoint is None or not endpoint.idle:
            self.promote().send(endpoint)
            return
        peer = self.peer = endpoint.idle.pop()
        peer.user = self
        self.answers = target.answers
        write = peer.write  # a slot called as a method cannot be specialised by CPython 3.11
        write(head)

    def answered(self, data: bytes, status_class: int) -> None:
        """A whole response in one piece, its head known from before."""
        self._ready = True
        self.peer = None
        self.deadline = self._listener_port.idle_until
        write = self.write
        write(data)
        # As in Counter.count, which a call would make dearer.
        counter = self._target.counter
        took = monotonic() - self._since
        counter.responses[(status_class << 5) + int(took * 2000).bit_length()] += 1
        counter.seconds += took

    def begun(self, data: bytes, status_class: int) -> None:
        """The head of a response, known from before, and a part of its body."""
        self._status_class = status_class
        self.continued(data)

    def continued(self, data: bytes | memoryview) -> None:
        """More of its body."""
        self.deadline = self._listener_port.stalled_at
        self.write(data)

    def ended(self, data: bytes, status_class: int) -> None:
        """The last of its body."""
        self._status_class = 0
        self.answered(data, status_class)

    def is_at(self, data: bytes) -> bool:
        """Whether a request of this head is under way."""
        return not self._ready and self._data is data

    def told(self) -> tuple[float, str]:
        """The seconds that the request took so far, and its backend's name."""
        backend = self._target.backend
        return monotonic() - self._since, backend.name if backend is not None else ""

    def overdue(self, since: float) -> None:
        """HTTPRouteTimeouts: the time of the request that began at `since` is up."""
        if self.peer is not None and self._since == since:
            self.promote().timed_out()

    def _fill(self, composed: Composition, line: bytes, varying: bytes) -> bytes | None:
        """The head that goes to the backend, rewritten and copied to mirrors where the target says so; None where it
        takes the slow path to know it, nothing where it has been sent, or that path taken."""
        decision, target, template = self._decision, self._target, self._template
        assert template is not None
        if not target.is_direct:
            return self._filtered(composed, varying) if target.is_filtered and not template.closes else None
        if decision.route.timeouts is not None:
            decision.route.timeouts.begin(self, self._since)
        start = decision.start if target.rewrite is None else rewritten(decision, target, line, self._listener_port.limits)
        head = composed.fill(start, varying, self.address)
        if head is not None and target.mirrors:
            mirroring.start(target.mirrors, self._listener_port.backends, head)
        if template.closes and head is not None:
            self._send(head, None)
            return b""
        return head

    def _filtered(self, composed: Composition, varying: bytes) -> bytes | None:
        """The same, where filters in Python look at the request first: plain functions, in this process."""
        decision, target, template = self._decision, self._target, self._template
        self._lazy_request = None
        active, looks_back = target.taken
        for program, hooks in active:
            if program.hooks is not hooks:  # edited
                active = []
                break
        if not active:
            active, looks_back = target.take()
            if not active:
                return None
        assert template is not None
        lazy_request = LazyRequest(self, template, decision, self._data, varying, self._listener_port.limits, active)  # type: ignore[arg-type]
        result = None
        for at, (program, hooks) in enumerate(active):
            if hooks.request is None:
                continue
            try:
                result = program.call(hooks.request, lazy_request)
            except Exception as error:
                self._resume(lazy_request, FilterResult(at, error=error))
                return b""
            if result is not None:
                self._resume(lazy_request, FilterResult(at, result))
                return b""
        added = lazy_request.added
        if added == b"":
            head = composed.fill(decision.start, varying, self.address)
        elif added is None or target.edit_request is not None or not composed.is_whole or template.keeps:
            head = None
        else:
            first, _, rest = composed.after.rpartition(BEFORE)
            head = b"".join((decision.start, composed.before, varying, first, added, BEFORE, rest, self.address, composed.end))
        if head is None:
            self._resume(lazy_request, FilterResult(len(active) - 1))
            return b""
        self._lazy_request = lazy_request
        if looks_back:
            self._send(head, lazy_request)
            return b""
        return head

    def _send(self, head: bytes, lazy_request: LazyRequest | None) -> None:
        """Send a head, and have the answer shown to the filters that saw its request; where there are none, it is the last."""
        target = self._target
        endpoint = next(target.endpoints.turns, None)
        if endpoint is None or not endpoint.idle:
            self.promote().send(endpoint)
            return
        peer = self.peer = endpoint.idle.pop()
        if lazy_request is None:
            peer.user = LastResponse(self, target.answers)
        else:
            peer.user = self._response_filter = LazyResponseFilter(self, lazy_request, target.answers, peer)  # type: ignore[arg-type]
        peer.write(head)

    def _resume(self, lazy_request: LazyRequest, left: FilterResult) -> None:
        """Hand the request to an exchange that goes on where filters left off."""
        lazy_request.promote()
        exchange = self.promote()
        assert isinstance(exchange, ScriptedExchange)
        exchange.resume(left)
