"""Bodies that filters read whole, or change: who waits for one, and messages whose length is no longer known."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.filters import api
from gateway.http.http1 import CHUNKED, CHUNKED_FIELD, CODING, LENGTH, NO_LENGTH, Request, Response


class GoneOnError(RuntimeError):
    """A body was asked for that is no longer here."""


class AwaitedBody:
    """The readers of a whole body; for one that is longer than a reader's limit it gets Refused(`status`)."""

    __slots__ = ("_readers", "_status")

    def __init__(self, status: int) -> None:
        self._status = status
        self._readers: list[tuple[asyncio.Future[bytes], int]] = []

    def __bool__(self) -> bool:
        return bool(self._readers)

    def read(self, limit: int) -> asyncio.Future[bytes]:
        """The body, of at most so many octets, once it is there."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._readers.append((future, limit))
        return future

    def refuse(self, is_too_long: Callable[[int], bool]) -> None:
        """Refuse the readers for whose limit the body is too long already."""
        readers, self._readers = self._readers, []
        for future, limit in readers:
            if is_too_long(limit):
                self._refuse(future, limit)
            else:
                self._readers.append((future, limit))

    def give(self, content: bytes) -> None:
        """The whole body has come."""
        readers, self._readers = self._readers, []
        for future, limit in readers:
            if len(content) > limit:
                self._refuse(future, limit)
            elif not future.done():
                future.set_result(content)

    def fail(self, error: Exception) -> None:
        """The whole body will not come: readers get this error."""
        readers, self._readers = self._readers, []
        for future, _ in readers:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be there any more who would look at it

    def _refuse(self, future: asyncio.Future[bytes], limit: int) -> None:
        if not future.done():
            whose = "backend's " if self._status == 502 else ""
            future.set_exception(api.Refused(self._status, f"the {whose}body is longer than {limit} bytes"))
            future.exception()  # nobody may be there any more who would look at it


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
        """The whole body, of at most `limit` octets."""
        return self._exchange.read_request(limit)


class OutgoingBody:
    """The body of a backend's response."""

    def __init__(self, exchange: BodyReading) -> None:
        self._exchange = exchange

    def whole(self, limit: int) -> Awaitable[bytes]:
        """The whole body, of at most `limit` octets."""
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
