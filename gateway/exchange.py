"""One request and its response: choose, send, stream, retry, finish. The hot path.

An exchange sits between a client connection and a backend connection and is called back by both; nothing here
waits. It keeps the route that it started with, whatever is swapped in meanwhile. A failure that nobody has
seen yet (no byte of a response was passed on) moves to another endpoint of the same backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from gateway.balance import Ring, Split
from gateway.filters import headers, mirror, redirect, rewrite
from gateway.http1 import (
    CHUNKED,
    CONNECTION,
    FORWARDED,
    FORWARDED_FOR,
    HOP,
    HOST,
    NO_LENGTH,
    PLAIN,
    UPGRADE,
    Field,
    ProtocolError,
    Request,
    Response,
    answer,
)  # fmt: skip
from gateway.routing import Entry
from gateway.snapshot import Fault, Filter, Mirror, Redirect, RequestHeaders, ResponseHeaders, Rewrite, Rule

REPLAY: Final = 65536  # bytes of a request kept so that it can be sent again
PENDING: Final = 65536  # bytes of a body held while a connection is being made
MIRROR_BUFFER: Final = 1 << 20  # bytes that a slow mirror may owe before it is given up
# RFC 9110 §9.2.2: what may be sent twice without being asked.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class Peer(Protocol):
    """A backend connection, as an exchange sees it."""

    reused: bool

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def buffered(self) -> int: ...
    def transport_for_tunnel(self) -> asyncio.Transport: ...


class User(Protocol):
    """Whoever uses a backend connection for one request; called by the connection."""

    memo: dict[bytes, tuple[bytes, int]] | None
    head_only: bool
    request_done: bool

    def connected(self, peer: Peer) -> None: ...
    def connect_failed(self, reason: str) -> None: ...
    def response(self, response: Response, head: bytes) -> None: ...
    def response_data(self, data: bytes) -> None: ...
    def response_complete(self, data: bytes, status: int) -> None: ...
    def response_end(self) -> None: ...
    def response_lost(self, reason: str, *, clean: bool) -> None: ...
    def response_invalid(self, error: ProtocolError) -> None: ...
    def pause_sending(self) -> None: ...
    def resume_sending(self) -> None: ...


class Endpoint(Protocol):
    """Where a backend can be reached: a pool of connections to one address."""

    name: str

    def take(self, user: User) -> Peer | None:
        """An idle connection, now the user's; None where there is none."""

    def connect(self, user: User) -> None:
        """Make a connection and hand it to the user's `connected`, or call `connect_failed`."""


