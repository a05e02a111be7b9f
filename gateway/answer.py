"""Responses made here: a status, a line of text that says why, and what becomes of the connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

REASON: Final = {
    200: b"OK", 301: b"Moved Permanently", 302: b"Found", 303: b"See Other", 307: b"Temporary Redirect",
    308: b"Permanent Redirect", 400: b"Bad Request", 404: b"Not Found", 408: b"Request Timeout",
    413: b"Content Too Large", 414: b"URI Too Long", 417: b"Expectation Failed",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip


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
    lines.append(b"Content-Length: %d" % len(body))
    if close:
        lines.append(b"Connection: close")
    elif keep_alive_10:
        lines.append(b"Connection: keep-alive")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)
