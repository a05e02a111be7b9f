"""What a filter in Python sees: requests, responses, chunks, connections.

    from gateway.filters.api import Request, Response, config

    def request(request: Request) -> Response | None:
        if request.headers.get("x-api-key") not in config["keys"]:
            return Response(401, "an API key is needed")
        request.headers["x-checked"] = "yes"

Changing an object changes what is sent on; returning a `Response` answers. What would break the message (a field
that frames it, a line break in a value) is refused where it is written, with a ValueError. Nothing here does I/O:
what must wait (`await request.body()`) is done by whoever runs the filter.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol
from urllib.parse import parse_qsl, urlencode

import msgspec

from gateway.filters.measuring import Metrics as Metrics
from gateway.filters.sharing import Shared as Shared
from gateway.http.http1 import CODING, FOLDED, KIND, LENGTH, SHADOW, Field, fold, is_host, kind_of, parse_target
from gateway.http.http1 import Request as RawRequest
from gateway.http.http1 import Response as RawResponse
from gateway.http.local_replies import REASON

if TYPE_CHECKING:
    import logging

    # Each filter imports its own: they are bound to the one that is being loaded (see `__getattr__`).
    config: Mapping[str, Any]
    log: logging.Logger
    http: HttpClient
    shared: Shared
    metrics: Metrics
    secrets: Mapping[str, str]

    def every(seconds: float) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        """Call a function that takes nothing each so many seconds, and once more at the end."""


MOST: Final = 1 << 20  # octets of a body that is read whole, where a filter does not say
_connections = itertools.count(1)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
BARE: Final = (204, 304)  # statuses of responses without content (RFC 9110 §6.4.1)
# Fields that frame a message or belong to one connection.
FRAMING: Final = frozenset(name for name in KIND if not name.startswith(b"x-forwarded-")) | {b"trailer"}


class Refused(Exception):
    """The request cannot be what this filter needs: answered with `status` and a line that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class BodySource(Protocol):
    """Where a message's body comes from."""

    def whole(self, limit: int) -> Awaitable[bytes]:
        """All of it. Raises Refused(413) for more octets than `limit`."""


class Steering(Protocol):
    """Who can send a request elsewhere."""

    @property
    def choices(self) -> tuple[str, ...]:
        """What can be chosen."""

    def choose(self, service: str, key: str | None) -> None:
        """Raises LookupError for a Service that is none of the rule's."""


def is_method(name: str) -> bool:
    """Whether a request may have this method."""
    return _METHOD.fullmatch(name) is not None and name != "CONNECT"


def field(name: str, value: str) -> Field:
    """A field that a filter may write. Raises ValueError for one that it may not."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a field name")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"{name}: {value!r} holds characters that a field value may not")
    raw, lower = name.encode(), name.lower().encode()
    if lower in FRAMING:
        raise ValueError(f"{name} frames the message or names its connection; it cannot be set")
    kind = kind_of(lower)
    if kind == SHADOW:
        raise ValueError(f"{name} is to many backends the same as a field of the gateway's own; it cannot be set")
    octets = value.strip(" \t").encode("latin-1")
    return Field(kind, lower, octets, raw + b": " + octets)


def pair(field: Field) -> tuple[bytes, bytes]:
    """A field's name, in the case that it has, and its value."""
    return field.line[: len(field.name)], field.value


def without_look_alikes(fields: list[Field], name: bytes) -> list[Field]:
    """The fields without those that CGI and its kin cannot tell from a field of this lower-case name."""
    if not any(field.kind == FOLDED for field in fields):
        return fields
    folded = fold(name)
    return [field for field in fields if field.kind != FOLDED or field.name == name or fold(field.name) != folded]


