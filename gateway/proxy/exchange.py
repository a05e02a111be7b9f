"""One request and its response: choose, send, stream, retry, finish. The hot path.

An exchange sits between a client connection and a backend connection and is called back by both; nothing here
waits. It keeps the route that it started with, whatever is swapped in meanwhile. A failure that nobody has
seen yet (no byte of a response was passed on) moves to another endpoint of the same backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from gateway.filters import cors
from gateway.http import forwarding
from gateway.http.http1 import Field, ProtocolError, Request, Response
from gateway.http.local_replies import answer, not_switched
from gateway.interfaces import DownstreamPeer, Endpoint, UpstreamStream
from gateway.proxy import grpc_web, mirroring
from gateway.proxy.attempts import Attempts
from gateway.proxy.client_response import ClientResponse, ResponseFraming
from gateway.proxy.external_auth.authorization import Authorization
from gateway.proxy.grpc_web import GrpcWebTranslation
from gateway.proxy.handover import Handover
from gateway.proxy.request_body import RequestBody, RequestFraming
from gateway.proxy.route import ResponseHeadCache, Route, Target
from gateway.proxy.route_timers import UNTIMED, RouteTimers
from gateway.routing.table import RouteMatch
from gateway.transport.dial import WORDS, DialError
from gateway.upstream.backend import Backend


class Exchange:
    """One request and its response. Methods are grouped by who calls them: the client, the backend, time."""

    __slots__ = (
        "_answers", "_authorization", "_backends", "_endpoint", "_further", "_head", "_held", "_is_watched", "_since",
        "_started", "_status", "_upgrading", "answers", "client", "client_response", "entry", "head_only", "peer",
        "request", "request_body", "request_done", "target", "timers",
    )  # fmt: skip

    def __init__(
        self, client: DownstreamPeer, request: Request, entry: RouteMatch[Route], backends: Callable[[str], Backend]
    ) -> None:
        # Given.
        self.client = client
        self.request, self.entry = request, entry
        self._backends = backends
        # What is known of the request.
        self.head_only = request.method == b"HEAD"
        self.request_done = False
        self.request_body = RequestBody(request, is_framed=client.is_framed)
        # Where it went.
        self.target: Target
        self.peer: UpstreamStream | None = None
        self._head = b""
        self._upgrading = False
        self._endpoint: Endpoint | None = None  # that was asked last
        self._further: Attempts | None = None
        self._held: Endpoint | None = None  # where the client's session with the target's backend leads
        self._authorization: Authorization | None = None
        # What came back.
        self._answers: ResponseHeadCache | None = None  # where response heads of this kind are remembered
        self.answers: ResponseHeadCache | None = None  # the same, once the request is sent: its response may come in one piece
        self.client_response = ClientResponse(client, head_only=self.head_only, http10=request.http10)
        self._is_watched = False  # somebody looks at the response, so that it cannot be known from before
        self._started = False
        self._status = 0
        self.timers = UNTIMED if entry.route.timeouts is None else RouteTimers(self, entry.route)
        self._since = monotonic()

    @property
    def wants_payload(self) -> bool:
        """Whether the backend's chunks are taken off what it says."""
        return self.client_response.framing is not ResponseFraming.KEPT

    # --- called by the client's connection ---

    def start(self) -> None:
        """Decide, and send the head on its way."""
        self.target = next(self.entry.route.turns)
        self.proceed()

    def proceed(self) -> None:
        """Go on from the choice of a target."""
        target, route, request = self.target, self.entry.route, self.request
        if target.sessions is not None:
            self._held = target.sessions.find(request, target.backend)
        if target.cors is not None:
            preflight, self.client_response.more = target.cors.answer(request)
            self.client_response.withheld = cors.DECIDING
            if preflight is not None:
                self._answer(204, preflight)
                return
        if target.auths and not self._authorize(target):
            return
        if target.location is not None:
            location = target.location(request, self.entry.prefix, self.client.scheme.decode(), self.client.port)
            self._answer(target.redirect_status, [(b"Location", location)])
            return
        if target.fault:
            self.refuse(target.fault, target.reason)
            return
        out = self.client_response
        if route.grpc and out.web is None and not request.upgrade and grpc_web.is_asked(request):
            try:
                self._translate()
            except (ProtocolError, ValueError):
                self.refuse(400, grpc_web.MALFORMED)
                return
        self._head = self._compose(target)
        is_to_open = self._upgrading and not self.client.is_framed  # a tunnel: `response` decides whether it is open
        if target.sessions is not None or out.withheld or out.web is not None or self._is_watched or is_to_open:
            self.read_in_full()
        elif not request.http10 and not self.head_only:
            self._answers = target.answers
            self._take_known_heads()
        self.timers.time_request()
        if target.mirrors and not self._upgrading:  # a copy's answer is dropped: there is nobody to speak the other protocol
            self.request_body.mirror(mirroring.start(target.mirrors, self._backends, self._head), is_whole=self.is_sent)
        self.send(self._next(target))

    def _authorize(self, target: Target) -> bool:
        """Whether all have been asked whether the request may pass (ExternalAuth); what comes of the body meanwhile waits."""
        if self._authorization is None:
            self._authorization = Authorization(self)
        if self._authorization.all_allowed(target.auths):
            return True
        self.request_body.wait()
        self.timers.time_request()
        self._authorization.ask(target.auths, self._backends)
        return False

    def _next(self, target: Target) -> Endpoint | None:
        """Where the client belongs, or whose turn it is."""
        if self._held is None and not target.hashed:
            return next(target.endpoints.turns, None)
        if target.backend is not None and target.backend.budget is not None:
            target.backend.budget.count()  # as taking a turn does
        return self._held or target.endpoint_for(self.client.address)

    def _translate(self) -> None:
        """From here on the request is gRPC's, and its answer is translated back."""
        self.client_response.web = web = GrpcWebTranslation(self.request, framed=self.client.is_framed)
        self.request = web.request
        if self.client.is_framed:
            self.client_response.framing = ResponseFraming.ANEW
        self.request_body.translate(web.incoming, is_framed=self.client.is_framed)

    def send(self, endpoint: Endpoint | None) -> None:
        """Send the head to an endpoint, if there is one."""
        if endpoint is None:
            self.refuse(503, "no endpoint of the backend is ready")
        else:
            self.attempt(endpoint)

    def take_over(self, handover: Handover) -> None:
        """Go on with a request of the fast path: still to be sent, sent, or with a response that has begun."""
        target, since, peer = handover.target, handover.since, handover.peer
        self._started = handover.status_class > 0
        self._status = handover.status_class * 100
        self.request_done = True
        self.target = target
        self._since = since
        self._head = self._compose(target)
        self._answers = target.answers
        self._take_known_heads()
        self.client_response.closes = not self.request.keep_alive  # as its head says, where that has gone out
        self.timers.time_request(monotonic() - since)
        if peer is not None:
            self.timers.time_attempt(monotonic() - since)
            self.peer, self._endpoint = peer, peer.endpoint
            peer.user = self

    def _take_known_heads(self) -> None:
        """The response may come in one piece: its request has been sent, and its head has nothing to say of the connection."""
        if not self.closes_if_answered_here:
            self.answers = self._answers

    def read_in_full(self) -> None:
        """The answer must be written anew, even if its head is known: it says something of this request or connection."""
        self._answers = self.answers = None

    def promote(self) -> Exchange:
        """The user of a connection that can take whatever comes of it."""
        return self

    def data(self, data: bytes) -> None:
        """Bytes of the request's body, framed as the client framed them."""
        if self.client_response.web is not None:
            try:
                data = self.client_response.web.incoming(data)
            except (ProtocolError, ValueError):
                self.refuse(400, grpc_web.MALFORMED)
                return
        body, limit = self.request_body, self.client.limits.buffered_bytes
        is_end = self.request_done and body.framing is RequestFraming.TAKEN_OFF  # known before the last octets come
        if not data and not is_end:
            return
        body.add(data, self.peer, limit)
        if body.is_waiting:
            if self._authorization is not None:
                self._authorization.ask_if_ready()
            if body.octets > limit and not self._is_awaited:
                self.client.pause_reading()
        if is_end:
            body.end(self.peer)

    @property
    def _is_awaited(self) -> bool:
        """Whether somebody here waits for more of the request's body."""
        return self._authorization is not None and self._authorization.awaits_body

    def end(self, trailers: list[Field] | None = None) -> None:
        """The client has sent all of the request."""
        self.request_done = True
        self._end_content(trailers)

    def _end_content(self, trailers: list[Field] | None) -> None:
        """All has come that goes on; a client whose content is not wanted may still be sending it."""
        self._take_known_heads()
        body = self.request_body
        if self._authorization is not None and (not self.client.is_framed or body.framing is not RequestFraming.KEPT):
            self._authorization.ask_if_ready()
        if body.framing is RequestFraming.BARE:
            body.trailers = self.passing(trailers) if trailers else None
            body.end(self.peer)

    def passing(self, trailers: list[Field]) -> list[Field]:
        """The trailers that go on. Some backends add them to the fields: what is set or removed there must not come in behind
        the body. While somebody is asked who may have a say, none go on, as RFC 9110 §6.5.1 allows."""
        if not self._head:
            return []
        changed = self._authorization.changed if self._authorization is not None else frozenset[bytes]()
        return forwarding.passing_trailers(trailers, self.target.edit_request, changed)

    def client_lost(self) -> None:
        """The client is gone: so is the reason for the request."""
        self._status = self._status or 499
        self.close_peer()
        self._finish(reuse=False)

    # --- choosing and sending ---

    def _compose(self, target: Target) -> bytes:
        request, client = self.request, self.client
        host, uri = request.host, request.target
        if target.rewrite is not None:
            host, uri = target.rewrite(request, self.entry.prefix)
        self._upgrading = bool(request.upgrade) and forwarding.is_upgrading(request)
        return forwarding.request_head(
            request, host, uri, client.address, client.scheme, target.edit_request, upgrading=self._upgrading
        )

    def attempt(self, endpoint: Endpoint, *, fresh: bool = False) -> None:
        """Send the request to an endpoint, over a connection that has not idled where it must be `fresh`."""
        self._endpoint = endpoint
        self.timers.time_attempt()
        peer = None if fresh and endpoint.idle else endpoint.take(self)
        if peer is None:
            self.request_body.wait()
            endpoint.connect(self)
        else:
            self.connected(peer)

    @property
    def _attempts(self) -> Attempts:
        """Those that follow the first one."""
        if self._further is None:
            assert self._endpoint is not None
            self._further = Attempts(self, self._endpoint)
        return self._further

    @property
    def can_resend(self) -> bool:
        """Whether all of the request is still here, and nobody has seen a byte of a response."""
        return self.request_body.can_resend and not self._started

    def rewind(self) -> None:
        """The last attempt is given up; what has come of the request's body waits to be sent once more."""
        self.close_peer()
        self.timers.end_attempt()
        self.request_body.rewind()

    def connected(self, peer: UpstreamStream) -> None:
        """There is a connection for us: send what waited for it."""
        self.peer = peer
        if not self.client.takes_more:
            peer.pause_reading()
        if self.request_body.open(peer, self._head, is_whole=self.is_sent):
            self._want_more()

    def _want_more(self) -> None:
        """More of the request's body, unless there is enough: then `resume_sending` asks for it, or `connected`."""
        body = self.request_body
        waits_for_peer = body.is_waiting and body.octets > self.client.limits.buffered_bytes
        if not body.is_full and (not waits_for_peer or self._is_awaited):
            self.client.resume_reading()

    def connect_failed(self, failure: DialError) -> None:
        """Nobody has seen a byte: ask another endpoint, each once."""
        if not self._attempts.elsewhere(failure) and not self._attempts.later():
            self.refuse(503, f"no endpoint of the backend accepts connections; of the last one: {WORDS[failure.reason]}")

    # --- called by the backend's connection (`UpstreamHandler`) ---

    def response(self, response: Response, head: bytes) -> None:
        """A response's head: pass it on, or act on it."""
        route, status = self.entry.route, response.status
        if status < 200:
            self._interim(response)
            return
        if status < 300 and self._upgrading and not self.client.is_framed:
            # RFC 8441 §5: passed on, it would tell the client that the tunnel is open.
            self.refuse(502, not_switched(status))
            return
        if route.retry is not None and status in route.retry.codes and self._attempts.later():
            return
        self._pass_on(response, head)

    def _pass_on(self, response: Response, head: bytes) -> None:
        """The response that the client gets. `head` is what it was read from, where that may be remembered."""
        self._started = True
        self._status = response.status
        self.client.touch()
        out, target = self.client_response, self.target
        session: Sequence[Field] = ()
        if target.sessions is not None:
            session = target.sessions.begin(self.request, target.backend, self._endpoint, self._held, self.client.scheme)
        passed = out.begin(self.request, response, target.edit_response, session, is_whole=self.request_done)
        if self._answers is not None and head and out.is_fixed:
            self._answers.remember(head, out.kept_open(passed), response.length, response.status)

    def _interim(self, response: Response) -> None:
        """1xx: a change of protocol, or a word in between."""
        if response.status == 101:
            if self.peer is None or not self._upgrading or not forwarding.is_agreed(self.request, response):
                self.response_invalid(ProtocolError(502, "the backend changed to a protocol that nobody asked for"))
                return
            self._started = True
            peer, self.peer = self.peer, None
            self._settle(101)
            self.client.tunnel(peer, forwarding.interim_head(response))
        elif not self.request.http10 and (response.status != 100 or forwarding.is_expecting(self.request)):
            # RFC 9110 §15.2.1: whoever did not ask whether to continue can only be confused by it, or has been told.
            if response.status == 100:
                self.request = forwarding.unexpecting(self.request)
            self.client.write(forwarding.interim_head(response))

    def response_data(self, data: bytes) -> None:
        """Bytes of the response's body."""
        self.client.touch()
        self.client_response.write(data)

    def flush(self) -> None:
        """No bytes of the body have come with the head."""
        self.client_response.flush()

    def answered(self, data: bytes, status_class: int) -> None:
        """A whole response in one piece, its head known from before."""
        self._started = True
        self._status = status_class * 100
        self.peer = None
        self.client.write(data)
        self._finish(reuse=self.request_done)

    ended = answered  # with the last of its body

    def begun(self, data: bytes, status_class: int) -> None:
        """The head of a response, known from before, and a part of its body."""
        self._started, self._status = True, status_class * 100
        self.continued(data)

    def continued(self, data: bytes | memoryview) -> None:
        """More of its body."""
        if self.client_response.web is not None:
            self.response_data(bytes(data))
            return
        self.client.touch()
        self.client.write(data)

    def owes(self) -> int:
        """Bytes that the client has not taken yet."""
        return self.client.owes()

    def response_trailers(self, fields: list[Field]) -> None:
        """The response's trailers, for a client that does not get them with the data."""
        self.client_response.trailers(fields)

    def response_end(self) -> None:
        """The response is complete; the connection is no longer ours."""
        self.client_response.end()
        self.peer = None
        self._finish(reuse=not self.client_response.closes)

    def response_lost(self, reason: str, *, clean: bool, untouched: bool = False) -> None:
        """The connection ended before the response did. `clean` when its end is how the body ends; `untouched` when the
        backend says that it has not looked at the request."""
        reused = self.peer is not None and self.peer.reused
        self.peer = None
        if clean:
            self.client_response.end()
            self._finish(reuse=False)
            return
        if self._started:
            self.refuse(502, "the backend closed the connection before it was done")
            return
        if not self._attempts.after_loss(reused=reused, untouched=untouched):
            status = 503 if self.entry.route.retry is not None else 502
            self.refuse(status, "the backend closed the connection before it answered")

    def response_invalid(self, error: ProtocolError) -> None:
        """The backend's bytes are not HTTP; none of them reach the client."""
        self.refuse(502, error.reason)

    def pause_sending(self) -> None:
        """The backend takes the body more slowly than the client sends it."""
        self.request_body.is_full = True
        self.client.pause_reading()

    def resume_sending(self) -> None:
        """The backend has caught up."""
        self.request_body.is_full = False
        self.client.resume_reading()

    # --- ending ---

    def refuse(self, status: int, reason: str) -> None:
        """Answer here, with one line that says why; a response that has begun can only be cut."""
        self.close_peer()
        self._status = status
        if self._started:
            self.client.abort()
            self._finish(reuse=False)
            return
        self.answer_here(status, self.client_response.error(self.request, status, reason, close=self.closes_if_answered_here))

    def answer_here(self, status: int, message: bytes) -> None:
        """This is the answer, and no backend's."""
        close = self.closes_if_answered_here
        self.request_body.drop()
        self._status = status
        self._started = True
        self.client.write(message)
        self._finish(reuse=not close)

    def _answer(self, status: int, fields: cors.Pairs) -> None:
        """The same, of these fields."""
        self.answer_here(status, answer(status, fields=fields, close=self.closes_if_answered_here, head_only=self.head_only))

    def attempt_timed_out(self) -> None:
        """HTTPRouteTimeouts.backendRequest is up: there may be another attempt."""
        if self.peer is not None and not self.client.takes_more:
            self.timers.time_attempt()  # it may have answered: it is not read while the client takes nothing
        elif self._endpoint is None or not self._attempts.later():
            self.timed_out()

    def timed_out(self) -> None:
        """HTTPRouteTimeouts: 504, or a cut where the response has begun."""
        self.refuse(504, "the backend took longer than the route's timeout")

    def expired(self) -> None:
        """Nothing has moved for as long as a connection may idle."""
        self.refuse(504, f"nothing has moved for {self.client.limits.stall_seconds:g} s")

    def close_peer(self) -> None:
        """Nobody wants what the backend still sends."""
        peer, self.peer = self.peer, None
        self.request_body.drop()
        if peer is not None:
            peer.abort()

    def _settle(self, status: int) -> None:
        """Count, and let go of everything that time or mirrors hold."""
        self.timers.end()
        if self._further is not None:
            self._further.cancel()
        if self._authorization is not None:
            self._authorization.cancel()
        for copy in self.request_body.mirrored:
            copy.end()  # those that are whole go on
        self.target.counter.count(status // 100, monotonic() - self._since)

    def _finish(self, *, reuse: bool) -> None:
        self._settle(self._status or 500)
        self.client.finished(reuse=reuse)

    @property
    def closes_if_answered_here(self) -> bool:
        """Whether an answer that is made here is the connection's last."""
        return not self.request_done or not self.request.keep_alive or self.client.closes_after_this

    @property
    def is_sent(self) -> bool:
        """Whether the backend has been told everything."""
        return self.request_done

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for a connection any more; who will ask again later, does not wait for what was asked before."""
        return not self.request_body.is_waiting or (self._further is not None and self._further.is_waiting)
