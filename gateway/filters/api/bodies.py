"""A message's body as a filter reads and writes it: bytes, text, or anything else as JSON."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Protocol

import msgspec

from gateway.filters.api.filter_metrics import Metrics as Metrics
from gateway.filters.api.headers import Headers
from gateway.filters.api.shared_state import Shared as Shared

MAX_BODY_BYTES: Final = 1 << 20  # octets of a body that is read whole, where a filter does not say


class Refused(Exception):
    """The request cannot be what this filter needs: answered with `status` and a line that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class BodySource(Protocol):
    """Where a message's body comes from."""

    def whole(self, limit: int) -> Awaitable[bytes]:
        """The whole body. Raises Refused(413) for more octets than `limit`."""


class Given:
    """A body that is there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def whole(self, limit: int) -> bytes:
        """The whole body. Raises Refused(413) for more octets than `limit`."""
        return within(self._data, limit)


def within(data: bytes, limit: int, status: int = 413) -> bytes:
    """The data, unless there is too much of it."""
    if len(data) > limit:
        raise Refused(status, f"the body is longer than {limit} bytes")
    return data


def encoded(body: bytes | str | Any) -> tuple[bytes, str]:
    """A body as bytes, and the content type that this implies."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), ""
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return msgspec.json.encode(body), "application/json"


def decoded(data: bytes, headers: Headers) -> Any:
    """A body as JSON."""
    if "content-encoding" in headers:
        raise Refused(415, f"a body in {headers['content-encoding']} cannot be read as JSON")
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
