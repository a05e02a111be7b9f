"""So many bytes a second at a port, both ways together, over all of its connections and workers. What is over that waits;
datagrams wait for a second at most, and are dropped then. It is what `bps` of a RateLimitPolicy comes to.

Bodies and bytes that are passed on are counted, heads of HTTP messages are not.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final

from gateway.filters.api import Chunk, Data, Datagram, config, shared

rate: Final = config["bps"]
SAVED: Final = max(rate // 10, 1)  # bytes that may pass at once when nothing has passed before
MAX_WAIT_SECONDS: Final = 3600  # seconds that what is over it waits


def _turn(size: int, longest: int) -> float | None:
    """The seconds until so many bytes may pass; None where that is too long."""
    wait: float | None = shared.take("", requests=rate, interval=1, burst=SAVED, backlog=rate * longest, units=size).result()
    return wait


def _paced(data: bytes) -> Awaitable[None] | None:
    wait = _turn(len(data), MAX_WAIT_SECONDS) if data else 0.0
    if wait is None:
        raise TimeoutError(f"more than {MAX_WAIT_SECONDS} s worth of bytes wait already")
    return asyncio.sleep(wait) if wait > 0 else None


def request_body(chunk: Chunk) -> Awaitable[None] | None:
    """A piece on its way to a backend."""
    return _paced(chunk.data)


def response_body(chunk: Chunk) -> Awaitable[None] | None:
    """A piece on its way to a client."""
    return _paced(chunk.data)


def data(data: Data) -> Awaitable[None] | None:
    """Bytes of a connection that is passed on."""
    return _paced(data.data)


def datagram(datagram: Datagram) -> bytes | Awaitable[None] | None:
    """A datagram of a flow."""
    wait = _turn(len(datagram.data), 1)
    if wait is None:
        return b""
    return asyncio.sleep(wait) if wait > 0 else None
