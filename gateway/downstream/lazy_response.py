"""The answer to a request on the fast path, as filters see it, and its end.

Whoever has sent such a request for filters that look at its answer stands between the backend's connection and the
client's: heads of answers that are known go past the filters as they are, and what a filter reads of one is found in
its bytes. A filter that reads, and adds fields, leaves an answer that passes as quickly as others; whatever else it
does makes this an ordinary exchange, which goes on where the filter left off and calls none of them twice.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from gateway.downstream.lazy_request import LazyRequest, Meeting, added_field
from gateway.filters import api
from gateway.filters.api.bodies import MAX_BODY_BYTES, BodySource
from gateway.http.head_templates import ResponseShape
from gateway.http.http1 import Field, parse_response
from gateway.http.http1 import Response as RawResponse
from gateway.interfaces import ResponseHeads, UpstreamStream
from gateway.proxy.exchange import Exchange
from gateway.proxy.filter_calls import tell
from gateway.proxy.handover import FilterResult


class Asking(Meeting, Protocol):
    """The client's connection whose request was sent on the fast path, and that takes its response."""

    def answered(self, data: bytes, status_class: int) -> None: ...
    def begun(self, data: bytes, status_class: int) -> None: ...
    def continued(self, data: bytes | memoryview) -> None: ...
    def ended(self, data: bytes, status_class: int) -> None: ...
    def told(self) -> tuple[float, str]:
        """The seconds that it took so far, and the backend's name."""


