"""A backend's response as its client gets it: the head edited and framed for the client's connection, then the content."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from gateway.http.chunked import chunk, last_chunk
from gateway.http.forwarding import failure, kept_open, response_head
from gateway.http.http1 import BODILESS, CHUNKED, NO_LENGTH, Edit, Field, Request, Response
from gateway.http.local_replies import answer, grpc_answer
from gateway.interfaces import DownstreamPeer
from gateway.proxy.grpc_web import GrpcWebTranslation


class ResponseFraming(Enum):
    """Who frames the content of a response on its way.

    =======================================  ========  ================================================================
    client                                   framing   of content in chunks the client gets
    =======================================  ========  ================================================================
    HTTP/1.1                                 `KEPT`    the chunks
    HTTP/1.1, and filters look at it         `ANEW`    chunks made here
    HTTP/1.1, and it is made gRPC-Web        `ANEW`    chunks made by the translation
    HTTP/1.0                                 `BARE`    bare octets; the connection's end is the content's
    HTTP/2                                   `BARE`    bare octets, which its stream frames
    =======================================  ========  ================================================================
    """

    KEPT = 1
    BARE = 2
    ANEW = 3


KEPT: Final = ResponseFraming.KEPT
BARE: Final = ResponseFraming.BARE
ANEW: Final = ResponseFraming.ANEW


class ClientResponse:
    """What the client is told; written once, as it comes."""

    __slots__ = (
        "_client", "_has_content", "_head_only", "_trailers", "_unsent", "closes", "frames", "framing", "is_fixed", "more",
        "web", "withheld",
    )  # fmt: skip

    def __init__(self, client: DownstreamPeer, *, head_only: bool, http10: bool) -> None:
        self._client = client
        self._head_only = head_only
        self._has_content = True
        self._unsent = b""  # of the head
        self._trailers: Sequence[Field] = ()  # for the last chunk
        self.closes = False  # the client's connection, with its end
        self.framing = KEPT if client.is_framed and not http10 else BARE
        self.frames = False  # content is put into chunks here
        self.is_fixed = False  # the same head says the same another time, but for the field that closes the connection
        self.more: list[Field] = []  # what it must say of this request, in place of what the backend says of it
        self.withheld: frozenset[bytes] = frozenset()  # names of fields that are not the backend's to say
        self.web: GrpcWebTranslation | None = None

    def is_bodiless(self, status: int) -> bool:
        """Whether a response of this status has no content, whatever its head says (RFC 9112 §6.3, case 1)."""
        return self._head_only or status in BODILESS

    def begin(
        self, request: Request, response: Response, edit: Edit | None, session: Sequence[Field], *, is_whole: bool
    ) -> bytes:
        """Its head, which goes out with the first octets of the content: one write is cheaper than two.

        `session`: fields that begin one. `is_whole`: the client has sent all of its request.
        """
        if self.web is not None:
            response = self.web.response(response)
        client, length = self._client, response.length
        has_content = not self.is_bodiless(response.status)
        closes = False  # a stream ends by itself
        if client.is_framed:
            # RFC 9112 §6.3, case 8: the connection's end is the content's; also for a client that knows no chunks.
            is_open = has_content and (length == NO_LENGTH or (length == CHUNKED and request.http10))
            closes = is_open or not request.keep_alive or client.closes_after_this or not is_whole
        self.closes = closes
        self._has_content = has_content
        self.frames = has_content and length == CHUNKED and self.framing is ANEW and self.web is None
        self.is_fixed = has_content and length >= 0 and response.keep_alive
        if self.more or self.withheld or session:
            edit = self._saying_more(edit, session)
        connection = b"close" if closes else b"keep-alive" if request.http10 else b""
        self._unsent = response_head(response, edit, connection, dechunked=self.framing is BARE)
        return self._unsent

    def _saying_more(self, edit: Edit | None, session: Sequence[Field]) -> Edit:
        replaced = self.withheld | {field.name for field in self.more} - {b"vary"}

        def edited(fields: list[Field]) -> list[Field]:
            kept = edit(fields) if edit is not None else fields
            return [field for field in kept if field.name not in replaced] + [*self.more, *session]

        return edited

    def kept_open(self, head: bytes) -> bytes:
        """The head that was begun with, as it is where it does not close the connection."""
        return kept_open(head) if self.closes else head

    def write(self, data: bytes) -> None:
        """Octets of the content, as `framing` has them."""
        if self.web is not None:
            data = self.web.outgoing(data) if self._has_content else b""
        elif self.frames:
            data = chunk(data)
        if self._unsent:
            data = self._unsent + data
            self._unsent = b""
        self._client.write(data)

    def flush(self) -> None:
        """No octets of the content have come with the head."""
        if self._unsent:
            unsent, self._unsent = self._unsent, b""
            self._client.write(unsent)

    def trailers(self, fields: list[Field]) -> None:
        """Trailers, where they are no part of the content."""
        self.flush()
        if self.frames:
            self._trailers = fields
        elif self.web is not None and self._has_content:
            self._client.write(self.web.trailers(fields))
        elif self.web is None:
            self._client.trailers(fields)

    def end(self) -> None:
        """All of it has come."""
        if self.web is not None and self._has_content:
            self._unsent += self.web.end()
        elif self.frames:
            self._unsent += last_chunk(self._trailers)
        if self._unsent:
            self.flush()

    # --- answers that are made here ---

    def error(self, request: Request, status: int, reason: str, *, close: bool) -> bytes:
        """A line that says why there is no other answer."""
        if self.web is not None:
            return self.web.refusal(grpc_answer(status, reason))
        if not self._client.is_framed:
            return failure(request, status, reason)
        keep_10 = request.http10 and not close
        return answer(status, reason, close=close, head_only=self._head_only, keep_alive_10=keep_10)