class Client(Protocol):
    """A client connection, as an exchange sees it."""

    address: bytes
    scheme: bytes
    port: int

    @property
    def draining(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def finished(self, *, reuse: bool) -> None: ...
    def abort(self) -> None: ...
    def progress(self) -> None: ...
    def tunnel(self, peer: Peer, head: bytes) -> None: ...


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


class Exchange:
    """See the module. Methods are grouped by who calls them: the client, the backend, time."""

    __slots__ = (
        "_backends", "_chunks", "_closing", "_copies", "_head", "_pending", "_replay", "_since", "_started", "_status",
        "_timers", "_tried", "_upgrading", "client", "entry", "head_only", "memo", "peer", "request", "request_done", "target",
    )  # fmt: skip

    def __init__(self, client: Client, request: Request, entry: Entry[Route], backends: Callable[[str], Backend]) -> None:
        # Given.
        self.client = client
        self.request = request
        self.entry = entry
        self._backends = backends
        # What is known of the request.
        self.head_only = request.method == b"HEAD"
        self.request_done = False
        # Where it went.
        self.target: Target
        self.peer: Peer | None = None
        self._head = b""
        self._upgrading = False
        self._pending: list[bytes] | None = None  # not None: a connection is being made, bytes wait
        self._replay: list[bytes] | None = []  # not None: all that was sent, small enough to send again
        self._tried: list[Endpoint] = []
        self._copies: list[Copy] = []
        # What came back.
        self.memo: dict[bytes, tuple[bytes, int]] | None = None
        self._chunks = False  # the client does not know chunks: pass on the payload only
        self._started = False
        self._closing = False
        self._status = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._since = monotonic()

    # --- called by the client's connection ---

    def start(self) -> None:
        """Decide, and send the head on its way."""
        route = self.entry.route
        target = route.split.next()
        assert target is not None
        self.target = target
        if target.location is not None:
            self._redirect(target.location)
            return
        if target.fault:
            self.refuse(target.fault, target.reason)
            return
        request = self.request
        if request.keep_alive and not request.http10 and not self.head_only and not self.client.draining:
            self.memo = target.memo
        if route.request_timeout:
            self._after(route.request_timeout, self._timed_out)
        self._head = self._compose()
        if target.mirrors:
            self._copies = [Copy(self._backends(to), self._head) for due, to in target.mirrors if due()]
            for copy in self._copies:
                copy.start()
        assert target.backend is not None
        endpoint = target.backend.ring.next()
        if endpoint is None:
            self.refuse(503, "no endpoint of the backend is ready")
            return
        self._try(endpoint)

    def data(self, data: bytes) -> None:
        """Bytes of the request's body, framed as the client framed them."""
        for copy in self._copies:
            copy.data(data)
        if self._replay is not None:
            self._replay.append(data)
            if sum(map(len, self._replay)) > REPLAY:
                self._replay = None
        if self._pending is not None:
            self._pending.append(data)
            if sum(map(len, self._pending)) > PENDING:
                self.client.pause_reading()
        elif self.peer is not None:
            self.peer.write(data)

    def end(self) -> None:
        """The request is complete."""
        self.request_done = True

    def client_lost(self) -> None:
        """The client is gone: so is the reason for the request."""
        self._status = self._status or 499
        self._close_peer()
        self._finish(reuse=False)

    # --- choosing and sending ---

    def _compose(self) -> bytes:
        """The head as it goes to the backend (RFC 9110 §7.6)."""
        request, client, target = self.request, self.client, self.target
        host, uri = request.host, request.target
        if target.rewrite is not None:
            host, uri = target.rewrite(request, self.entry.prefix)
        options = request.options
        upgrading = bool(request.upgrade) and b"upgrade" in options and request.length in (NO_LENGTH, 0)
        # h2c would start a conversation here that nobody has checked (RFC 9113 §3.1 deprecates it).
        upgrading = upgrading and not request.http10 and b"h2c" not in request.upgrade.lower()
        kept: list[Field] = []
        forwarded = b""
        for field in request.special:
            kind = field.kind
            if kind == FORWARDED_FOR:
                forwarded += field.value + b", "
            elif kind == UPGRADE:
                if upgrading:
                    kept.append(field)
            elif kind not in (HOST, CONNECTION, HOP, FORWARDED):
                kept.append(field)
        if target.edit_request is not None or options:
            fields = [field for field in request.fields if not field[0] and field.name not in options] + kept
            value = forwarded + client.address
            fields += [
                Field(PLAIN, b"x-forwarded-for", value, b"X-Forwarded-For: " + value),
                Field(PLAIN, b"x-forwarded-proto", client.scheme, b"X-Forwarded-Proto: " + client.scheme),
                Field(PLAIN, b"x-forwarded-host", request.host, b"X-Forwarded-Host: " + request.host),
            ]
            if target.edit_request is not None:
                fields = target.edit_request(fields)
            lines = [field.line for field in fields]
        else:
            lines = [line for kind, _, _, line in request.fields if not kind]
            lines += [field.line for field in kept]
            lines.append(b"X-Forwarded-For: " + forwarded + client.address)
            lines.append(b"X-Forwarded-Proto: " + client.scheme)
            lines.append(b"X-Forwarded-Host: " + request.host)
        if upgrading:
            lines.append(b"Connection: Upgrade")
        self._upgrading = upgrading
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (request.method, uri, host, b"\r\n".join(lines))

    def _try(self, endpoint: Endpoint) -> None:
        self._tried.append(endpoint)
        if self.entry.route.backend_timeout:
            self._after(self.entry.route.backend_timeout, self._timed_out)
        peer = endpoint.take(self)
        if peer is None:
            self._pending = []
            endpoint.connect(self)
        else:
            self.peer = peer
            peer.write(self._head)

    def connected(self, peer: Peer) -> None:
        """A connection was made for us: send what waited for it."""
        self.peer = peer
        pending = self._pending or []
        self._pending = None
        peer.write(self._head + b"".join(pending))
        self.client.resume_reading()

    def connect_failed(self, reason: str) -> None:
        """Nobody has seen a byte: ask another endpoint, each once."""
        backend = self.target.backend
        assert backend is not None
        backend.failed(self._tried[-1])
        following = self._another(backend)
        if following is None:
            self.refuse(503, "no endpoint of the backend accepts connections")
            return
        pending = self._pending or []
        self._tried.append(following)
        peer = following.take(self)
        if peer is None:
            following.connect(self)
        else:
            self._pending = None
            self.peer = peer
            peer.write(self._head + b"".join(pending))

    def _another(self, backend: Backend) -> Endpoint | None:
        for _ in range(len(backend.ring)):
            endpoint = backend.ring.next()
            if endpoint is not None and endpoint not in self._tried:
                return endpoint
        return None

    # --- called by the backend's connection ---

    def response(self, response: Response, head: bytes) -> None:
        """A response's head: pass it on, or act on it."""
        status = response.status
        if status < 200:
            self._interim(response)
            return
        request = self.request
        self._started = True
        self._status = status
        self.client.progress()
        length = response.length
        bodiless = self.head_only or status in (204, 304)
        fields = [
            field
            for field in response.fields
            if field.kind not in (CONNECTION, HOP, UPGRADE) and field.name not in response.options
        ]
        closing = not request.keep_alive or self.client.draining or not self.request_done
        if not bodiless and length < 0:
            if length == NO_LENGTH:
                closing = True  # the body ends with the connection (RFC 9112 §6.3, case 8)
            elif request.http10:
                closing = self._chunks = True
                fields = [field for field in fields if field.name != b"transfer-encoding"]
        if self.target.edit_response is not None:
            fields = self.target.edit_response(fields)
        lines = [b"HTTP/1.1 %d %b" % (status, response.reason)]
        lines += [field.line for field in fields]
        if closing:
            lines.append(b"Connection: close")
        elif request.http10:
            lines.append(b"Connection: keep-alive")
        self._closing = closing
        out = b"\r\n".join(lines) + b"\r\n\r\n"
        self.client.write(out)
        if self.memo is not None and not closing and length >= 0 and response.keep_alive and not bodiless:
            if len(head) < 4096:
                if len(self.memo) >= 1024:
                    self.memo.clear()
                self.memo[head] = (out, len(head) + length)

    def _interim(self, response: Response) -> None:
        """1xx (RFC 9110 §15.2): a change of protocol, or a word in between."""
        lines = [b"HTTP/1.1 %d %b" % (response.status, response.reason)]
        lines += [f.line for f in response.fields if f.kind not in (CONNECTION, HOP)]
        if response.status == 101:
            if self.peer is None or not self._upgrading:
                self.response_invalid(ProtocolError(502, "the backend changed protocols unasked"))
                return
            self._started = True
            self._status = 101
            lines.append(b"Connection: Upgrade")
            peer, self.peer = self.peer, None
            self._settle(101)
            self.client.tunnel(peer, b"\r\n".join(lines) + b"\r\n\r\n")
        elif not self.request.http10:
            self.client.write(b"\r\n".join(lines) + b"\r\n\r\n")

    @property
    def wants_payload(self) -> bool:
        """Whether the chunked framing must be taken off for this client."""
        return self._chunks

    def response_data(self, data: bytes) -> None:
        """Bytes of the response's body."""
        self.client.progress()
        self.client.write(data)

    def response_complete(self, data: bytes, status: int) -> None:
        """A whole response in one piece, its head known from before."""
        self._started = True
        self._status = status
        self.peer = None
        self.client.write(data)
        self._finish(reuse=self.request_done)

    def response_end(self) -> None:
        """The response is complete; the connection is no longer ours."""
        self.peer = None
        self._finish(reuse=not self._closing)

    def response_lost(self, reason: str, *, clean: bool) -> None:
        """The connection ended before the response did. `clean` when its end is how the body ends."""
        reused = self.peer is not None and self.peer.reused
        self.peer = None
        if clean:
            self._finish(reuse=False)
        elif self._started or not self._again(reused):
            self.refuse(502, "the backend closed the connection before it answered")

    def response_invalid(self, error: ProtocolError) -> None:
        """The backend's bytes are not HTTP; none of them reach the client."""
        self.refuse(502, error.reason)

    def pause_sending(self) -> None:
        """The backend takes the body more slowly than the client sends it."""
        self.client.pause_reading()

    def resume_sending(self) -> None:
        """The backend has caught up."""
        self.client.resume_reading()

    def _again(self, reused: bool) -> bool:
        """Send the request once more, where that is safe and all of it is still here."""
        if self._replay is None or self.request.method not in IDEMPOTENT or len(self._tried) > 3:
            return False
        backend = self.target.backend
        assert backend is not None
        # A reused connection may have been closed while idle: its endpoint deserves a fresh one first.
        endpoint = self._tried[-1] if reused else self._another(backend)
        if endpoint is None:
            return False
        self._tried.append(endpoint)
        self._pending = list(self._replay)
        endpoint.connect(self)
        return True

    # --- ending ---

    def refuse(self, status: int, reason: str) -> None:
        """Answer here, with one line that says why; a response that has begun can only be cut."""
        self._close_peer()
        self._status = status
        if self._started:
            self.client.abort()
            self._finish(reuse=False)
            return
        close = not self.request_done or not self.request.keep_alive or self.client.draining
        keep_10 = self.request.http10 and not close
        self._started = True
        self.client.write(answer(status, reason, close=close, head_only=self.head_only, keep_alive_10=keep_10))
        self._finish(reuse=not close)

    def _redirect(self, location: redirect.Location) -> None:
        client, status = self.client, self.target.redirect_status
        where = location(self.request, self.entry.prefix, client.scheme.decode(), client.port)
        close = not self.request_done or not self.request.keep_alive or client.draining
        self._status = status
        self._started = True
        client.write(answer(status, fields=[(b"Location", where)], close=close, head_only=self.head_only))
        self._finish(reuse=not close)

    def _timed_out(self) -> None:
        """HTTPRouteTimeouts: 504, or a cut where the response has begun."""
        self.refuse(504, "the backend took longer than the route's timeout")

    def expired(self) -> None:
        """Nothing has moved for as long as a connection may idle."""
        self._timed_out()

    def _after(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, callback))

    def _close_peer(self) -> None:
        peer, self.peer = self.peer, None
        self._pending = None
        if peer is not None:
            peer.abort()

    def _settle(self, status: int) -> None:
        """Count, and let go of everything that time or mirrors hold."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for copy in self._copies:
            copy.end()
        self.target.counter.count(status, monotonic() - self._since)

    def _finish(self, *, reuse: bool) -> None:
        self._settle(self._status or 500)
        self.client.finished(reuse=reuse)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for a connection any more."""
        return self._pending is None