class LazyResponseFilter:
    """Shows filters the response to a request on the fast path. A sender of its request, and the answers that it knows."""

    __slots__ = ("_base", "_client", "_endpoint", "_head", "_plain", "lazy_request", "left", "octets", "reply")

    def __init__(self, client: Asking, lazy_request: LazyRequest, base: ResponseHeads, peer: UpstreamStream) -> None:
        self._client = client
        self._base = base
        self._endpoint = peer.endpoint
        self._plain = b""  # the head as it goes on where filters change nothing
        self._head = 0  # octets of it as it goes on
        self.lazy_request = lazy_request
        self.octets = 0  # of the body, so far
        self.reply: LazyResponse | None = None
        self.left: FilterResult | None = None  # not None: filters have been called

    # --- ResponseHeads ---

    @property
    def known(self) -> LazyResponseFilter:
        """The heads that are known are those that filters have not seen."""
        return self

    def get(self, head: bytes) -> tuple[bytes, int, int] | None:
        """A head that was seen before, past the filters."""
        entry = self._base.known.get(head)
        if entry is None:
            return None
        out = self._show(LazyResponse(self, int(head[9:12]), head), entry[0])
        return (out, entry[1], entry[2]) if out is not None else None

    def fill(self, shape: ResponseShape, varying: bytes) -> bytes | None:
        """A head of a known shape, past the filters."""
        out = self._base.fill(shape, varying)
        return self._show(LazyResponse(self, shape.status, shape.head(varying)), out) if out is not None else None

    def remember(self, head: bytes, out: bytes, length: int, status: int) -> None:
        """As it is without filters, for whoever comes next."""
        self._base.remember(head, self._plain, length, status)

    def _show(self, reply: LazyResponse, out: bytes) -> bytes | None:
        """What goes on for a head once the filters have seen it; None where an exchange must go on."""
        if self.left is not None:
            return None
        self._plain = out
        self.reply = reply
        active = self.lazy_request.active
        for index in range(len(active) - 1, -1, -1):
            program, hooks = active[index]
            if hooks.response is None:
                continue
            try:
                result = program.call(hooks.response, self.lazy_request, reply)
            except Exception as error:
                self.left = FilterResult(index, error=error)
                return None
            if result is not None or reply.full is not None or self.lazy_request.full is not None:
                self.left = FilterResult(index, result)
                return None
        self.left = FilterResult(0)
        added = reply.added
        if added:
            out = b"%b%b\r\n\r\n" % (out[:-4], b"".join([b"\r\n" + field.line for field in added]))
        self._head = len(out)
        return out

    # --- ResponseSink ---

    @property
    def answers(self) -> ResponseHeads:
        """The heads that are known are those that filters have not seen."""
        return self

    def answered(self, data: bytes, status_class: int) -> None:
        """A whole response in one piece."""
        self.octets = len(data) - self._head
        self._client.answered(data, status_class)
        self._over()

    def begun(self, data: bytes, status_class: int) -> None:
        """Its head, and a part of its body."""
        self.octets = len(data) - self._head
        self._client.begun(data, status_class)

    def continued(self, data: bytes | memoryview) -> None:
        """More of its body."""
        self.octets += len(data)
        self._client.continued(data)

    def ended(self, data: bytes, status_class: int) -> None:
        """The last of its body."""
        self.octets += len(data)
        self._client.ended(data, status_class)
        self._over()

    def taken(self, response: RawResponse, source: BodySource) -> api.Response:
        """What filters were shown, now that an exchange has read it."""
        assert self.reply is not None
        return self.reply.taken(response, source)

    def owes(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._client.owes()

    def promote(self) -> Exchange:
        """An exchange, which knows what has been done so far (`Handover`)."""
        return self._client.promote()

    def _over(self) -> None:
        for program, hooks in self.lazy_request.active:
            if hooks.log is not None:
                tell(program, hooks, self._exchange(), self.lazy_request)

    def _exchange(self) -> api.Exchange:
        assert self.reply is not None
        seconds, backend = self._client.told()
        return api.Exchange(
            self.lazy_request, self.reply, self.reply.status, started=time.time() - seconds, seconds=seconds,
            response_bytes=self.octets, backend=backend, endpoint=self._endpoint.name,
        )  # fmt: skip


class LazyResponseHeaders(api.Headers):
    """The fields of a head, found in its bytes, with what was added to them."""

    __slots__ = ("_head", "_lower", "_reply")

    def __init__(self, reply: LazyResponse, head: bytes) -> None:
        self._reply = reply
        self._head = head
        self._lower = head.lower()
        self.is_changed = False

    @property
    def _fields(self) -> list[Field]:
        return self._reply.promote().headers.fields

    @_fields.setter
    def _fields(self, fields: list[Field]) -> None:
        self._reply.promote().headers._fields = fields

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, in the order they came."""
        full = self._reply.full
        if full is not None:
            return full.headers.get_all(name)
        lower = name.lower().encode("latin-1", "replace")
        mark, values, at = b"\r\n%b:" % lower, [], -1
        while (at := self._lower.find(mark, at + 1)) >= 0:
            value = self._head[at + len(mark) : self._head.find(b"\r\n", at + 2)]
            values.append(value.strip(b" \t").decode("latin-1"))
        return values + [field.value.decode("latin-1") for field in self._reply.added if field.name == lower]

    def __contains__(self, name: object) -> bool:
        full = self._reply.full
        if full is not None:
            return name in full.headers
        lower = str(name).lower().encode("latin-1", "replace")
        return b"\r\n%b:" % lower in self._lower or any(field.name == lower for field in self._reply.added)

    def __setitem__(self, name: str, value: str) -> None:
        reply = self._reply
        if reply.full is not None:
            reply.full.headers[name] = value
            return
        new_field = added_field(name, value)
        if b"\r\n%b:" % new_field.name in self._lower:
            reply.promote().headers[name] = value
            return
        if reply.added:  # set anew, it goes to the end
            reply.added = [field for field in reply.added if field.name != new_field.name]
        reply.added.append(new_field)

    def put(self, made: Field) -> None:
        """One more line of a field that has been checked."""
        reply = self._reply
        if reply.full is not None:
            reply.full.headers.put(made)
        else:
            reply.added.append(made)

    def __delitem__(self, name: str) -> None:
        del self._reply.promote().headers[name]


class LazyResponse(api.Response):
    """A backend's answer on the fast path. `full` is the ordinary response, once it takes one."""

    __slots__ = ("_head", "_lazy_headers", "_response_filter", "_status", "added", "full")

    def __init__(self, response_filter: LazyResponseFilter, status: int, head: bytes) -> None:
        self._response_filter = response_filter
        self._status = status
        self._head = head
        self._lazy_headers: LazyResponseHeaders | None = None
        self.added: list[Field] = []
        self.full: api.Response | None = None

    def promote(self) -> api.Response:
        """The ordinary response, with what has been done so far."""
        if self.full is not None:
            return self.full
        return self.taken(parse_response(self._head[:-4]), self._response_filter.lazy_request.outgoing())

    def taken(self, raw: RawResponse, source: BodySource | None) -> api.Response:
        """The ordinary response, as an exchange read it, with what filters have done to it."""
        if self.full is None:
            self.full = api.Response.received(raw, source)
            for field in self.added:
                self.full.headers.put(field)
        return self.full

    @property
    def status(self) -> int:
        return self._status if self.full is None else self.full.status

    @status.setter
    def status(self, value: int) -> None:
        self.promote().status = value

    @property
    def headers(self) -> api.Headers:  # type: ignore[override]
        headers = self._lazy_headers
        if headers is None:
            headers = self._lazy_headers = LazyResponseHeaders(self, self._head)
        return headers

    async def body(self, limit: int = MAX_BODY_BYTES) -> bytes:
        return await self.promote().body(limit)

    def set_body(self, body: Any, content_type: str = "") -> None:
        self.promote().set_body(body, content_type)

    @property
    def content(self) -> bytes | None:
        return self.full.content if self.full is not None else None

    def raw(self) -> RawResponse:
        return self.promote().raw()
