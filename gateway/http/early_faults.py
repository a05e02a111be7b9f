"""What is wrong with a head that has not come whole: who speaks another protocol will never end it, and is not waited for."""

from __future__ import annotations

from typing import Final

from gateway.http.grammar import shown
from gateway.http.http1 import TOKEN_OCTETS, ProtocolError, request_line_fault
from gateway.http.http2_frames import PREFACE

TLS: Final = b"\x16\x03"  # how a record of a handshake begins (RFC 8446 §5.1)
PREFACE_LINE: Final = PREFACE.partition(b"\r\n")[0]
STATUS_LINE: Final = b"HTTP/1."
MAX_SHOWN: Final = 24  # octets of what came in place of it


def of_request(head: bytes, start: int, looked_at: int) -> ProtocolError | None:
    """What is wrong with a request that begins at `start`; what comes before `looked_at` was found good."""
    first = head[start : start + 1]
    if head.startswith(TLS, start):
        return ProtocolError(400, "this is TLS, and the port speaks HTTP in the clear")
    if first and first not in TOKEN_OCTETS and first != b"\r":
        return ProtocolError(400, f"{_shown(head[start:])} is no HTTP request")
    if _has_bare_line_feed(head, max(start, looked_at - 1)):
        return ProtocolError(400, "a line ends in LF alone; CR LF is needed (RFC 9112 §2.2)")
    end = head.find(b"\r\n", start)
    if end < 0 or end + 2 < looked_at:
        return None
    line = head[start:end]
    return None if not line or line == PREFACE_LINE else request_line_fault(line)


def of_response(head: bytes, looked_at: int) -> ProtocolError | None:
    """The same for a backend's answer."""
    if not (head.startswith(STATUS_LINE) or STATUS_LINE.startswith(head)):
        return ProtocolError(502, f"the backend does not speak HTTP/1.1: it began with {_shown(head)}")
    if _has_bare_line_feed(head, max(looked_at - 1, 0)):
        return ProtocolError(502, "the backend's lines end in LF alone; CR LF is needed (RFC 9112 §2.2)")
    return None


def _has_bare_line_feed(head: bytes, start: int) -> bool:
    at = head.find(b"\n", start)
    while at >= 0:
        if at == 0 or head[at - 1] != 13:
            return True
        at = head.find(b"\n", at + 1)
    return False


def _shown(octets: bytes) -> str:
    return shown(octets[:MAX_SHOWN].decode("latin-1"))
