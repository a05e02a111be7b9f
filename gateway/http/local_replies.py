"""Responses made here: a status, a line of text that says why, and what becomes of the connection."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from gateway.http.http1 import BODILESS

REASON: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large", 414: b"URI Too Long", 422: b"Unprocessable Content",  # as RFC 9110 has them
}  # fmt: skip

EMPTY: Final = (*BODILESS, 205)  # statuses of answers that get no content here (RFC 9110 §15.3.6); a 205 is framed
NO_RULE: Final = "no rule matches this host, path, method, headers and query"
MISDIRECTED: Final = "this host is served on connections of its own: ask again on a new one"
# What an error of ours means to a gRPC client (the mapping of gRPC's own documentation, and 504 as what it is).
GRPC_STATUS: Final = {
    400: 13,
    401: 16,
    403: 7,
    404: 12,
    408: 1,
    413: 8,
    421: 14,
    429: 14,
    500: 14,
    501: 12,
    502: 14,
    503: 14,
    504: 4,
}


def grpc_answer(status: int, text: str) -> bytes:
    """The same for a gRPC client: a response that has only trailers, in its head."""
    message = "".join(c if " " <= c <= "~" and c != "%" else "".join(f"%{b:02X}" for b in c.encode()) for c in text)
    code = GRPC_STATUS.get(status, 2)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: %d\r\ngrpc-message: %b\r\n\r\n" % (
        code,
        message.encode(),
    )


def answer(
    status: int,
    text: str = "",
    *,
    fields: Iterable[tuple[bytes, bytes]] = (),
    close: bool = False,
    head_only: bool = False,
    keep_alive_10: bool = False,
) -> bytes:
    """A whole response made here, with a line of text that says why."""
    body = f"{text}\n".encode() if text else b""
    lines = [b"%b: %b" % field for field in fields]
    if body:
        lines.append(b"Content-Type: text/plain; charset=utf-8")
    return whole(status, lines, body, close=close, head_only=head_only, keep_alive_10=keep_alive_10)


def whole(
    status: int,
    lines: Iterable[bytes],
    body: bytes,
    *,
    close: bool,
    head_only: bool,
    keep_alive_10: bool = False,
    is_known: bool = True,
) -> bytes:
    """A whole response of these field lines and this body, with what frames it. `is_known`: whether it is that of a GET."""
    if status in EMPTY:
        body = b""
    head = [b"HTTP/1.1 %d %b" % (status, REASON.get(status, b"")), *lines]
    if status not in BODILESS and is_known:  # RFC 9110 §8.6; of a 304 it would be the length that a 200 has
        head.append(b"Content-Length: %d" % len(body))
    if close:
        head.append(b"Connection: close")
    elif keep_alive_10:
        head.append(b"Connection: keep-alive")
    return b"\r\n".join(head) + b"\r\n\r\n" + (b"" if head_only else body)


def not_switched(status: int) -> str:
    """Why a request for another protocol failed."""
    return f"another protocol was asked for, and the answer was {status} in place of a change to it"
