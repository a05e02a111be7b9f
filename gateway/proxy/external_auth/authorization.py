"""Whether a request may pass, by those whom its rule asks, one after the other (ExternalAuth, GEP-1494)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.http.forwarding import is_expecting, unexpecting
from gateway.http.http1 import FOLDED, Request, fold
from gateway.interfaces import DownstreamPeer
from gateway.proxy.external_auth.check import Allowed, AuthCheck, Verdict, refusal
from gateway.proxy.request_body import RequestBody
from gateway.snapshot import ExternalAuth
from gateway.upstream.backend import Backend


class Authorizing(Protocol):
    """The exchange of the request."""

    client: DownstreamPeer
    head_only: bool
    request: Request
    request_body: RequestBody
    request_done: bool

    def proceed(self) -> None:
        """Go on: the request may pass."""

    @property
    def closes_if_answered_here(self) -> bool:
        """Whether an answer that is made here is the connection's last."""

    def answer_here(self, status: int, message: bytes) -> None:
        """This is the answer: the request may not pass."""


class Authorization:
    """The questions about one request. Each answer may change what the next one is asked."""

    __slots__ = ("_check", "_exchange", "_passed", "changed")

    def __init__(self, exchange: Authorizing) -> None:
        self._exchange = exchange
        self._check: AuthCheck | None = None  # under way
        self._passed = 0  # how many have said yes
        self.changed: frozenset[bytes] = frozenset()  # names of fields that they have set or removed, as backends fold them

    def all_allowed(self, specs: Sequence[ExternalAuth]) -> bool:
        """Whether all of them have said yes."""
        return self._passed >= len(specs)

    @property
    def awaits_body(self) -> bool:
        """Whether more of the request's body is needed before the next can be asked."""
        return self._check is not None and not self._check.is_asked

    def ask(self, specs: Sequence[ExternalAuth], backends: Callable[[str], Backend]) -> None:
        """Ask the next one, as soon as there is as much of the body as it wants to see."""
        spec = specs[self._passed]
        self._check = AuthCheck(spec, backends(spec.backend), self._told)
        if spec.body_bytes and not self._exchange.request_done:
            self._invite()
        self.ask_if_ready()
        if self.awaits_body and self._passed:
            self._exchange.client.resume_reading()  # it was paused while another was asked

    def _invite(self) -> None:
        """The body is wanted before the backend is asked: say so to a client that waits for it (RFC 9110 §10.1.1)."""
        exchange = self._exchange
        if is_expecting(exchange.request):
            exchange.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            exchange.request = unexpecting(exchange.request)

    def ask_if_ready(self) -> None:
        """More of the body has come, or its end."""
        check, exchange = self._check, self._exchange
        if check is None or check.is_asked:
            return
        wanted = check.spec.body_bytes
        if wanted and not exchange.request_done and exchange.request_body.octets < wanted:
            return
        body = exchange.request_body.so_far(exchange.request.length)[:wanted] if wanted else b""
        check.ask(exchange.request, body, exchange.client.address, exchange.client.scheme)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        if self._check is not None:
            self._check.cancel()

    def _told(self, verdict: Verdict) -> None:
        self._check = None
        exchange = self._exchange
        if not isinstance(verdict, Allowed):
            close, framed = exchange.closes_if_answered_here, exchange.client.is_framed
            message = refusal(verdict, exchange.request, is_framed=framed, close=close, head_only=exchange.head_only)
            exchange.answer_here(verdict.status, message)
            return
        self._passed += 1
        if verdict.fields or verdict.removed:
            exchange.request = _replacing(exchange.request, verdict)
            self.changed |= frozenset(map(fold, {field.name for field in verdict.fields} | verdict.removed))
        exchange.proceed()


def _replacing(request: Request, verdict: Allowed) -> Request:
    """The request with what an authorization server put in place of its fields, and of those that look like them."""
    named = {field.name for field in verdict.fields} | verdict.removed
    folded = set(map(fold, named))
    new_request = copy.copy(request)
    new_request.fields = [
        field
        for field in request.fields
        if field.name not in named and not (field.kind == FOLDED and fold(field.name) in folded)
    ]
    new_request.fields += verdict.fields
    new_request.special = [field for field in new_request.fields if field.kind]
    return new_request
