"""A response on its way to a client, a piece of a body, and what came of a request."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.filters.api.bodies import MAX_BODY_BYTES, BodySource, Refused, decoded, encoded
from gateway.filters.api.filter_metrics import Metrics as Metrics
from gateway.filters.api.headers import TOKEN, Headers, length_field
from gateway.filters.api.request import Request
from gateway.filters.api.shared_state import Shared as Shared
from gateway.http.http1 import BODILESS, CODING, LENGTH, Field
from gateway.http.http1 import Response as RawResponse
from gateway.http.local_replies import EMPTY, REASON


class Response:
    """A response: made by a filter (`Response(403, "no")`), or a backend's on its way to the client."""

    __slots__ = ("_body", "_raw", "_source", "headers", "is_changed", "status")

    def __init__(
        self,
        status: int = 200,
        body: bytes | str | Any = b"",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        content_type: str = "",
    ) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"{status} is not the status of an answer (200 to 599)")
        self.status = status
        self.headers = Headers([])
        self._raw: RawResponse | None = None
        self._source: BodySource | None = None
        self._body: bytes | None = None
        self.is_changed = True
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            self.headers.add(name, value)
        self._body, default_type = encoded(body)
        if (content_type or default_type) and "content-type" not in self.headers:
            self.headers["content-type"] = content_type or default_type

    @classmethod
    def received(cls, raw: RawResponse, source: BodySource | None) -> Response:
        """A backend's response."""
        response = cls.__new__(cls)
        response.status, response.headers = raw.status, Headers(raw.fields)
        response._raw, response._source, response._body, response.is_changed = raw, source, None, False
        return response

    async def body(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """All of the body. A longer one is answered with 502."""
        if self._body is not None:
            return self._body
        return await self._source.whole(limit) if self._source is not None else b""

    async def json(self, limit: int = MAX_BODY_BYTES) -> Any:
        """The body as JSON. Anything else is answered with 502."""
        try:
            return decoded(await self.body(limit), self.headers)
        except Refused as error:
            raise Refused(502, f"the backend's response: {error.reason}") from None

    def set_body(self, body: bytes | str | Any, content_type: str = "") -> None:
        """Send another body: bytes, text, or anything else as JSON."""
        self._body, default_type = encoded(body)
        if content_type or default_type:
            self.headers["content-type"] = content_type or default_type

    def set_cookie(self, name: str, value: str, *, max_age: int | None = None, path: str = "/", same_site: str = "Lax") -> None:
        """Give the client a cookie that scripts of pages cannot read."""
        age = f"; Max-Age={max_age}" if max_age is not None else ""
        if not TOKEN.fullmatch(name) or any(c in value for c in ' ";,\\'):
            raise ValueError(f"{name}={value} is not a cookie")
        self.headers.add("Set-Cookie", f"{name}={value}; Path={path}{age}; HttpOnly; SameSite={same_site}")

    # --- for who runs filters ---

    def become(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | None) -> None:
        """Be as it was somewhere else; everything is checked as if it were written here."""
        if not 200 <= status <= 599:
            raise ValueError(f"{status} is not the status of an answer (200 to 599)")
        self.status = status
        self.headers.replace(headers)
        if body is not None:
            self._body = body

    @property
    def content(self) -> bytes | None:
        """A body in place of the backend's; None for the backend's own."""
        is_empty, raw = self.status in EMPTY, self._raw
        if raw is None:
            return b"" if is_empty else self._body
        if self._body is None and (self.status == raw.status or self._is_alike(raw)):
            return None
        return b"" if is_empty or self._body is None else self._body

    def _is_alike(self, raw: RawResponse) -> bool:
        """Whether what frames the backend's content is right for another status as well."""
        return self.status != 205 and (self.status in BODILESS) == (raw.status in BODILESS)

    def raw(self) -> RawResponse:
        """What goes on, of a backend's response."""
        raw = self._raw
        if raw is None:  # a filter's own
            return RawResponse(self.status, REASON.get(self.status, b""), False, [*self.headers.fields, *self._framing()])
        if self._body is None and self.status == raw.status and not self.headers.is_changed:
            return raw
        raw = copy.copy(raw)
        raw.fields = self.headers.fields
        if self.status != raw.status:
            raw.status, raw.reason = self.status, REASON.get(self.status, b"")
        if self.content is not None:
            raw.fields = [field for field in raw.fields if field.kind not in (LENGTH, CODING)] + self._framing()
            raw.length = len(self.content)
        return raw

    def _framing(self) -> list[Field]:
        """Of a body that is not the backend's. RFC 9110 §8.6: a 204 has no Content-Length; of a 304 it would be a 200's."""
        return [length_field(self.content or b"")] if self.status not in BODILESS else []

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


class Chunk:
    """A piece of a body on its way. Returning bytes sends those instead; what a filter keeps back it may return later."""

    __slots__ = ("data", "is_last", "request", "response")

    def __init__(self, data: bytes, is_last: bool, request: Request, response: Response | None = None) -> None:
        self.data = data
        self.is_last = is_last
        self.request = request
        self.response = response


class Exchange:
    """A request and what came of it, once it is over."""

    __slots__ = ("backend", "endpoint", "request", "response", "response_bytes", "seconds", "started", "status")

    def __init__(
        self, request: Request, response: Response | None, status: int, *, started: float, seconds: float, response_bytes: int,
        backend: str, endpoint: str,
    ) -> None:  # fmt: skip
        self.request = request
        self.response = response  # None where none was received or made by a filter
        self.status = status
        self.started = started  # seconds since 1970
        self.seconds = seconds
        self.response_bytes = response_bytes  # of the body
        self.backend = backend
        self.endpoint = endpoint
