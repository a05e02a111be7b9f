"""Content on its way through filters: these read it whole, put other content in its place, or change it piece by piece."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Final, Protocol

from gateway.filters import api
from gateway.http.chunked import Chunks
from gateway.http.forwarding import is_expecting
from gateway.http.http1 import CHUNKED, CHUNKED_FIELD, CODING, LENGTH, NO_LENGTH, Field, Request, Response
from gateway.interfaces import DownstreamPeer, UpstreamStream
from gateway.proxy.client_response import ClientResponse
from gateway.proxy.request_body import RequestBody, RequestFraming
from gateway.scripting.chunk_pipeline import ChunkPipeline

MAX_DRAINED: Final = 65536  # octets of content that nobody wants, which are read so that the connection can be used again


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


class RequestFiltering(Protocol):
    """The exchange whose request filters take part in."""

    client: DownstreamPeer
    request: Request
    request_body: RequestBody
    request_done: bool


class FilteredRequestBody:
    """The content of a client's request. Filters may read it until it goes on (`whole`)."""

    __slots__ = ("_decoder", "_exchange", "_has_gone_on", "_pipeline", "_readers", "is_invited", "is_replaced")

    def __init__(self, exchange: RequestFiltering) -> None:
        self._exchange = exchange
        self._readers = AwaitedBody(413)
        self._pipeline: ChunkPipeline | None = None
        self._decoder: Chunks | None = None  # takes the client's framing off what goes through the pipeline
        self._has_gone_on = False
        self.is_invited = False  # the client was told to continue
        self.is_replaced = False  # the client's content is not wanted

    @property
    def is_awaited(self) -> bool:
        """Whether a filter waits for all of it."""
        return bool(self._readers)

    @property
    def is_changed(self) -> bool:
        """Whether filters see it piece by piece."""
        return self._pipeline is not None

    @property
    def is_passed(self) -> bool:
        """Whether filters hold nothing of what has come."""
        return self._pipeline is None or self._pipeline.is_done

    @property
    def owes(self) -> int:
        """Octets that filters hold."""
        return 0 if self._pipeline is None else self._pipeline.owed

    def whole(self, limit: int) -> asyncio.Future[bytes]:
        """All of it, of at most `limit` octets, once it is there. Raises GoneOnError once it is on its way to the backend."""
        exchange = self._exchange
        if self._has_gone_on and exchange.request.length:
            raise GoneOnError("the request's body has gone on; only `request` can read it")
        future = self._readers.read(limit)
        self.give_to_readers(is_whole=exchange.request_done)
        if not exchange.request_done and not future.done():
            if not self.is_invited and is_expecting(exchange.request):
                self.is_invited = True
                exchange.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            exchange.client.resume_reading()
        return future

    def give_to_readers(self, *, is_whole: bool) -> None:
        """More of it has come, or all of it."""
        if not self._readers:
            return
        request, body = self._exchange.request, self._exchange.request_body
        # What comes in chunks has framing, which is not yet known to be little.
        self._readers.refuse(lambda limit: request.length > limit or body.octets > limit + (limit >> 3) + 1024)
        if is_whole and self._readers:
            self._readers.give(body.so_far(request.length))

    def go_on(self, request: Request, replaced: bytes | None, pipeline: ChunkPipeline | None) -> None:
        """Filters have seen the head, and this is the request that they made of it. From now on its content passes as fast as
        the backend takes it, through the `pipeline` of those that see it in pieces; who still wants to read all of it is too
        late."""
        exchange, body, length = self._exchange, self._exchange.request_body, self._exchange.request.length
        self.is_replaced = replaced is not None
        self._pipeline = pipeline
        exchange.request = request if pipeline is None else _open_ended(request)
        if pipeline is not None:
            came = body.start_anew(RequestFraming.BARE)
            if replaced is not None:
                pipeline.feed(replaced, True)
            else:
                self._feed(came, Chunks() if exchange.client.is_framed and length == CHUNKED else None)
        elif replaced is not None:
            body.start_anew(RequestFraming.KEPT, replaced)
        self._has_gone_on = True
        self._readers.fail(GoneOnError("the request's body has gone on while it was awaited"))

    def _feed(self, came: list[bytes], decoder: Chunks | None) -> None:
        assert self._pipeline is not None
        self._decoder = decoder
        for data in came:
            self._pipeline.feed(self._bare(data), False)
        if self._exchange.request_done:
            self._pipeline.feed(b"", True)

    def feed(self, data: bytes, *, is_last: bool) -> None:
        """More of it, for those that see it in pieces."""
        assert self._pipeline is not None
        self._pipeline.feed(self._bare(data), is_last)
        if self._pipeline.owed > self._exchange.client.limits.buffered_bytes:
            self._exchange.client.pause_reading()

    def _bare(self, data: bytes) -> bytes:
        if self._decoder is None:
            return data
        self._decoder.feed(data)
        return self._decoder.taken()

    def settle(self) -> None:
        """The exchange is over."""
        if self._pipeline is not None:
            self._pipeline.stop()
        self._readers.fail(GoneOnError("the exchange is over"))


