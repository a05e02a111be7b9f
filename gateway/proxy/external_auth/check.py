"""ExternalAuth: ask a backend whether a request may pass (GEP-1494).

By HTTP the question is the request's own head, to a path of the server's choice; 200 means yes. By gRPC it is a `Check`
of Envoy's `envoy.service.auth.v3`, status OK means yes; `protobuf` beside this writes and reads the few fields of it.
Where nobody answers in time or in a way that can be understood, the answer is no.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from gateway.http.forwarding import is_grpc
from gateway.http.http1 import FOLDED, HOST, KIND, PLAIN, SHADOW, Field, Request, Response, kind_of
from gateway.http.local_replies import grpc_answer, whole
from gateway.proxy.external_auth import protobuf
from gateway.proxy.external_auth.protobuf import Message
from gateway.snapshot import ExternalAuth
from gateway.upstream.backend import Backend
from gateway.upstream.internal_request import Answered, InternalRequest

_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*")  # a field line (RFC 9110 §5)
PATIENCE: Final = 5.0  # seconds for an answer
MAX_ANSWER_BYTES: Final = 1 << 16  # octets of an answer's content
CHECK: Final = b"/envoy.service.auth.v3.Authorization/Check"
# Never copied from an answer: they frame it, or say where it goes.
_NOT_COPIED: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"trailer", b"connection", b"date", b"keep-alive")
)


class Allowed(NamedTuple):
    """The request may pass, with these fields in place of its own of the same names, and without those."""

    fields: tuple[Field, ...] = ()
    removed: frozenset[bytes] = frozenset()


class Denied(NamedTuple):
    """The request may not pass: what the client gets instead."""

    status: int
    fields: tuple[Field, ...] = ()
    body: bytes = b""
    is_head: bool = False  # the server was asked by HEAD: its body is not here, nor is its length known


Verdict = Allowed | Denied
UNREACHABLE: Final = Denied(503, (), b"the authorization server does not answer\n")


class AuthCheck:
    """One question. `told` is called once."""

    __slots__ = ("_ask", "_backend", "_is_head", "_told", "spec")

    def __init__(self, spec: ExternalAuth, backend: Backend, told: Callable[[Verdict], None]) -> None:
        self.spec = spec
        self._backend = backend
        self._told = told
        self._ask: InternalRequest | None = None
        self._is_head = False

    @property
    def is_asked(self) -> bool:
        """Whether it has been sent."""
        return self._ask is not None

    def ask(self, request: Request, body: bytes, address: bytes, scheme: bytes) -> None:
        """Send it."""
        is_grpc = self.spec.protocol == "GRPC"
        content = (_as_grpc if is_grpc else _as_http)(self.spec, request, body, address, scheme)
        self._is_head = not is_grpc and request.method == b"HEAD"
        self._ask = InternalRequest(content, self._heard, most=MAX_ANSWER_BYTES, head_only=self._is_head)
        self._ask.send(next(self._backend.endpoints.turns, None), PATIENCE)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        if self._ask is not None:
            self._ask.cancel()

    def _heard(self, answer: Answered | str) -> None:
        if isinstance(answer, str):
            self._told(UNREACHABLE)
        elif self.spec.protocol == "GRPC":
            self._told(_grpc_verdict(answer.response, answer.trailers, answer.body))
        else:
            self._told(_http_verdict(self.spec, answer.response, answer.body, is_head=self._is_head))


# --- HTTP ---


def _as_http(spec: ExternalAuth, request: Request, body: bytes, address: bytes, scheme: bytes) -> bytes:
    wanted = {name.lower().encode() for name in spec.allowed_headers} | {b"authorization"}
    lines = [b"%b %b HTTP/1.1" % (request.method, spec.path.rstrip("/").encode() + request.target), b"Host: " + request.host]
    lines += [field.line for field in request.fields if field.kind in (PLAIN, FOLDED) and field.name in wanted]
    lines += [b"X-Forwarded-For: " + address, b"X-Forwarded-Proto: " + scheme, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _http_verdict(spec: ExternalAuth, answer: Response, body: bytes, *, is_head: bool) -> Verdict:
    fields = tuple(field for field in answer.fields if field.kind in (PLAIN, FOLDED) and field.name not in _NOT_COPIED)
    if answer.status != 200:
        return Denied(answer.status, fields, body, is_head)
    wanted = {name.lower().encode() for name in spec.allowed_response_headers}
    # An empty list means all of them, but for what frames or addresses a message.
    return Allowed(tuple(field for field in fields if not wanted or field.name in wanted))


# --- gRPC ---


def _as_grpc(spec: ExternalAuth, request: Request, body: bytes, address: bytes, scheme: bytes) -> bytes:
    wanted = {name.lower().encode() for name in spec.allowed_headers}
    headers = {
        field.name: field.value
        for field in request.fields
        if field.kind in (PLAIN, FOLDED, HOST) and (not wanted or field.name in wanted)
    }
    asked = Message()
    asked.put(2, request.method)
    for name, value in headers.items():
        asked.put(3, Message().put(1, name).put(2, value))
    asked.put(4, request.target).put(5, request.host).put(6, scheme).put(10, b"HTTP/1.1")
    if body:
        asked.put(9, len(body)).put(12, body)
    client = Message().put(1, Message().put(1, Message().put(2, address)))
    attributes = Message().put(1, client).put(4, Message().put(2, asked))
    message = bytes(Message().put(1, attributes))
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    lines = (
        b"POST %b HTTP/1.1" % CHECK, b"Host: " + request.host, b"content-type: application/grpc",
        b"content-length: %d" % len(framed),
    )  # fmt: skip
    return b"\r\n".join(lines) + b"\r\n\r\n" + framed


def _grpc_verdict(answer: Response, trailers: Iterable[Field], body: bytes) -> Verdict:
    fields = {field.name: field.value for field in (*answer.fields, *trailers)}
    if answer.status != 200 or fields.get(b"grpc-status") != b"0" or len(body) < 5:
        return UNREACHABLE
    try:
        check = protobuf.read(body[5 : 5 + int.from_bytes(body[1:5], "big")])
        code = protobuf.read(check.first(1)).number(1)
        if code == 0:
            ok = protobuf.read(check.first(3))
            return Allowed(tuple(_options(ok)), frozenset(name.lower() for name in ok.all(5)))
        denied = protobuf.read(check.first(2))
        status = protobuf.read(denied.first(1)).number(1) or 403
        return Denied(status if 200 <= status <= 599 else 403, tuple(_options(denied)), denied.first(3))
    except ValueError:
        return UNREACHABLE


def _options(message: protobuf.ParsedMessage) -> Iterable[Field]:
    for option in message.all(2):
        header = protobuf.read(protobuf.read(option).first(1))
        name, value = header.first(1), header.first(2) or header.first(3)
        field = _foreign_field(name, value)
        if field is not None:
            yield field


def _foreign_field(name: bytes, value: bytes) -> Field | None:
    """A field that somebody else wrote, if it is one that may be passed on."""
    lower = name.lower()
    kind = kind_of(lower)
    if lower in _NOT_COPIED or lower in KIND or kind == SHADOW or not _LINE.fullmatch(name + b": " + value):
        return None
    return Field(kind, lower, value, name + b": " + value)


def refusal(verdict: Denied, request: Request, *, is_framed: bool, close: bool, head_only: bool) -> bytes:
    """The answer that a client gets: what the server says, or its words for a gRPC client on a stream."""
    if not is_framed and is_grpc(request):
        return grpc_answer(verdict.status, verdict.body.decode("utf-8", "replace").strip())
    lines = [field.line for field in verdict.fields]
    return whole(verdict.status, lines, verdict.body, close=close, head_only=head_only, is_known=not verdict.is_head)
