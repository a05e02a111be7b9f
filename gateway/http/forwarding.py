"""Heads as they are passed on: what a proxy takes away, what it adds, what the rule's filters change (RFC 9110 §7.6)."""

from __future__ import annotations

import copy

from gateway.http.http1 import (
    CODING,
    CONNECTION,
    EXPECT,
    FORWARDED,
    FORWARDED_FOR,
    HOP,
    HOST,
    LENGTH,
    NO_LENGTH,
    PLAIN,
    SHADOW,
    UPGRADE,
    Edit,
    Field,
    Request,
    Response,
    fold,
    request_start,
)
from gateway.http.local_replies import answer, grpc_answer


def is_grpc(request: Request) -> bool:
    """Whether the client understands gRPC's answers only."""
    return (request.value(b"content-type") or b"").startswith(b"application/grpc")


def failure(request: Request, status: int, reason: str) -> bytes:
    """An answer of ours to a request on a stream, which says why it is not passed on."""
    return grpc_answer(status, reason) if is_grpc(request) else answer(status, reason, head_only=request.method == b"HEAD")


def is_upgrading(request: Request) -> bool:
    """Whether a request to change protocols is passed on."""
    if not request.upgrade or b"upgrade" not in request.options or request.length not in (NO_LENGTH, 0) or request.http10:
        return False
    # h2c would start a conversation that nobody here has checked (RFC 9113 §3.1 deprecates it).
    return b"h2c" not in request.upgrade.lower()


def is_agreed(request: Request, response: Response) -> bool:
    """Whether a 101 changes to a protocol that the request named (RFC 9110 §7.8)."""
    asked = {protocol.strip() for protocol in request.upgrade.lower().split(b",")}
    chosen = [
        protocol.strip() for field in response.fields if field.kind == UPGRADE for protocol in field.value.lower().split(b",")
    ]
    return bool(chosen) and asked.issuperset(chosen)


def request_head(
    request: Request, host: bytes, target: bytes, address: bytes, scheme: bytes, edit: Edit | None, *, upgrading: bool
) -> bytes:
    """The head that goes to the backend, for a client at `address` that came by `scheme`."""
    start = request_start(request.method, target, host)
    return start + request_fields(request, address, scheme, edit, upgrading=upgrading)


def request_fields(request: Request, address: bytes, scheme: bytes, edit: Edit | None, *, upgrading: bool) -> bytes:
    """What follows Host in the head that goes to the backend, with the empty line at its end."""
    options = request.options
    kept: list[Field] = []
    forwarded = b""
    for field in request.special:
        kind = field.kind
        if kind == FORWARDED_FOR:
            forwarded += field.value + b", "
        elif kind == UPGRADE:
            if upgrading:
                kept.append(field)
        elif kind == EXPECT and request.http10:
            continue  # RFC 9110 §10.1.1: such an expectation must be ignored
        elif kind not in (HOST, CONNECTION, HOP, FORWARDED, SHADOW):
            kept.append(field)
    if edit is not None or options:
        fields = [field for field in request.fields if not field[0] and field.name not in options] + kept
        value = forwarded + address
        fields += [
            Field(PLAIN, b"x-forwarded-for", value, b"X-Forwarded-For: " + value),
            Field(PLAIN, b"x-forwarded-proto", scheme, b"X-Forwarded-Proto: " + scheme),
            Field(PLAIN, b"x-forwarded-host", request.host, b"X-Forwarded-Host: " + request.host),
        ]
        lines = [field.line for field in (edit(fields) if edit is not None else fields)]
    else:
        lines = [line for kind, _, _, line in request.fields if not kind]
        lines += [field.line for field in kept]
        lines.append(b"X-Forwarded-For: " + forwarded + address)
        lines.append(b"X-Forwarded-Proto: " + scheme)
        lines.append(b"X-Forwarded-Host: " + request.host)
    if upgrading:
        lines.append(b"Connection: Upgrade")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def response_head(response: Response, edit: Edit | None, connection: bytes, *, dechunked: bool) -> bytes:
    """The head that goes to the client. `connection` is what its Connection field says; `dechunked` takes the framing off."""
    fields = [
        field
        for field in response.fields
        if field.kind not in (CONNECTION, HOP, UPGRADE, SHADOW) and field.name not in response.options
    ]
    if response.status == 204:
        # RFC 9110 §8.6, RFC 9112 §6.1: no content, and nothing that says how long it would be or what follows.
        fields = [field for field in fields if field.kind not in (LENGTH, CODING) and field.name != b"trailer"]
    elif dechunked or response.status == 304:
        fields = [field for field in fields if field.kind != CODING]
    if edit is not None:
        fields = edit(fields)
    lines = [b"HTTP/1.1 %d %b" % (response.status, response.reason)]
    lines += [field.line for field in fields]
    if connection:
        lines.append(b"Connection: " + connection)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def closing(head: bytes) -> bytes:
    """A response's head that left the connection open, closing it."""
    return head[:-2] + _CLOSE


def kept_open(head: bytes) -> bytes:
    """The same the other way round."""
    return head[: -len(_CLOSE)] + b"\r\n"


_CLOSE = b"Connection: close\r\n\r\n"  # as `response_head` ends
_NOT_INTERIM = (CONNECTION, HOP, LENGTH, CODING, SHADOW)


def interim_head(response: Response) -> bytes:
    """1xx, as it goes to the client (RFC 9110 §15.2): without what would frame content, as it has none (§8.6)."""
    is_switch = response.status == 101
    gone = response.options | {b"trailer"}
    lines = [b"HTTP/1.1 %d %b" % (response.status, response.reason)]
    lines += [
        field.line
        for field in response.fields
        if (is_switch if field.kind == UPGRADE else field.kind not in _NOT_INTERIM and field.name not in gone)
    ]
    if is_switch:
        lines.append(b"Connection: Upgrade")
    return b"\r\n".join(lines) + b"\r\n\r\n"


__all__ = ["interim_head", "is_upgrading", "request_fields", "request_head", "response_head"]


def is_expecting(request: Request) -> bool:
    """Whether the client waits to be told to continue (RFC 9110 §10.1.1)."""
    return any(field.kind == EXPECT for field in request.special)


def unexpecting(request: Request) -> Request:
    """The request as of a client that has been told to continue."""
    new_request = copy.copy(request)
    new_request.fields = [field for field in request.fields if field.kind != EXPECT]
    new_request.special = [field for field in request.special if field.kind != EXPECT]
    return new_request


def passing_trailers(trailers: list[Field], edit: Edit | None, changed: frozenset[bytes]) -> list[Field]:
    """The trailers of a request that go on. Some backends add them to the fields: what is set or removed there, by an edit or
    by whoever was asked (`changed`, folded names), must not come in behind the body."""
    edited = edit([*trailers]) if edit is not None else trailers
    return [trailer for trailer in trailers if trailer in edited and fold(trailer.name) not in changed]
