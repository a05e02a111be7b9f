"""How a filter calls other services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

import msgspec

from gateway.filters.api.bodies import encoded
from gateway.filters.api.filter_metrics import Metrics as Metrics
from gateway.filters.api.headers import Headers, is_method
from gateway.filters.api.shared_state import Shared as Shared

MAX_SECONDS: Final = 3600.0  # seconds that anybody waits for an answer; the worker has its own patience


class Call(msgspec.Struct, array_like=True, tag=True, forbid_unknown_fields=True):
    """A request that a filter makes."""

    method: Annotated[str, msgspec.Meta(max_length=32)]
    url: Annotated[str, msgspec.Meta(max_length=1 << 16)]
    headers: Annotated[list[tuple[bytes, bytes]], msgspec.Meta(max_length=1000)]
    body: bytes
    timeout: Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]


class Reply(msgspec.Struct, array_like=True, tag=True):
    """Its answer."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def headers(self) -> Headers:
        """The header fields."""
        headers = Headers([])
        headers.replace(self.fields)
        return headers

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return msgspec.json.decode(self.body)


class HttpClient:
    """Calls other services, over connections that are kept: `await http.post(url, {"a": 1})`.

    Raises PermissionError for one that the filter's definition does not name, and OSError where no answer comes.
    """

    def __init__(self, send: Callable[[Call], Awaitable[Reply]]) -> None:
        self._send = send

    async def request(
        self, method: str, url: str, body: Any = b"", headers: Mapping[str, str] | None = None, *, timeout: float = 5.0
    ) -> Reply:
        """Make a request and wait for all of its answer, of at most a megabyte."""
        if not is_method(method):
            raise ValueError(f"{method!r} cannot be asked")
        content, content_type = encoded(body)
        given = Headers([])
        for name, value in (headers or {}).items():
            given.add(name, value)
        if content_type and "content-type" not in given:
            given["Content-Type"] = content_type
        return await self._send(Call(method, url, given.pairs(), content, min(timeout, MAX_SECONDS)))

    async def get(self, url: str, headers: Mapping[str, str] | None = None, *, timeout: float = 5.0) -> Reply:
        """GET."""
        return await self.request("GET", url, headers=headers, timeout=timeout)

    async def post(self, url: str, body: Any = b"", headers: Mapping[str, str] | None = None, *, timeout: float = 5.0) -> Reply:
        """POST bytes, text, or anything else as JSON."""
        return await self.request("POST", url, body, headers, timeout=timeout)
