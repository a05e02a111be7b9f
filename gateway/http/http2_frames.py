"""HTTP/2's frames: their types, flags, error codes and settings, and how one is written (RFC 9113 §4, §6, §7)."""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types (RFC 9113 §6) and flags.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20

# Error codes (RFC 9113 §7).
(
    NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
    REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM,
) = range(12)  # fmt: skip

# Settings (RFC 9113 §6.5.2, RFC 8441 §3).
(
    HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE,
) = range(1, 7)  # fmt: skip
ENABLE_CONNECT_PROTOCOL: Final = 8

LARGEST_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65535  # octets
MAX_FRAME_OCTETS: Final = 16384  # in a frame, both ways: what every peer takes

_head = struct.Struct(">BHBBI")
SETTING: Final = struct.Struct(">HI")
frame_head = _head.pack
unpack_head = _head.unpack_from


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return frame_head(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def number(value: int) -> bytes:
    """A payload of 32 bits."""
    return value.to_bytes(4, "big")


class ConnectionFault(Exception):
    """A connection error: nothing more can be said on it (RFC 9113 §5.4.1)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def unpadded(payload: bytes, flags: int) -> bytes:
    """A payload without its padding (RFC 9113 §6.1)."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
