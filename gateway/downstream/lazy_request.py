"""A request on the fast path, as a filter sees it: what the filter asks for is looked up, the rest is never parsed.

The template says what its fields are, once for all requests that it accepts; what its slots hold is cut out on demand.
A filter that reads, and adds fields that the client did not send, leaves a head that can still be composed from
prepared pieces; whatever else it does makes this an ordinary request, parsed in full.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

from gateway.downstream.known_heads import Template
from gateway.filters import api
from gateway.filters.api.bodies import MAX_BODY_BYTES
from gateway.filters.api.headers import field
from gateway.http.http1 import Field, Request, parse_request
from gateway.interfaces import DownstreamPeer
from gateway.proxy.exchange import Exchange
from gateway.proxy.filtered_bodies import FilteredResponseBody
from gateway.proxy.scripted_exchange import ScriptedExchange
from gateway.routing.table import RouteDecision
from gateway.scripting.listener_filters import connection_of
from gateway.scripting.program import ActiveFilter
from gateway.snapshot import Limits

KEPT: Final = 4096  # field lines that filters have added
BEFORE: Final = b"\r\nX-Forwarded-For: "  # in a composed head: behind the client's fields, and those that were added

_added: dict[tuple[str, str], Field] = {}


def added_field(name: str, value: str) -> Field:
    """A field, checked when it is first seen."""
    checked_field = _added.get((name, value))
    if checked_field is None:
        checked_field = field(name, value)
        if len(_added) >= KEPT:
            _added.clear()
        _added[name, value] = checked_field
    return checked_field


class LazyRequestHeaders(api.Headers):
    """The fields of a template, with what is added to them."""

    __slots__ = ("_known", "_lazy_request", "added")

    def __init__(self, lazy_request: LazyRequest) -> None:
        self._lazy_request = lazy_request
        self._known = lazy_request.template.known()
        self.added: dict[str, Field] | None = None
        self.is_changed = False

    @property
    def _fields(self) -> list[Field]:
        return self._lazy_request.promote().headers.fields

    @_fields.setter
    def _fields(self, fields: list[Field]) -> None:
        self._lazy_request.promote().headers._fields = fields

    def __getitem__(self, name: str) -> str:
        value: str | None = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """A field's value."""
        if self._lazy_request.full is not None:
            return self._lazy_request.full.headers.get(name, default)
        lower = name.lower()
        known = self._known.get(lower)
        if known is None:
            if self.added and lower in self.added:
                return self.added[lower].value.decode("latin-1")
            return default
        if isinstance(known, str):
            return known
        return self._lazy_request.value(known) if known >= 0 else self._lazy_request.promote().headers[name]

    def __contains__(self, name: object) -> bool:
        if self._lazy_request.full is not None:
            return name in self._lazy_request.full.headers
        lower = str(name).lower()
        return lower in self._known or (self.added is not None and lower in self.added)

    def __setitem__(self, name: str, value: str) -> None:
        lower = name.lower()
        if self._lazy_request.full is not None or lower in self._known or self._lazy_request.template.folds:
            self._lazy_request.promote().headers[name] = value
            return
        new_field = added_field(name, value)
        if self.added is None:
            self.added = {lower: new_field}
        else:
            self.added.pop(lower, None)  # set anew, it goes to the end
            self.added[lower] = new_field

    def __delitem__(self, name: str) -> None:
        del self._lazy_request.promote().headers[name]

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a field, and return its value or the default."""
        if self._lazy_request.full is None and name not in self and not self._lazy_request.template.folds:
            if default:
                return default[0]
            raise KeyError(name)
        return self._lazy_request.promote().headers.pop(name, *default)

    def add(self, name: str, value: str) -> None:
        """One more line of a field."""
        self._lazy_request.promote().headers.add(name, value)


class Meeting(DownstreamPeer, Protocol):
    """The client's connection on which a request came by the fast path."""

    def promote(self) -> Exchange: ...
    def is_at(self, data: bytes) -> bool:
        """Whether a request of this head is under way."""


