"""Bodies that filters read whole, or change: who waits for one, and messages whose length is no longer known."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable
from typing import Protocol

from gateway.filters import api
from gateway.http.http1 import CHUNKED, CHUNKED_FIELD, CODING, LENGTH, NO_LENGTH, Request, Response


class AwaitedBody:
    """A whole body of at most `limit` octets, once it is there; one that is longer is answered with `status`."""

    __slots__ = ("_status", "future", "limit")

    def __init__(self, limit: int, status: int) -> None:
        self.limit = limit
        self._status = status
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def give(self, content: bytes) -> None:
        """It is there."""
        if len(content) > self.limit:
            self.refuse()
        elif not self.future.done():
            self.future.set_result(content)

    def refuse(self) -> None:
        """It is too long."""
        if not self.future.done():
            whose = "backend's " if self._status == 502 else ""
            self.future.set_exception(api.Refused(self._status, f"the {whose}body is longer than {self.limit} bytes"))


class BodyReading(Protocol):
    """The exchange whose bodies are read."""

    def read_request(self, limit: int) -> Awaitable[bytes]:
        """The whole body of the request."""

    def read_response(self, limit: int) -> Awaitable[bytes]:
        """The whole body of the backend's response."""


class IncomingBody:
    """The body of a client's request."""

    def __init__(self, exchange: BodyReading) -> None:
        self._exchange = exchange

    def whole(self, limit: int) -> Awaitable[bytes]:
        """All of it."""
        return self._exchange.read_request(limit)


class OutgoingBody:
    """The body of a backend's response."""

    def __init__(self, exchange: BodyReading) -> None:
        self._exchange = exchange

    def whole(self, limit: int) -> Awaitable[bytes]:
        """All of it."""
        return self._exchange.read_response(limit)


def open_ended(request: Request) -> Request:
    """The request with a body of a length that nobody knows yet."""
    made = copy.copy(request)
    made.fields = [field for field in request.fields if field.kind not in (LENGTH, CODING)] + [CHUNKED_FIELD]
    made.special = [field for field in made.fields if field.kind]
    made.length = CHUNKED
    return made


def open_response(response: Response, *, framed: bool) -> Response:
    """The response with a body of a length that nobody knows yet; where it is not framed, the connection's end is its."""
    made = copy.copy(response)
    made.fields = [field for field in response.fields if field.kind not in (LENGTH, CODING)] + (
        [CHUNKED_FIELD] if framed else []
    )
    made.length = CHUNKED if framed else NO_LENGTH
    return made