class Headers(MutableMapping[str, str]):
    """Header fields, by names of any case. `headers[name]` joins several by commas; setting replaces them all.

    To set or remove a field also takes away those whose names many backends cannot tell from it: `X_User` beside `X-User`.
    """

    __slots__ = ("_fields", "is_changed")

    def __init__(self, fields: list[Field]) -> None:
        self._fields = fields
        self.is_changed = False

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __setitem__(self, name: str, value: str) -> None:
        new = field(name, value)
        self._fields = [field for field in without_look_alikes(self._fields, new.name) if field.name != new.name]
        self._fields.append(new)
        self.is_changed = True

    def __delitem__(self, name: str) -> None:
        lower = name.lower().encode("latin-1", "replace")
        if lower in FRAMING:
            raise ValueError(f"{name} frames the message or names its connection; it cannot be removed")
        others = without_look_alikes(self._fields, lower)
        kept = [field for field in others if field.name != lower]
        self._fields = kept
        self.is_changed = True  # also where it is not there: a trailer of this name is not to come either
        if len(kept) == len(others):
            raise KeyError(name)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a field, and return its value or the default."""
        value = self.get(name, *default) if default else self[name]
        with contextlib.suppress(KeyError):
            del self[name]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(field.name.decode("latin-1") for field in self._fields))

    def __len__(self) -> int:
        return len({field.name for field in self._fields})

    def __contains__(self, name: object) -> bool:
        lower = str(name).lower().encode("latin-1", "replace")
        return any(field.name == lower for field in self._fields)

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, in the order they came."""
        lower = name.lower().encode("latin-1", "replace")
        return [field.value.decode("latin-1") for field in self._fields if field.name == lower]

    def add(self, name: str, value: str) -> None:
        """One more line of a field."""
        self.put(field(name, value))

    def put(self, made: Field) -> None:
        """The same, for a field that has been checked."""
        self._fields = [*self._fields, made]
        self.is_changed = True

    @property
    def fields(self) -> list[Field]:
        """The fields as the proxy has them."""
        return self._fields

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Names, in the case that they have, and values."""
        return [pair(field) for field in self._fields]

    def replace(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Have these in place of all fields but those that frame the message, which stay."""
        there = {pair(field): field for field in self._fields}  # most come back as they went; they have been checked
        made = [field for field in self._fields if field.name in FRAMING]
        for name, value in pairs:
            found = there.get((name, value))
            if found is None and name.lower() not in FRAMING:
                found = field(name.decode("latin-1"), value.decode("latin-1"))
            if found is not None and found.name not in FRAMING:
                made.append(found)
        self._fields = made
        self.is_changed = True

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


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


class Connection:
    """A client's connection. `state` lasts as long as it does."""

    __slots__ = ("_closing", "address", "closed", "number", "port", "scheme", "state")

    def __init__(self, address: str, port: int, scheme: str = "http", state: dict[str, Any] | None = None) -> None:
        self.address = address  # of the client
        self.port = port  # of the listener
        self.scheme = scheme
        self.state: dict[str, Any] = {} if state is None else state
        self.number = next(_connections)  # of no other connection
        self._closing: list[Callable[[], Any]] = []
        self.closed: list[Callable[[], Any]] = []  # what is done at its end

    def on_close(self, function: Callable[[], Any]) -> None:
        """Have a function called when the connection is gone; to be said in `connect`."""
        self._closing.append(function)

    def take_closing(self) -> list[Callable[[], Any]]:
        """What a filter wants to be called at the end."""
        taken, self._closing = self._closing, []
        return taken


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
            fields.append(_length(body))
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
            pairs = (crumb.partition("=") for crumb in self.headers.get("cookie", "").split(";"))
            self._cookies = {name.strip(): value.strip().strip('"') for name, sign, value in pairs if sign}
        return self._cookies

    # --- the body ---

    async def body(self, limit: int = MOST) -> bytes:
        """All of the body. A longer one is answered with 413."""
        if self._replaced is not None:
            return self._replaced
        return await self._source.whole(limit) if self._source is not None else b""

    async def json(self, limit: int = MOST) -> Any:
        """The body as JSON. Anything else is answered with 400."""
        return decoded(await self.body(limit), self.headers)

    def set_body(self, body: bytes | str | Any, content_type: str = "") -> None:
        """Send another body: bytes, text, or anything else as JSON."""
        self._replaced, said = encoded(body)
        if content_type or said:
            self.headers["content-type"] = content_type or said

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
            raw.fields = [field for field in raw.fields if field.kind not in (LENGTH, CODING)] + [_length(self._replaced)]
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
        self._body, said = encoded(body)
        if (content_type or said) and "content-type" not in self.headers:
            self.headers["content-type"] = content_type or said

    @classmethod
    def received(cls, raw: RawResponse, source: BodySource | None) -> Response:
        """A backend's response."""
        made = cls.__new__(cls)
        made.status, made.headers = raw.status, Headers(raw.fields)
        made._raw, made._source, made._body, made.is_changed = raw, source, None, False
        return made

    async def body(self, limit: int = MOST) -> bytes:
        """All of the body. A longer one is answered with 502."""
        if self._body is not None:
            return self._body
        return await self._source.whole(limit) if self._source is not None else b""

    async def json(self, limit: int = MOST) -> Any:
        """The body as JSON. Anything else is answered with 502."""
        try:
            return decoded(await self.body(limit), self.headers)
        except Refused as error:
            raise Refused(502, f"the backend's response: {error.reason}") from None

    def set_body(self, body: bytes | str | Any, content_type: str = "") -> None:
        """Send another body: bytes, text, or anything else as JSON."""
        self._body, said = encoded(body)
        if content_type or said:
            self.headers["content-type"] = content_type or said

    def set_cookie(self, name: str, value: str, *, max_age: int | None = None, path: str = "/", same_site: str = "Lax") -> None:
        """Give the client a cookie that scripts of pages cannot read."""
        age = f"; Max-Age={max_age}" if max_age is not None else ""
        if not _TOKEN.fullmatch(name) or any(c in value for c in ' ";,\\'):
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
        is_bare = self.status in BARE
        if self._raw is None:
            return b"" if is_bare else self._body
        if self._body is None and is_bare == (self._raw.status in BARE):
            return None
        return b"" if is_bare or self._body is None else self._body

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
        return [_length(self.content or b"")] if self.status not in BARE else []

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


