"""One request and its response: choose, send, stream, retry, finish. The hot path.

An exchange sits between a client connection and a backend connection and is called back by both; nothing here
waits. It keeps the route that it started with, whatever is swapped in meanwhile. A failure that nobody has
seen yet (no byte of a response was passed on) moves to another endpoint of the same backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import cast

from gateway.filters import cors, redirect
from gateway.http import forwarding, grpc_web
from gateway.http.chunked import Chunks, chunk, last_chunk
from gateway.http.grpc_web import GrpcWebTranslation
from gateway.http.http1 import CHUNKED, EXPECT, NO_LENGTH, Edit, Field, ProtocolError, Request, Response, fold
from gateway.http.local_replies import answer, grpc_answer
from gateway.interfaces import DownstreamPeer, Endpoint, UpstreamStream
from gateway.proxy import mirroring
from gateway.proxy.attempts import IDEMPOTENT, Attempts
from gateway.proxy.authorization import Authorization
from gateway.proxy.external_auth import Denied, refusal
from gateway.proxy.handover import Handover
from gateway.proxy.mirroring import MirroredRequest
from gateway.proxy.route import ResponseHeadCache, Route, Target
from gateway.routing.table import RouteMatch
from gateway.upstream.backend import Backend
from gateway.upstream.session_persistence import Holder, Sessions


def name_of(endpoint: Endpoint) -> str:
    """By which an endpoint is told from others."""
    return endpoint.name


class Exchange:
    """One request and its response. Methods are grouped by who calls them: the client, the backend, time."""

    __slots__ = (
        "_answers",
        "_attempt_timer",
        "_authorization",
        "_backends",
        "_body",
        "_closing",
        "_copies",
        "_deadline",
        "_endpoint",
        "_further",
        "_head",
        "_held",
        "_is_full",
        "_is_watched",
        "_loose",
        "_more",
        "_pending",
        "_reframes",
        "_replay",
        "_request_trailers",
        "_since",
        "_started",
        "_status",
        "_unframed",
        "_unsent",
        "_upgrading",
        "_web",
        "answers",
        "client",
        "entry",
        "head_only",
        "peer",
        "request",
        "request_done",
        "target",
        "wants_payload",
    )  # fmt: skip

    def __init__(
        self, client: DownstreamPeer, request: Request, entry: RouteMatch[Route], backends: Callable[[str], Backend]
    ) -> None:
        # Given.
        self.client = client
        self.request = request
        self.entry = entry
        self._backends = backends
        # What is known of the request.
        self.head_only = request.method == b"HEAD"
        self.request_done = False
        # Content of a length that nobody knows, from a client that frames by other means than chunks.
        self._loose = request.length == CHUNKED and not client.is_framed
        self._web: GrpcWebTranslation | None = None  # gRPC-Web
        self._unframed = False  # the client frames its content, and what is passed on is bare
        self._request_trailers: list[Field] | None = None
        # Where it went.
        self.target: Target
        self.peer: UpstreamStream | None = None
        self._head = b""
        self._is_full = False  # the peer takes no more of the body for now
        self._upgrading = False
        self._pending: list[bytes] | None = None  # not None: a connection is being made, bytes wait
        self._body = 0  # bytes of the request's body so far
        self._replay: list[bytes] | None = []  # not None: all that was sent, small enough to send again
        self._endpoint: Endpoint | None = None  # that was asked last
        self._further: Attempts | None = None
        self._held: tuple[Holder, Endpoint] | None = None  # where the client's session leads
        self._authorization: Authorization | None = None
        self._copies: list[MirroredRequest] = []
        # What came back.
        self._answers: ResponseHeadCache | None = None  # where response heads of this kind are remembered
        self.answers: ResponseHeadCache | None = (
            None  # the same, once the request is sent and its response may come in one piece
        )
        self.wants_payload = not client.is_framed  # the client does not know chunks: their framing is taken off
        self._is_watched = False  # somebody looks at the response, so that it cannot be known from before
        self._reframes = False  # what the client gets is framed here, after somebody looked at it bare
        self._more: list[Field] = []  # what the response must say besides
        self._unsent = b""  # of the response's head
        self._started = False
        self._closing = False
        self._status = 0
        self._deadline: asyncio.TimerHandle | None = None  # of the request
        self._attempt_timer: asyncio.TimerHandle | None = None  # of the attempt at a backend
        self._since = monotonic()

    # --- called by the client's connection ---

    def start(self) -> None:
        """Decide, and send the head on its way."""
        self.target = next(self.entry.route.turns)
        self.proceed()

    def proceed(self) -> None:
        """Go on from the choice of a target."""
        target, route = self.target, self.entry.route
        if route.sessions is not None:
            self._held = route.sessions.find(self.request)
            if self._held is not None:
                target = self.target = cast("Target", self._held[0])
        if target.cors is not None and self._is_preflight(target.cors):
            return
        if target.auths and not self._authorize(target):
            return
        if target.location is not None:
            self._redirect(target.location)
            return
        if target.fault:
            self.refuse(target.fault, target.reason)
            return
        request = self.request
        if route.grpc and self._web is None and not request.upgrade and grpc_web.is_asked(self.request):
            self._translate()
            request = self.request
        self._head = self._compose(target)
        is_to_open = self._upgrading and not self.client.is_framed  # a tunnel: `response` decides whether it is open
        if route.sessions is not None or self._more or self._web is not None or self._is_watched or is_to_open:
            self.read_in_full()
        elif request.keep_alive and not request.http10 and not self.head_only and not self.client.closes_after_this:
            self._answers = target.answers
            if self.request_done:
                self.answers = self._answers
        self.time_request()
        if target.mirrors and not self._upgrading:  # a copy's answer is dropped: there is nobody to speak the other protocol
            self._copies = mirroring.start(target.mirrors, self._backends, self._head)
            for piece in self._pending or ():  # came while somebody was asked
                self._copy(piece)
            if self.is_sent:
                self._end_copies()
        if self._held is not None:
            self.send(self._held[1])
        else:
            self.send(self._next(target))

    def _authorize(self, target: Target) -> bool:
        """Whether all have been asked whether the request may pass (ExternalAuth); what comes of the body meanwhile waits."""
        if self._authorization is None:
            self._authorization = Authorization(self)
        if self._authorization.all_allowed(target.auths):
            return True
        if self._pending is None:
            self._pending = []
        self.time_request()
        self._authorization.ask(target.auths, self._backends)
        return False

    @property
    def body_octets(self) -> int:
        """Octets of the request's body that have come."""
        return self._body

    def body_so_far(self) -> bytes:
        """The request's body as far as it has come and waits, without its framing."""
        data = b"".join(self._pending or ())
        if self.request.length != CHUNKED or self._loose:
            return data
        chunks = Chunks()
        chunks.feed(data)
        return chunks.taken()

    def deny(self, verdict: Denied) -> None:
        """The request may not pass."""
        close = self._closes
        self._pending = None
        self._status = verdict.status
        self._started = True
        if self.client.is_framed or not forwarding.is_grpc(self.request):
            self.client.write(refusal(verdict, close=close, head_only=self.head_only))
        else:
            self.client.write(grpc_answer(verdict.status, verdict.body.decode("utf-8", "replace").strip()))
        self._finish(reuse=not close)

    def _next(self, target: Target) -> Endpoint | None:
        """Whose turn it is."""
        if target.hashed:
            return target.endpoints.of(self.client.address, name_of)
        return next(target.endpoints.turns, None)

    def _translate(self) -> None:
        """From here on the request is gRPC's, and its answer is translated back."""
        self._web = web = GrpcWebTranslation(self.request, framed=self.client.is_framed)
        self.request = web.request
        self._loose = self.wants_payload = self._reframes = True
        self._unframed = self.client.is_framed
        if self._pending:
            self._pending = [web.incoming(piece) for piece in self._pending]

    def _is_preflight(self, policy: cors.CorsPolicy) -> bool:
        """Answer a CORS preflight, or remember what its answer must say to a browser."""
        origin = self.request.value(b"origin")
        if origin is None:
            return False
        allowed = policy.allows(origin)
        fields = policy.preflight(self.request, origin)
        if fields is None:
            self._more = policy.actual(origin) if allowed else []
            return False
        self._answer(204, "", fields if allowed else [])
        return True

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
        self._answers = self.answers = target.answers
        self.time_request(monotonic() - since)
        if peer is not None:
            self._time_attempt(monotonic() - since)
            self.peer = peer
            peer.user = self
            self._endpoint = peer.endpoint

    def read_in_full(self) -> None:
        """The answer must be written anew, even if its head is known: it says something of this request or connection."""
        self._answers = self.answers = None

    def promote(self) -> Exchange:
        """The user of a connection that can take whatever comes of it."""
        return self

    def data(self, data: bytes) -> None:
        """Bytes of the request's body, framed as the client framed them."""
        if self._web is not None:
            try:
                data = self._web.incoming(data)
            except (ProtocolError, ValueError):
                self.refuse(400, "the content is not gRPC-Web's")
                return
        if not data and not (self._unframed and self.request_done):
            return
        self._copy(data)
        self._body += len(data)
        if self._replay is not None:
            self._replay.append(data)
            if self._body > self.client.limits.buffered_bytes:
                self._replay = None
        if self._pending is not None:
            self._pending.append(data)
            if self._authorization is not None:
                self._authorization.ask_if_ready()
            if self._body > self.client.limits.buffered_bytes and not self._is_awaited:
                self.client.pause_reading()
        elif self.peer is not None:
            if self._loose:
                self.peer.content(data)
            else:
                self.peer.write(data)
        if self._unframed and self.request_done:  # on HTTP/1.1 the end is known before its last bytes are passed on
            self._end_copies()
            if self.peer is not None:
                self.peer.finish()

    def _copy(self, data: bytes) -> None:
        for one in self._copies:
            one.data(chunk(data) if self._loose else data)

    def _end_copies(self) -> None:
        """Say the end of content whose length nobody knew."""
        if self._loose:
            for one in self._copies:
                one.data(last_chunk(()))

    @property
    def _is_awaited(self) -> bool:
        """Whether somebody here waits for more of the request's body."""
        return self._authorization is not None and self._authorization.awaits_body

    def end(self, trailers: list[Field] | None = None) -> None:
        """The request is complete."""
        self.request_done = True
        self.answers = self._answers
        if self._authorization is not None and self._loose:
            self._authorization.ask_if_ready()
        if self._loose and not self._unframed:
            self._request_trailers = self.passing(trailers) if trailers else None
            self._end_copies()
            if self.peer is not None:
                self.peer.finish(trailers)

    def passing(self, trailers: list[Field]) -> list[Field]:
        """The trailers that go on. Some backends add them to the fields: what is set or removed there must not come in behind
        the body. While somebody is asked who may have a say, none go on, as RFC 9110 §6.5.1 allows."""
        if not self._head:
            return []
        edit = self.target.edit_request
        if edit is not None:
            edited = edit([*trailers])
            trailers = [trailer for trailer in trailers if trailer in edited]
        if self._authorization is not None:
            changed = self._authorization.changed
            trailers = [trailer for trailer in trailers if fold(trailer.name) not in changed]
        return trailers

    def _say(self, peer: UpstreamStream, pieces: list[bytes]) -> None:
        """The request as far as it has come."""
        if not self._loose:
            peer.write(self._head + b"".join(pieces) if pieces else self._head)
            return
        peer.open(self._head)
        for piece in pieces:
            peer.content(piece)
        if self.is_sent:
            peer.finish(self._request_trailers)

    def client_lost(self) -> None:
        """The client is gone: so is the reason for the request."""
        self._status = self._status or 499
        self._close_peer()
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
        self._time_attempt()
        peer = None if fresh and endpoint.idle else endpoint.take(self)
        if peer is None:
            self._pending = self._pending or []
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
        return self._replay is not None and not self._started

    def rewind(self) -> None:
        """The last attempt is given up; what has come of the request's body waits to be sent once more."""
        self._close_peer()
        if self._attempt_timer is not None:
            self._attempt_timer.cancel()
        self._pending = list(self._replay or ())

    def connected(self, peer: UpstreamStream) -> None:
        """There is a connection for us: send what waited for it."""
        self.peer = peer
        self._is_full = False
        if not self.client.takes_more:
            peer.pause_reading()
        pending, self._pending = self._pending, None
        self._say(peer, pending or [])
        if pending is not None:
            self._want_more()

    def _want_more(self) -> None:
        """More of the request's body, unless there is enough: then `resume_sending` asks for it, or `connected`."""
        waits_for_peer = self._pending is not None and self._body > self.client.limits.buffered_bytes
        if not self._is_full and (not waits_for_peer or self._is_awaited):
            self.client.resume_reading()

    def connect_failed(self, reason: str) -> None:
        """Nobody has seen a byte: ask another endpoint, each once."""
        backend, endpoint = self.target.backend, self._endpoint
        assert backend is not None
        assert endpoint is not None
        backend.failed(endpoint)
        attempts = self._attempts
        if not attempts.elsewhere() and not attempts.later():
            self.refuse(503, "no endpoint of the backend accepts connections")

    # --- called by the backend's connection ---

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
        request, route, status = self.request, self.entry.route, response.status
        self._started = True
        self._status = status
        self.client.touch()
        if self._web is not None:
            response = self._web.response(response)
        length = response.length
        bodiless = self.head_only or status in (204, 304)
        closing = not request.keep_alive or self.client.closes_after_this or not self.request_done
        if not self.client.is_framed:
            closing = False  # a stream ends by itself
        elif not bodiless and length == NO_LENGTH:
            closing = True  # the body ends with the connection (RFC 9112 §6.3, case 8)
        elif not bodiless and length == CHUNKED and request.http10:
            closing = self.wants_payload = True
        self._closing = closing
        connection = b"close" if closing else b"keep-alive" if request.http10 else b""
        edit = self.target.edit_response
        if self._more or route.sessions is not None:
            edit = self._with_more(edit, route.sessions)
        dechunked = self.wants_payload and not self._reframes
        out = forwarding.response_head(response, edit, connection, dechunked=dechunked)
        self._unsent = out  # goes out with the first bytes of the body: one write is cheaper than two
        memorable = not closing and not bodiless and length >= 0 and response.keep_alive
        if self._answers is not None and memorable and head:
            self._answers.remember(head, out, length, status)

    def _with_more(self, edit: Edit | None, sessions: Sessions | None) -> Edit:
        """An edit that also says what this request's answer must say, in place of what the backend says of it."""
        more = list(self._more)
        if sessions is not None and self.target.backend is not None:
            endpoint = self._endpoint
            assert endpoint is not None
            if self._held is None or self._held[1] is not endpoint:
                more.append(sessions.begin(self.target.backend.name, endpoint, self.client.scheme))
        replaced = {field.name for field in self._more} - {b"vary"}

        def edited(fields: list[Field]) -> list[Field]:
            kept = edit(fields) if edit is not None else fields
            return [field for field in kept if field.name not in replaced] + more

        return edited

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
        elif not self.request.http10 and (response.status != 100 or self._may_continue()):
            self.client.write(forwarding.interim_head(response))

    def _may_continue(self) -> bool:
        """Whether the client waits to be told so (RFC 9110 §15.2.1): whoever did not ask can only be confused by it."""
        if not any(field.kind == EXPECT for field in self.request.special):
            return False
        self.request = forwarding.unexpecting(self.request)
        return True

    def response_data(self, data: bytes) -> None:
        """Bytes of the response's body."""
        self.client.touch()
        if self._web is not None:
            data = self._web.outgoing(data)
        if self._unsent:
            data = self._unsent + data
            self._unsent = b""
        self.client.write(data)

    def flush(self) -> None:
        """No bytes of the body have come with the head."""
        if self._unsent:
            unsent, self._unsent = self._unsent, b""
            self.client.write(unsent)

    def answered(self, data: bytes, status_class: int) -> None:
        """A whole response in one piece, its head known from before."""
        self._started = True
        self._status = status_class * 100
        self.peer = None
        self.client.write(data)
        self._finish(reuse=self.request_done)

    def begun(self, data: bytes, status_class: int) -> None:
        """The head of a response, known from before, and a part of its body."""
        self._started = True
        self._status = status_class * 100
        self.continued(data)

    def continued(self, data: bytes | memoryview) -> None:
        """More of its body."""
        if self._web is not None:
            self.response_data(bytes(data))
            return
        self.client.touch()
        self.client.write(data)

    def owes(self) -> int:
        """Bytes that the client has not taken yet."""
        return self.client.owes()

    def ended(self, data: bytes, status_class: int) -> None:
        """The last of its body."""
        self.answered(data, status_class)

    def response_trailers(self, fields: list[Field]) -> None:
        """The response's trailers, for a client that does not get them with the data."""
        if self._unsent:
            unsent, self._unsent = self._unsent, b""
            self.client.write(unsent)
        if self._web is not None:
            self.client.write(self._web.trailers(fields))
        else:
            self.client.trailers(fields)

    def response_end(self) -> None:
        """The response is complete; the connection is no longer ours."""
        self.flush()
        if self._web is not None and (end := self._web.end()):
            self.client.write(end)
        self.peer = None
        self._finish(reuse=not self._closing)

    def response_lost(self, reason: str, *, clean: bool, untouched: bool = False) -> None:
        """The connection ended before the response did. `clean` when its end is how the body ends; `untouched` when the
        backend says that it has not looked at the request."""
        reused = self.peer is not None and self.peer.reused
        self.peer = None
        if clean:
            self.flush()
            self._finish(reuse=False)
            return
        if self._started:
            self.refuse(502, "the backend closed the connection before it was done")
            return
        attempts = self._attempts
        if not attempts.at_once(reused=reused, untouched=untouched) and not attempts.later(
            is_safe=self.request.method in IDEMPOTENT
        ):
            status = 503 if self.entry.route.retry is not None else 502
            self.refuse(status, "the backend closed the connection before it answered")

    def response_invalid(self, error: ProtocolError) -> None:
        """The backend's bytes are not HTTP; none of them reach the client."""
        self.refuse(502, error.reason)

    def pause_sending(self) -> None:
        """The backend takes the body more slowly than the client sends it."""
        self._is_full = True
        self.client.pause_reading()

    def resume_sending(self) -> None:
        """The backend has caught up."""
        self._is_full = False
        self.client.resume_reading()

    # --- ending ---

    def refuse(self, status: int, reason: str) -> None:
        """Answer here, with one line that says why; a response that has begun can only be cut."""
        self._close_peer()
        self._status = status
        if self._started:
            self.client.abort()
            self._finish(reuse=False)
            return
        close = self._closes
        keep_10 = self.request.http10 and not close
        self._started = True
        if self._web is not None:
            self.client.write(self._web.refusal(grpc_answer(status, reason)))
        elif self.client.is_framed:
            self.client.write(answer(status, reason, close=close, head_only=self.head_only, keep_alive_10=keep_10))
        else:
            self.client.write(forwarding.failure(self.request, status, reason))
        self._finish(reuse=not close)

    def _redirect(self, location: redirect.Location) -> None:
        client, status = self.client, self.target.redirect_status
        where = location(self.request, self.entry.prefix, client.scheme.decode(), client.port)
        self._answer(status, "", [(b"Location", where)])

    def _answer(self, status: int, text: str, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer here, and not because something went wrong."""
        client = self.client
        close = self._closes
        self._status = status
        self._started = True
        client.write(answer(status, text, fields=fields, close=close, head_only=self.head_only))
        self._finish(reuse=not close)

    def _attempt_timed_out(self) -> None:
        """HTTPRouteTimeouts.backendRequest is up: there may be another attempt."""
        if self.peer is not None and not self.client.takes_more:
            self._time_attempt()  # it may have answered: it is not read while the client takes nothing
        elif self._endpoint is None or not self._attempts.later():
            self._timed_out()

    def _timed_out(self) -> None:
        """HTTPRouteTimeouts: 504, or a cut where the response has begun."""
        self.refuse(504, "the backend took longer than the route's timeout")

    def expired(self) -> None:
        """Nothing has moved for as long as a connection may idle."""
        self._timed_out()

    def time_request(self, elapsed: float = 0.0) -> None:
        """HTTPRouteTimeouts.request is for all attempts together."""
        seconds = self.entry.route.request_timeout
        if seconds and self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(max(seconds - elapsed, 0.0), self._timed_out)

    def _time_attempt(self, elapsed: float = 0.0) -> None:
        """HTTPRouteTimeouts.backendRequest is for each attempt anew."""
        seconds = self.entry.route.backend_timeout
        if seconds:
            if self._attempt_timer is not None:
                self._attempt_timer.cancel()
            self._attempt_timer = asyncio.get_running_loop().call_later(max(seconds - elapsed, 0.0), self._attempt_timed_out)

    def _close_peer(self) -> None:
        peer, self.peer = self.peer, None
        self._pending = None
        if peer is not None:
            peer.abort()

    def _settle(self, status: int) -> None:
        """Count, and let go of everything that time or mirrors hold."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._attempt_timer is not None:
            self._attempt_timer.cancel()
        if self._further is not None:
            self._further.cancel()
        if self._authorization is not None:
            self._authorization.cancel()
        for one in self._copies:
            one.end()
        self.target.counter.count(status // 100, monotonic() - self._since)

    def _finish(self, *, reuse: bool) -> None:
        self._settle(self._status or 500)
        self.client.finished(reuse=reuse)

    @property
    def _closes(self) -> bool:
        """Whether an answer that is made here is the connection's last."""
        return not self.request_done or not self.request.keep_alive or self.client.closes_after_this

    @property
    def is_sent(self) -> bool:
        """Whether the backend has been told everything."""
        return self.request_done

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for a connection any more; who will ask again later, does not wait for what was asked before."""
        return self._pending is None or (self._further is not None and self._further.is_waiting)


def not_switched(status: int) -> str:
    """Why a request for another protocol failed."""
    return f"another protocol was asked for, and the answer was {status} in place of a change to it"
