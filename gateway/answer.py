"""Responses made here: a status, a line of text that says why, and what becomes of the connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

REASON: Final = {
    200: b"OK", 204: b"No Content", 301: b"Moved Permanently", 302: b"Found", 303: b"See Other", 307: b"Temporary Redirect",
    308: b"Permanent Redirect", 400: b"Bad Request", 404: b"Not Found", 408: b"Request Timeout",
    403: b"Forbidden", 413: b"Content Too Large", 414: b"URI Too Long", 417: b"Expectation Failed", 421: b"Misdirected Request",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip


# What an error of ours means to a gRPC client (the mapping of gRPC's own documentation, and 504 as what it is).
NO_RULE: Final = "no rule matches this host, path, method, headers and query"
MISDIRECTED: Final = "this host is served on connections of its own: ask again on a new one"
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
    reason = REASON.get(status, b"")
    body = f"{text}\n".encode() if text else b""
    lines = [b"HTTP/1.1 %d %b" % (status, reason)]
    lines += [b"%b: %b" % field for field in fields]
    if body:
        lines.append(b"Content-Type: text/plain; charset=utf-8")
    if status != 204:  # RFC 9110 §8.6
        lines.append(b"Content-Length: %d" % len(body))
    if close:
        lines.append(b"Connection: close")
    elif keep_alive_10:
        lines.append(b"Connection: keep-alive")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)