class LazyRequest(api.Request):
    """A request on the fast path, as filters see it. `full` is the ordinary request, once it takes one."""

    __slots__ = (
        "_client",
        "_decision",
        "_lazy_headers",
        "_limits",
        "active",
        "data",
        "full",
        "template",
        "varying",
    )  # fmt: skip

    def __init__(
        self, client: Meeting, template: Template, decision: RouteDecision[Any], data: bytes, varying: bytes, limits: Limits,
        active: list[ActiveFilter],
    ) -> None:  # fmt: skip
        self._client = client
        self._decision = decision
        self._limits = limits
        self._lazy_headers: LazyRequestHeaders | None = None
        self.template = template
        self.data = data
        self.varying = varying
        self.full: api.Request | None = None
        self.active = active  # the filters that see it
        self._state = None

    def value(self, slot: int) -> str:
        """What a slot holds."""
        varying = self.varying
        raw = varying if self.template.is_single else self.template.values(varying)[slot]
        return raw.strip(b" \t").decode("latin-1")

    def promote(self) -> api.Request:
        """The ordinary request, with what has been done so far."""
        if self.full is None:
            if self._client.is_at(self.data):
                view = self._client.promote().view  # type: ignore[attr-defined]  # a rule with filters has such
            else:  # nothing can be done for it any more, but a filter may still read it
                view = api.Request(parse_request(self.data[:-4], self._limits), self.connection, route=self.route)
            self.pass_to(view)
        assert self.full is not None
        return self.full

    def pass_to(self, view: api.Request) -> None:
        """From now on it is this one, with what has been done so far."""
        if self.full is not None:
            return
        self.full = view
        view._state = self.state  # one dictionary for both
        headers = self._lazy_headers
        if headers is not None and headers.added:
            for new_field in headers.added.values():
                view.headers.put(new_field)
            headers.added = None

    def outgoing(self) -> FilteredResponseBody | None:
        """Where the body of its answer comes from, while there is one."""
        if not self._client.is_at(self.data):
            return None
        return cast("ScriptedExchange", self._client.promote()).filtered_response

    # --- what can be told from the line ---

    @property
    def headers(self) -> api.Headers:
        headers = self._lazy_headers
        if headers is None:
            headers = self._lazy_headers = LazyRequestHeaders(self)
        return headers

    @property
    def method(self) -> str:
        return self._seen.method.decode("latin-1") if self.full is None else self.full.method

    @method.setter
    def method(self, value: str) -> None:
        self.promote().method = value

    @property
    def path(self) -> str:
        return self._seen.path.decode("latin-1") if self.full is None else self.full.path

    @path.setter
    def path(self, value: str) -> None:
        self.promote().path = value

    @property
    def query_string(self) -> str:
        return self._seen.query.decode("latin-1") if self.full is None else self.full.query_string

    @query_string.setter
    def query_string(self, value: str) -> None:
        self.promote().query_string = value

    @property
    def target(self) -> str:
        return self._seen.target.decode("latin-1") if self.full is None else self.full.target

    @property
    def host(self) -> str:
        return self._decision.host.decode("latin-1") if self.full is None else self.full.host

    @host.setter
    def host(self, value: str) -> None:
        self.promote().host = value

    @property
    def _seen(self) -> Request:
        """The line, parsed once for all requests that have it."""
        return self._decision.seen(self.data, self._limits)

    @property
    def route(self) -> str:  # type: ignore[override]
        return self._decision.route.name  # type: ignore[no-any-return]

    @property
    def connection(self) -> api.Connection:  # type: ignore[override]
        return connection_of(self._client)

    # --- what takes the ordinary request ---

    @property
    def query(self) -> api.Query:
        return self.promote().query

    @property
    def cookies(self) -> Any:
        return self.promote().cookies

    async def body(self, limit: int = MAX_BODY_BYTES) -> bytes:
        return b""  # requests on the fast path have none

    def set_body(self, body: Any, content_type: str = "") -> None:
        self.promote().set_body(body, content_type)

    def choose(self, service: str, key: str | None = None) -> None:
        self.promote().choose(service, key)

    def raw(self) -> Request:
        return self.promote().raw()

    @property
    def replaced(self) -> bytes | None:
        return self.full.replaced if self.full is not None else None

    @property
    def is_changed(self) -> bool:
        return self.full is not None or (self._lazy_headers is not None and bool(self._lazy_headers.added))

    @property
    def added(self) -> bytes | None:
        """The lines of fields that were added, each behind a line end; None where more than that was done."""
        if self.full is not None:
            return None
        headers = self._lazy_headers
        if headers is None or not headers.added:
            return b""
        return b"".join([b"\r\n" + new_field.line for new_field in headers.added.values()])
