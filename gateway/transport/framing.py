"""msgpack values over a stream between our own processes, each behind its length."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

MAX_FRAME_BYTES: Final = 1 << 32  # octets; what four of them can say

_encode = msgspec.msgpack.Encoder().encode


async def read(reader: asyncio.StreamReader, longest: int = MAX_FRAME_BYTES) -> bytes:
    """The next value, encoded. Raises IncompleteReadError at the end, ValueError for one that is longer than it may be."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > longest:
        raise ValueError(f"a message of {size} bytes")
    return await reader.readexactly(size)


def framed(message: Any) -> bytes:
    """One value, behind its length."""
    data = _encode(message)
    return len(data).to_bytes(4, "big") + data


def write(writer: asyncio.StreamWriter, message: Any) -> None:
    """Send one value."""
    writer.write(framed(message))
