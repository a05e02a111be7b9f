"""gRPC-Web, for pages that cannot speak gRPC: the same messages, with trailers as a last frame of the content.

By the protocol's own description (grpc/grpc, doc/PROTOCOL-WEB.md): `application/grpc-web` as it is, or as base64 where the
content type ends in `-text`. Asked for by a request's content type, and translated where a GRPCRoute leads.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterable
from typing import Final

from gateway.http.chunked import Chunks, chunk, last_chunk
from gateway.http.http1 import CHUNKED, CHUNKED_FIELD, CODING, LENGTH, PLAIN, Field, Request, Response

PREFIX: Final = b"application/grpc-web"
MALFORMED: Final = "the content is not gRPC-Web's"
TRAILERS: Final = 0x80  # the flag of a frame that holds them


def is_asked(request: Request) -> bool:
    """Whether a request is gRPC-Web, and of a client that can take an answer of unknown length."""
    return not request.http10 and (request.value(b"content-type") or b"").lower().startswith(PREFIX)


class GrpcWebTranslation:
    """One call: what comes of the client as gRPC, and what comes of the backend as gRPC-Web."""

    __slots__ = ("_chunks", "_frames", "_left", "_subtype", "is_text", "request")

    def __init__(self, request: Request, *, framed: bool) -> None:
        content_type = (request.value(b"content-type") or b"").lower()
        rest = content_type[len(PREFIX) :].partition(b";")[0].strip()
        self.is_text = rest.startswith(b"-text")
        self._subtype = rest.removeprefix(b"-text")  # such as +proto
        self._frames = framed  # the client's messages share a connection: what is said of them must be in chunks
        self._chunks = Chunks() if framed and request.length == CHUNKED else None
        self._left = b""  # of base64, less than a group of four
        self.request = copy.copy(request)
        kept = [field for field in request.fields if field.name != b"content-type" and field.kind not in (LENGTH, CODING)]
        value = b"application/grpc" + self._subtype
        self.request.fields = [*kept, Field(PLAIN, b"content-type", value, b"content-type: " + value), CHUNKED_FIELD]
        self.request.special = [field for field in self.request.fields if field.kind]
        self.request.length = CHUNKED

    def incoming(self, data: bytes) -> bytes:
        """Content of the request, as gRPC. Raises ProtocolError or ValueError for what cannot be read."""
        if self._chunks is not None:
            self._chunks.feed(data)
            data = self._chunks.taken()
        if not self.is_text:
            return data
        data = self._left + data
        whole = len(data) // 4 * 4
        self._left = data[whole:]
        # Each group of four stands for itself, so that a client may pad wherever it flushes.
        return b"".join(base64.b64decode(group, validate=True) for group in _padded(data[:whole]))

    def response(self, response: Response) -> Response:
        """The response's head."""
        translated = copy.copy(response)
        value = PREFIX + (b"-text" if self.is_text else b"") + self._subtype
        dropped = (b"content-type", b"content-length", b"transfer-encoding", b"trailer")
        translated.fields = [field for field in response.fields if field.name not in dropped]
        translated.fields.append(Field(PLAIN, b"content-type", value, b"content-type: " + value))
        if self._frames:
            translated.fields.append(CHUNKED_FIELD)
        translated.length = CHUNKED
        return translated

    def outgoing(self, data: bytes) -> bytes:
        """Content of the response."""
        if self.is_text:
            data = base64.b64encode(data)
        return chunk(data) if self._frames and data else data

    def trailers(self, fields: Iterable[Field]) -> bytes:
        """The response's trailers, as its last frame."""
        block = b"".join(b"%b: %b\r\n" % (field.name, field.value) for field in fields)
        return self.outgoing(bytes((TRAILERS,)) + len(block).to_bytes(4, "big") + block)

    def end(self) -> bytes:
        """The end of the response, where it must be said."""
        return last_chunk(()) if self._frames else b""

    def refusal(self, answer: bytes) -> bytes:
        """An answer of ours that has its trailers in its head, as gRPC-Web."""
        value = PREFIX + (b"-text" if self.is_text else b"") + self._subtype
        answer = answer.replace(b"Content-Type: application/grpc\r\n", b"Content-Type: %b\r\n" % value, 1)
        return answer[:-2] + b"Content-Length: 0\r\n\r\n" if self._frames else answer


def _padded(data: bytes) -> Iterable[bytes]:
    """Base64 cut behind every padding."""
    while data:
        at = data.find(b"=")
        end = len(data) if at < 0 else (at // 4 + 1) * 4
        yield data[:end]
        data = data[end:]