class Copy:
    """A mirrored request: sent once, its answer dropped, given up when the mirror is slow (best effort)."""

    __slots__ = ("_backend", "_pending", "head_only", "memo", "peer", "request_done")
    wants_payload = False

    def __init__(self, backend: Backend, head: bytes) -> None:
        self._backend = backend
        self._pending: list[bytes] | None = [head]
        self.memo: dict[bytes, tuple[bytes, int]] | None = None
        self.head_only = head.startswith(b"HEAD ")
        self.peer: Peer | None = None
        self.request_done = False

    def start(self) -> None:
        """Send it to the next endpoint; without one there is no copy."""
        endpoint = self._backend.ring.next()
        if endpoint is None:
            self._pending = None
            return
        peer = endpoint.take(self)
        if peer is None:
            endpoint.connect(self)
        else:
            self.connected(peer)

    def data(self, data: bytes) -> None:
        """Body bytes, unless the mirror has fallen too far behind."""
        if self._pending is not None:
            self._pending.append(data)
            if sum(map(len, self._pending)) > MIRROR_BUFFER:
                self._pending = None
        elif self.peer is not None:
            self.peer.write(data)
            if self.peer.buffered() > MIRROR_BUFFER:
                peer, self.peer = self.peer, None
                peer.abort()

    def end(self) -> None:
        """The exchange is over; the copy finishes by itself."""
        self.request_done = True

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for a connection any more."""
        return self._pending is None

    def connected(self, peer: Peer) -> None:
        """Send what waited."""
        self.peer = peer
        pending, self._pending = self._pending or [], None
        peer.write(b"".join(pending))

    def connect_failed(self, reason: str) -> None:
        """Best effort: no copy."""
        self._pending = None

    def response(self, response: Response, head: bytes) -> None:
        """Dropped."""

    def response_data(self, data: bytes) -> None:
        """Dropped."""

    def response_complete(self, data: bytes, status: int) -> None:
        """Dropped."""
        self.peer = None

    def response_end(self) -> None:
        """The connection goes back to its pool."""
        self.peer = None

    def response_lost(self, reason: str, *, clean: bool) -> None:
        """Dropped."""
        self.peer = None

    def response_invalid(self, error: ProtocolError) -> None:
        """A mirror that does not speak HTTP is cut off."""
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.abort()

    def pause_sending(self) -> None:
        """A copy never slows the request down."""

    def resume_sending(self) -> None:
        """A copy never slows the request down."""


__all__ = ["CHUNKED", "Backend", "Client", "Copy", "Counter", "Endpoint", "Exchange", "Peer", "Route", "Target", "User"]