class ResponseFiltering(Protocol):
    """The exchange whose response filters take part in."""

    client: DownstreamPeer
    client_response: ClientResponse
    peer: UpstreamStream | None

    def close_peer(self) -> None:
        """Nobody wants what the backend still sends."""

    def finish_response(self) -> None:
        """The client has got all of it."""


class FilteredResponseBody:
    """The content of a backend's response. It is held while filters look at the head; until then they may read it (`whole`)."""

    __slots__ = (
        "_exchange", "_has_all", "_held", "_held_octets", "_is_over", "_is_replaced", "_pipeline", "_readers", "_trailers",
        "length", "octets",
    )  # fmt: skip

    def __init__(self, exchange: ResponseFiltering) -> None:
        self._exchange = exchange
        self._readers = AwaitedBody(502)
        self._held: list[bytes] | None = None  # not None: filters look at the head
        self._held_octets = 0
        self._pipeline: ChunkPipeline | None = None
        self._is_replaced = False  # the backend's content is not wanted
        self._has_all = False  # the backend has said all, and what is held is the last of it
        self._is_over = False  # the same, and all of it has gone on
        self._trailers: list[Field] = []
        self.length = 0  # octets of the backend's content, if they are known
        self.octets = 0  # that went to the client

    @property
    def is_held(self) -> bool:
        """Whether filters look at the head, and nothing goes on."""
        return self._held is not None

    @property
    def is_seen(self) -> bool:
        """Whether it doesn't just pass."""
        return self._held is not None or self._is_replaced or self._pipeline is not None

    @property
    def needs_end(self) -> bool:
        """Whether filters must be told that this was all, when a connection's end is the content's."""
        return self._held is not None or self._pipeline is not None

    def hold(self) -> None:
        """Filters begin to look at the head."""
        self._held = []

    def whole(self, limit: int) -> asyncio.Future[bytes]:
        """All of it, of at most `limit` octets, once it is there. Raises GoneOnError once it goes to the client."""
        if self._held is None and self.length:
            raise GoneOnError("the response's body has gone on; only `response` can read it")
        future = self._readers.read(limit)
        self._give_to_readers(is_whole=self._held is None or self._has_all)
        peer = self._exchange.peer
        if peer is not None and not future.done():
            peer.resume_reading()
        return future

    def _give_to_readers(self, *, is_whole: bool) -> None:
        if not self._readers:
            return
        self._readers.refuse(lambda limit: self._held_octets > limit)
        if is_whole and self._readers:
            self._readers.give(b"".join(self._held or ()))

    def release(self, pipeline: ChunkPipeline | None) -> list[bytes]:
        """Filters have seen the head: what was held of the content goes on behind it (`go_on`), through the `pipeline` of those
        that see it in pieces; who still wants to read all of it is too late."""
        held, self._held = self._held or [], None
        self._pipeline = pipeline
        self._readers.fail(GoneOnError("the response's body has gone on while it was awaited"))
        return held

    def go_on(self, held: list[bytes], replaced: bytes | None) -> None:
        """The head has gone on: so do what was held, or other content in its place, and what still comes."""
        if replaced is not None:
            self._replace(replaced)
        elif (peer := self._exchange.peer) is not None:
            peer.resume_reading()
        for data in held:
            self.feed(data)
        if self._has_all:
            self.end()
        elif not held:
            self._exchange.client_response.flush()

    def _replace(self, content: bytes) -> None:
        self._is_replaced = True
        exchange = self._exchange
        if self._pipeline is not None:
            self._pipeline.feed(content, True)
        elif content:
            self.write(content)
        if exchange.peer is None:
            return
        if 0 <= self.length <= MAX_DRAINED:
            exchange.peer.resume_reading()
        else:  # what it still sends, perhaps for ever, is not wanted
            exchange.close_peer()
            self._has_all = True

    def feed(self, data: bytes) -> None:
        """More of it has come."""
        peer = self._exchange.peer
        if self._held is not None:
            self._held.append(data)
            self._held_octets += len(data)
            self._give_to_readers(is_whole=False)
            if not self._readers and peer is not None:
                peer.pause_reading()
        elif self._is_replaced:
            return
        elif self._pipeline is not None:
            self._pipeline.feed(data, False)
            if self._pipeline.owed > self._exchange.client.limits.buffered_bytes and peer is not None:
                peer.pause_reading()
        else:
            self.write(data)

    def write(self, data: bytes) -> None:
        """This much goes to the client."""
        self.octets += len(data)
        self._exchange.client.touch()
        self._exchange.client_response.write(data)

    def deliver(self, data: bytes, last: bool) -> None:
        """This much comes out of the pipeline."""
        exchange = self._exchange
        if data:
            self.write(data)
        if last:
            if self._is_over:  # otherwise the backend still speaks, though nobody listens
                self._finish()
        elif (
            self._pipeline is not None and not self._pipeline.owed and exchange.peer is not None and exchange.client.takes_more
        ):
            exchange.peer.resume_reading()

    def trailers(self, fields: list[Field]) -> None:
        """Trailers have come; they go behind what filters hold."""
        if self._held is not None or self._pipeline is not None:
            self._trailers = fields
        else:
            self._exchange.client_response.trailers(fields)

    def end(self) -> None:
        """All of it has come; the connection is no longer the exchange's."""
        self._exchange.peer = None
        if self._held is not None:
            self._has_all = True
            self._give_to_readers(is_whole=True)
            return
        self._is_over = True
        if self._pipeline is not None and not self._is_replaced:
            self._pipeline.feed(b"", True)
        elif self._pipeline is None or self._pipeline.is_done:
            self._finish()

    def _finish(self) -> None:
        if self._trailers:
            self._exchange.client_response.trailers(self._trailers)
        self._exchange.finish_response()

    def drop(self) -> None:
        """A filter has failed: nothing of what is held goes on."""
        self._held = None

    def settle(self) -> None:
        """The exchange is over."""
        if self._pipeline is not None:
            self._pipeline.stop()
        self._readers.fail(GoneOnError("the exchange is over"))


def _open_ended(request: Request) -> Request:
    """The request with a body of a length that nobody knows yet."""
    opened = copy.copy(request)
    opened.fields = [field for field in request.fields if field.kind not in (LENGTH, CODING)] + [CHUNKED_FIELD]
    opened.special = [field for field in opened.fields if field.kind]
    opened.length = CHUNKED
    return opened


def open_response(response: Response, *, framed: bool) -> Response:
    """The response with a body of a length that nobody knows yet; where it is not framed, the connection's end is its."""
    opened = copy.copy(response)
    opened.fields = [field for field in response.fields if field.kind not in (LENGTH, CODING)] + (
        [CHUNKED_FIELD] if framed else []
    )
    opened.length = CHUNKED if framed else NO_LENGTH
    return opened
