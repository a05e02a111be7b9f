"""Frames of HTTP/2 as bytes, for dialogues that are written out."""

from __future__ import annotations

from gateway.http.field_sections import encoded
from gateway.http.http2_frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
)

HELLO = PREFACE + frame(SETTINGS, 0, 0)
BOTH = END_HEADERS | END_STREAM


def block(*pairs: tuple[str, str], **replaced: str | None) -> bytes:
    """A request's field block; keywords replace pseudo-header fields, None leaves one out."""
    pseudo: dict[str, str | None] = {"method": "GET", "scheme": "http", "authority": "a", "path": "/", **replaced}
    said = [(f":{k}", v) for k, v in pseudo.items() if v is not None]
    return b"".join(encoded(k.encode("latin-1"), v.encode("latin-1")) for k, v in (*said, *pairs))


GET = frame(HEADERS, BOTH, 1, block())
