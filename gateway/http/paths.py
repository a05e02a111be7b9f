"""Paths, made one of a kind before anybody looks at them: what is matched is what is forwarded.

A path that can be written in several ways must not pass a rule in one and reach the backend in another. So, once,
for matching and forwarding alike (RFC 3986 §6.2.2): percent-encodings are checked, those of unreserved characters
decoded and the others written in upper case; `[ ] | ^ { }`, which clients send although no URI may hold them, are
encoded; empty segments (`//`) and dot segments are removed. `%2F` stays what it is: data inside a segment, never a
separator. A path that climbs above its root, or holds an encoded NUL, is refused. The query passes as it came.
"""

from __future__ import annotations

import re

_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})?")
_RAW = re.compile(rb"[\[\]|^{}]")
may_be_written_otherwise = re.compile(rb"%|//|/\.|[\[\]|^{}]").search
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def normalise(path: bytes) -> bytes:
    """The one way to write an absolute path. Raises ValueError, with words, where there is none."""
    if b"%" in path:
        path = _ENCODED.sub(_decoded, path)
    path = _RAW.sub(lambda match: b"%%%02X" % ord(match[0]), path)
    if b"//" not in path and b"/." not in path:
        return path
    segments: list[bytes] = []
    *between, last = path[1:].split(b"/")
    for segment in between:
        _walk(segments, segment)
    _walk(segments, last)
    # What ends in a slash or in a dot segment names a directory (RFC 3986 §5.2.4).
    if segments and last in (b"", b".", b".."):
        segments.append(b"")
    return b"/" + b"/".join(segments)


def _walk(segments: list[bytes], segment: bytes) -> None:
    if segment == b"..":
        if not segments:
            raise ValueError("the path climbs above its root")
        segments.pop()
    elif segment not in (b"", b"."):
        segments.append(segment)


def _decoded(match: re.Match[bytes]) -> bytes:
    digits = match.group(1)
    if digits is None:
        raise ValueError("a % in the path is not followed by two hexadecimal digits")
    code = int(digits, 16)
    if not code:
        raise ValueError("the path holds an encoded NUL")
    return bytes((code,)) if code in _UNRESERVED else b"%" + digits.upper()