class Data:
    """Bytes of a connection that is passed on as it is, one way or the other. Returning bytes sends those instead."""

    __slots__ = ("connection", "data", "from_client")

    def __init__(self, data: bytes, connection: Connection, *, from_client: bool) -> None:
        self.data = data
        self.connection = connection
        self.from_client = from_client


class Datagram:
    """A datagram. Returning bytes sends those instead; `answer` sends something back to the client, and nothing on."""

    __slots__ = ("address", "answered", "data", "from_client", "port")

    def __init__(self, data: bytes, address: str, port: int, *, from_client: bool) -> None:
        self.data = data
        self.address = address  # of the client
        self.port = port  # of the listener
        self.from_client = from_client
        self.answered: bytes | None = None

    def answer(self, data: bytes) -> None:
        """Answer it here."""
        self.answered = data


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


class Given:
    """A body that is there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def whole(self, limit: int) -> bytes:
        """All of it."""
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


def _length(data: bytes) -> Field:
    value = b"%d" % len(data)
    return Field(LENGTH, b"content-length", value, b"Content-Length: " + value)


# --- calling others ---------------------------------------------------------------------------------------

LONGEST: Final = 3600.0  # seconds that anybody waits for an answer; the worker has its own patience


class Call(msgspec.Struct, array_like=True, tag=True, forbid_unknown_fields=True):
    """A request that a filter makes."""

    method: Annotated[str, msgspec.Meta(max_length=32)]
    url: Annotated[str, msgspec.Meta(max_length=1 << 16)]
    headers: Annotated[list[tuple[bytes, bytes]], msgspec.Meta(max_length=1000)]
    body: bytes
    timeout: Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]


class Reply(msgspec.Struct, array_like=True, tag=True):
    """Its answer."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def headers(self) -> Headers:
        """The header fields."""
        made = Headers([])
        made.replace(self.fields)
        return made

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
        content, said = encoded(body)
        given = Headers([])
        for name, value in (headers or {}).items():
            given.add(name, value)
        if said and "content-type" not in given:
            given["Content-Type"] = said
        return await self._send(Call(method, url, given.pairs(), content, min(timeout, LONGEST)))

    async def get(self, url: str, headers: Mapping[str, str] | None = None, *, timeout: float = 5.0) -> Reply:
        """GET."""
        return await self.request("GET", url, headers=headers, timeout=timeout)

    async def post(self, url: str, body: Any = b"", headers: Mapping[str, str] | None = None, *, timeout: float = 5.0) -> Reply:
        """POST bytes, text, or anything else as JSON."""
        return await self.request("POST", url, body, headers, timeout=timeout)


# --- what belongs to one filter -----------------------------------------------------------------------------

SUPPLIES: Final = ("config", "log", "http", "shared", "metrics", "secrets", "every")
_loading: list[Mapping[str, Any]] = []


class loading:  # noqa: N801  # reads as a statement: `with loading(services):`
    """While a filter is being loaded: what it imports from here is its own."""

    def __init__(self, services: Mapping[str, Any]) -> None:
        self._services = services

    def __enter__(self) -> None:
        _loading.append(self._services)

    def __exit__(self, *_: object) -> None:
        _loading.pop()


def __getattr__(name: str) -> Any:
    if _loading and name in _loading[-1]:
        return _loading[-1][name]
    if name in SUPPLIES:
        raise ImportError(f"{name} belongs to a filter and can be imported only by one")
    raise AttributeError(f"gateway.filters.api has no {name!r}")
