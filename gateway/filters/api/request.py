"""A client's request, on its way to a backend."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode

from gateway.filters.api.bodies import MAX_BODY_BYTES, BodySource, Given, decoded, encoded
from gateway.filters.api.connection import Connection
from gateway.filters.api.filter_metrics import Metrics as Metrics
from gateway.filters.api.headers import Headers, field, is_method, length_field
from gateway.filters.api.shared_state import Shared as Shared
from gateway.http.http1 import CODING, LENGTH, is_host, parse_target
from gateway.http.http1 import Request as RawRequest


class Steering(Protocol):
    """Steers a request to one of its rule's backends."""

    @property
    def choices(self) -> tuple[str, ...]:
        """What can be chosen."""

    def choose(self, service: str, key: str | None) -> None:
        """Raises LookupError for a Service that is none of the rule's."""


class Query(MutableMapping[str, str]):
    """The parameters of a request's query; setting one replaces all of its name."""

    __slots__ = ("_pairs", "_request")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._pairs = parse_qsl(request.query_string, keep_blank_values=True)

    def __getitem__(self, name: str) -> str:
        for key, value in self._pairs:
            if key == name:
                return value
        raise KeyError(name)

    def get_all(self, name: str) -> list[str]:
        """Every value of a parameter."""
        return [value for key, value in self._pairs if key == name]

    def __setitem__(self, name: str, value: str) -> None:
        self._write([pair for pair in self._pairs if pair[0] != name] + [(name, value)])

    def __delitem__(self, name: str) -> None:
        if name not in dict(self._pairs):
            raise KeyError(name)
        self._write([pair for pair in self._pairs if pair[0] != name])

    def _write(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs
        self._request.query_string = urlencode(pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    def __len__(self) -> int:
        return len(dict(self._pairs))


class Request:
    """A client's request, on its way to a backend."""

    __slots__ = (
        "_choice",
        "_cookies",
        "_headers",
        "_is_own",
        "_query",
        "_raw",
        "_replaced",
        "_source",
        "_state",
        "connection",
        "route",
    )

    def __init__(
        self,
        raw: RawRequest,
        connection: Connection,
        source: BodySource | None = None,
        steering: Steering | None = None,
        route: str = "",
    ) -> None:
        self._raw = raw
        self.connection = connection
        self.route = route  # the rule's name
        self._source = source
        self._choice = steering
        self._headers: Headers | None = None
        self._query: Query | None = None
        self._cookies: dict[str, str] | None = None
        self._state: dict[str, Any] | None = None
        self._replaced: bytes | None = None  # a body in place of the client's
        self._is_own = False  # the raw request is no longer the one that came

    @classmethod
    def of(
        cls, method: str = "GET", target: str = "/", headers: Mapping[str, str] | None = None, body: bytes = b"", *,
        host: str = "example.com", address: str = "127.0.0.1",
    ) -> Request:  # fmt: skip
        """A request as a client might send it, for tests of filters."""
        parsed = parse_target(target.encode())
        if parsed is None:
            raise ValueError(f"{target!r} is not a path with a query")
        fields = [field(*pair) for pair in (headers or {}).items()]
        if body:
            fields.append(length_field(body))
        raw = RawRequest(method.encode(), *parsed, False, fields)
        raw.host = host.encode()
        return cls(raw, Connection(address, 80), Given(body))

    # --- what was asked ---

    @property
    def state(self) -> dict[str, Any]:
        """What filters want to remember until the exchange is over."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def method(self) -> str:
        """Such as "GET"."""
        return self._raw.method.decode("latin-1")

    @method.setter
    def method(self, value: str) -> None:
        if not is_method(value) or "HEAD" in (value, self.method):
            # Whether a response has a body depends on HEAD, and the client goes by what it asked.
            raise ValueError(f"{self.method} cannot become {value!r}")
        self._own().method = value.encode()

    @property
    def path(self) -> str:
        """Normalised, still percent-encoded."""
        return self._raw.path.decode("latin-1")

    @path.setter
    def path(self, value: str) -> None:
        self._aim(value + ("?" + self.query_string if self.query_string else ""))

    @property
    def query_string(self) -> str:
        """What follows the question mark."""
        return self._raw.query.decode("latin-1")

    @query_string.setter
    def query_string(self, value: str) -> None:
        self._aim(self.path + ("?" + value if value else ""))

    def _aim(self, target: str) -> None:
        parsed = parse_target(target.encode())
        if parsed is None:
            raise ValueError(f"{target!r} is not a path with a query")
        self._own().aim(*parsed)

    @property
    def query(self) -> Query:
        """The query's parameters."""
        if self._query is None:
            self._query = Query(self)
        return self._query

    @property
    def host(self) -> str:
        """As Host has it, with the port if there is one."""
        return self._raw.host.decode("latin-1")

    @host.setter
    def host(self, value: str) -> None:
        if not is_host(value.encode()):
            raise ValueError(f"{value!r} is not a host")
        self._own().host = value.encode()

    @property
    def headers(self) -> Headers:
        """The header fields."""
        if self._headers is None:
            self._headers = Headers(self._raw.fields)
        return self._headers

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that the client sent."""
        if self._cookies is None:
            # Lines as one line: what comes in several on HTTP/1.1 means the same as in one (RFC 9113 §8.2.3).
            pairs = (crumb.partition("=") for line in self.headers.get_all("cookie") for crumb in line.split(";"))
            self._cookies = {name.strip(): value.strip().strip('"') for name, sign, value in pairs if sign}
        return self._cookies

    # --- the body ---

    async def body(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """All of the body. A longer one is answered with 413."""
        if self._replaced is not None:
            return self._replaced
        return await self._source.whole(limit) if self._source is not None else b""

    async def json(self, limit: int = MAX_BODY_BYTES) -> Any:
        """The body as JSON. Anything else is answered with 400."""
        return decoded(await self.body(limit), self.headers)

    def set_body(self, body: bytes | str | Any, content_type: str = "") -> None:
        """Send another body: bytes, text, or anything else as JSON."""
        self._replaced, default_type = encoded(body)
        if content_type or default_type:
            self.headers["content-type"] = content_type or default_type

    # --- where it goes ---

    @property
    def choices(self) -> tuple[str, ...]:
        """What `choose` knows."""
        return self._choice.choices if self._choice is not None else ()

    def steer(self, steering: Steering) -> None:
        """Let `choose` be done by this."""
        self._choice = steering

    def choose(self, service: str, key: str | None = None) -> None:
        """Send it to one of the rule's backends, whatever its weight: "app", "namespace/app" or either with ":port".

        Requests with the same `key` go to the same endpoint for as long as it is ready.
        """
        if self._choice is None:
            raise LookupError(f"there is no backend to choose from here, so not {service!r}")
        self._choice.choose(service, key)

    # --- for who runs filters ---

    def _own(self) -> RawRequest:
        """The raw request, as one that may be changed: the client's own stays as it came."""
        fields = self._headers.fields if self._headers is not None else self._raw.fields
        self._raw = copy.copy(self._raw)
        self._raw.fields = fields
        self._is_own = True
        return self._raw

    def raw(self) -> RawRequest:
        """What goes on; the very request that came in where nothing was changed."""
        if self._headers is not None and self._headers.is_changed:
            raw = self._own()
            raw.special = [field for field in raw.fields if field.kind]
        if self._replaced is not None:
            raw = self._own()
            raw.fields = [field for field in raw.fields if field.kind not in (LENGTH, CODING)] + [length_field(self._replaced)]
            raw.special = [field for field in raw.fields if field.kind]
            raw.length = len(self._replaced)
        return self._raw

    @property
    def replaced(self) -> bytes | None:
        """A body in place of the client's."""
        return self._replaced

    @property
    def is_changed(self) -> bool:
        """Whether anything is not as it came."""
        return self._is_own or self._replaced is not None or (self._headers is not None and self._headers.is_changed)

    @property
    def target(self) -> str:
        """Path and query."""
        return self._raw.target.decode("latin-1")

    def become(self, method: str, target: str, host: str, headers: Iterable[tuple[bytes, bytes]], body: bytes | None) -> None:
        """Be as it was somewhere else; everything is checked as if it were written here."""
        if method != self.method:
            self.method = method
        if target != self.target:
            self._aim(target)
        if host != self.host:
            self.host = host
        self.headers.replace(headers)
        if body is not None:
            self._replaced = body

    def __repr__(self) -> str:
        return repr(self._raw)
