"""An exchange in which filters take part: functions of the request, its body, the response, its body, and the end.

Filters see requests in the order in which the rule names them, and responses the other way round. Each function answers
at once or later; what comes meanwhile waits, and who sends it is not read beyond what may wait. The filters of the
Gateway API change the heads that go out, after all of these.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any, Final

from gateway.filters import api
from gateway.http import forwarding, grpc_web
from gateway.http.chunked import Chunks, chunk, last_chunk
from gateway.http.forwarding import unexpecting
from gateway.http.http1 import CHUNKED, EXPECT, Field, Request, Response
from gateway.http.local_replies import whole
from gateway.interfaces import DownstreamPeer, Endpoint
from gateway.proxy.exchange import Exchange, name_of
from gateway.proxy.filter_calls import FilterCalls, tell
from gateway.proxy.filtered_bodies import AwaitedBody, GoneOnError, IncomingBody, OutgoingBody, open_ended, open_response
from gateway.proxy.handover import FilterResult, Handover, ResponseShown, SeenRequest
from gateway.proxy.route import Route, Target
from gateway.routing.table import RouteMatch
from gateway.scripting.chunk_pipeline import ChunkPipeline
from gateway.scripting.hooks import Hooks
from gateway.scripting.listener_filters import connection_of
from gateway.scripting.program import ActiveFilter, FilterProgram
from gateway.upstream.backend import Backend

DRAINED: Final = 65536  # octets of a body that nobody wants, which are read so that the connection can be used again


def begin(client: DownstreamPeer, request: Request, entry: RouteMatch[Route], backends: Callable[[str], Backend]) -> Exchange:
    """An exchange of the kind that a rule needs."""
    kind = ScriptedExchange if entry.route.is_programmed else Exchange
    return kind(client, request, entry, backends)


class ScriptedExchange(Exchange):
    """One request and its response, with filters in Python."""

    __slots__ = (
        "_active",
        "_at",
        "_began",
        "_calls",
        "_chosen",
        "_decoder",
        "_discards",
        "_drops",
        "_frames",
        "_has_gone_on",
        "_inward",
        "_is_invited",
        "_is_over",
        "_key",
        "_length",
        "_octets",
        "_outward",
        "_ready",
        "_reply",
        "_request_readers",
        "_response_readers",
        "_shown",
        "_trailers",
        "_view",
        "_waiting",
    )  # fmt: skip

    def __init__(
        self, client: DownstreamPeer, request: Request, entry: RouteMatch[Route], backends: Callable[[str], Backend]
    ) -> None:
        super().__init__(client, request, entry, backends)
        self._began = time.time()
        self._active: list[ActiveFilter] = []  # who has seen the request, with the code that was in force then
        self._at = 0  # how many of the target's programs
        self._ready = False  # all of them
        self._calls = FilterCalls(self)
        # The request.
        self._view: api.Request | None = None
        self._chosen: Target | None = None
        self._key: str | None = None  # whose requests go to the same endpoint
        self._request_readers: AwaitedBody | None = None  # filters that read the whole body
        self._has_gone_on = False  # the request, with its body
        self._is_invited = False
        self._inward: ChunkPipeline | None = None
        self._decoder: Chunks | None = None
        self._discards = False  # the client's body: there is another in its place
        # The response.
        self._reply: api.Response | None = None
        self._waiting: list[bytes | None] | None = None  # not None: it is looked at, and its body (with its end) waits
        self._response_readers: AwaitedBody | None = None
        self._outward: ChunkPipeline | None = None
        self._drops = False  # the backend's body: there is another in its place
        self._length = 0  # octets of the backend's body, if they are known
        self._is_over = False  # the backend has said all that it has to say
        self._frames = False  # what goes out is put into chunks here
        self._trailers: list[Field] = []
        self._octets = 0
        self._shown: ResponseShown | None = None  # what of it filters were shown on the fast path

    # --- the request's head ---

    def proceed(self) -> None:
        if self._ready:
            super().proceed()
            return
        if not self._at:
            route = self.entry.route
            if route.sessions is not None and (held := route.sessions.find(self.request)) is not None:
                self.target = held[0]  # type: ignore[assignment]  # whose filters apply
            self._pending = []
        self.run_filters()

    @property
    def view(self) -> api.Request:
        """The request, as filters see it."""
        view = self._view
        if view is None:
            connection = connection_of(self.client)
            view = self._view = api.Request(self.request, connection, IncomingBody(self), self, self.entry.route.name)
        return view

    def resume(self, left: FilterResult) -> None:
        """Go on behind the filters that have seen the request on the fast path, the last of which returned or raised this."""
        self._at = left.at + 1
        self._pending = []
        self._active = [(program, program.hooks) for program in self.target.programs[: self._at] if program.hooks is not None]
        for _, hooks in self._active:
            hooks.acquire()
        program, hooks = self._active[-1]
        if left.error is not None:
            goes_on = self._calls.failed(program, hooks, left.error)
        elif left.result is not None:
            goes_on = self._calls.judge((program, hooks), hooks.request, left.result, self._requested)
        else:
            goes_on = True
        if goes_on:
            self.run_filters()

    def take_over(self, handover: Handover) -> None:
        if handover.request is not None:
            self._adopt(handover.request)
        super().take_over(handover)
        if self._is_watched:
            self.read_in_full()
        shown = self._shown = handover.response
        if handover.status_class and shown is not None and shown.reply is not None:
            self._reply = shown.reply
            self._status = shown.reply.status
            self._octets = shown.octets

    def _adopt(self, seen: SeenRequest) -> None:
        """All filters have seen the request on the fast path; now it is this exchange's."""
        self._active = [*seen.active]
        self._at = len(seen.active)
        self._ready = True
        view = self.view
        seen.pass_to(view)
        self.request = view.raw()
        self._watch_for(self.request)

    def run_filters(self) -> None:
        view = self.view
        while True:
            if self._at == self.entry.route.shared and self._chosen is not None:
                self.target = self._chosen
            if self._at >= len(self.target.programs):
                break
            program = self.target.programs[self._at]
            self._at += 1
            hooks = program.hooks
            if hooks is None:
                if program.passes:
                    continue
                self.refuse(500, f"the filter {program.name} cannot be used")
                return
            hooks.acquire()
            self._active.append((program, hooks))
            if hooks.request is not None and not self._calls.call((program, hooks), hooks.request, (view,), self._requested):
                return
        self._send_on()

    def _requested(self, made: Any) -> bool:
        """What a filter's `request` returned; whether the request goes on."""
        if made is None:
            return True
        self._ready = True
        self._reply = made
        self._back(len(self._active) - 2)  # those that saw it before see the answer
        return False

    @property
    def choices(self) -> tuple[str, ...]:
        """The rule's backends, by every name."""
        return tuple(self.entry.route.choices)

    def choose(self, service: str, key: str | None) -> None:
        """Steering: to one of the rule's backends."""
        choices = self.entry.route.choices
        if service not in choices:
            known = ", ".join(sorted({target.backend.name for target in choices.values() if target.backend is not None}))
            raise LookupError(f"{service!r} is none of this rule's backends ({known or 'there are none'})")
        self._chosen = choices[service]
        self._key = key

    def _send_on(self) -> None:
        view = self._view
        assert view is not None
        self._ready = True
        if self._chosen is not None:
            self.target = self._chosen
        framed_by_client = self.request.length
        request = view.raw()
        if self._is_invited:
            request = unexpecting(request)
        if self.entry.route.grpc and grpc_web.is_asked(request) and any(hooks.request_body for _, hooks in self._active):
            self.give_up(415, "a filter wants to see what comes in, and cannot read gRPC-Web")
            return
        taken, self._pending = self._pending or [], []
        if any(hooks.request_body for _, hooks in self._active) and (request.length > 0 or request.length == CHUNKED):
            self._replay, self._body = [], 0
            self._loose = True
            self._inward = ChunkPipeline(self._through_request, self._deliver, self._calls.later_chunk)
            request = open_ended(request)
        elif view.replaced is not None:
            self._loose = False
            self._pending = [view.replaced] if view.replaced else []
            self._replay, self._body = list(self._pending), len(view.replaced)
            self._discards = True
        else:
            self._pending = taken
        self.request = request
        self._watch_for(request)
        if self._inward is not None:
            self._feed_what_came(view.replaced, taken, framed_by_client)
        self._go_on_without_readers()
        if not self._status:  # nobody has refused it
            super().proceed()

    def _go_on_without_readers(self) -> None:
        """From now on the body passes as fast as the backend takes it; whoever still wanted to read it is too late."""
        self._has_gone_on = True
        if self._request_readers:
            self._request_readers.fail(GoneOnError("the request's body has gone on while it was awaited"))

    def _watch_for(self, request: Request) -> None:
        """Say who looks at the answer."""
        self._is_watched = any(hooks.response or hooks.response_body or hooks.log for _, hooks in self._active)
        if any(hooks.response or hooks.response_body for _, hooks in self._active):
            self.wants_payload = True
            self._reframes = self.client.is_framed and not request.http10

    def _feed_what_came(self, replaced: bytes | None, taken: list[bytes], framed_by_client: int) -> None:
        assert self._inward is not None
        if replaced is not None:
            self._discards = True
            self._inward.feed(replaced, True)
            return
        if self.client.is_framed and framed_by_client == CHUNKED:
            self._decoder = Chunks()
        for data in taken:
            self._inward.feed(self._decoded(data), False)
        if self.request_done:
            self._inward.feed(b"", True)

    def _next(self, target: Target) -> Endpoint | None:
        if self._key is None:
            return super()._next(target)
        return target.endpoints.of(self._key.encode(), name_of)

    # --- the request's body ---

    def data(self, data: bytes) -> None:
        if self._discards:
            return
        if self._inward is not None:
            self._inward.feed(self._decoded(data), self.request_done and self.client.is_framed)
            if self._inward.owed > self.client.limits.buffered_bytes:
                self.client.pause_reading()
            return
        super().data(data)
        self._look_for_whole(done=self.request_done and self.client.is_framed)

    def end(self, trailers: list[Field] | None = None) -> None:
        self.request_done = True
        if self._discards:
            self.answers = self._answers
        elif self._inward is None:
            super().end(trailers)
            if not self.client.is_framed:
                self._look_for_whole(done=True)
        elif not self.client.is_framed:  # otherwise its last bytes follow
            self._request_trailers = self.passing(trailers) if trailers else None
            self._inward.feed(b"", True)

    def passing(self, trailers: list[Field]) -> list[Field]:
        view = self._view
        return [] if view is None or view.is_changed else super().passing(trailers)

    @property
    def is_sent(self) -> bool:
        return self.request_done and (self._inward is None or self._inward.is_done)

    @property
    def _is_awaited(self) -> bool:
        return bool(self._request_readers) or super()._is_awaited

    def _decoded(self, data: bytes) -> bytes:
        if self._decoder is None:
            return data
        self._decoder.feed(data)
        return self._decoder.taken()

    def _through_request(self, data: bytes, last: bool) -> bytes | Awaitable[bytes]:
        assert self._view is not None
        return self._calls.through("request_body", self._active, api.Chunk(data, last, self._view))

    def _deliver(self, data: bytes, last: bool) -> None:
        if data:
            super().data(data)
        if last:
            super().end(self._request_trailers)
        elif self._inward is not None and not self._inward.owed:
            self._want_more()

    def read_request(self, limit: int) -> asyncio.Future[bytes]:
        """The whole body, once it is there. Raises GoneOnError once it is on its way to the backend."""
        if self._has_gone_on and self.request.length:
            raise GoneOnError("the request's body has gone on; only `request` can read it")
        if self._request_readers is None:
            self._request_readers = AwaitedBody(413)
        future = self._request_readers.read(limit)
        self._look_for_whole(done=self.request_done)
        if not self.request_done and not future.done():
            if not self._is_invited and any(field.kind == EXPECT for field in self.request.special):
                self._is_invited = True
                self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.client.resume_reading()
        return future

    def _look_for_whole(self, *, done: bool) -> None:
        readers = self._request_readers
        if not readers:
            return
        # What comes in chunks has framing, which is not yet known to be little.
        readers.refuse(lambda limit: self.request.length > limit or self._body > limit + (limit >> 3) + 1024)
        if done and readers:
            readers.give(self.body_so_far())

    # --- the response's head ---

    def _pass_on(self, response: Response, head: bytes) -> None:
        self._length = response.length
        if head and self.target.is_filtered and self.target.edit_response is None:
            self._keep_for_next(response, head)
        shown, self._shown = self._shown, None
        left = shown.left if shown is not None else None
        if shown is not None and left is not None:
            self._reply = shown.taken(response, OutgoingBody(self))
        else:
            self._reply = api.Response.received(response, OutgoingBody(self))
        if not any(hooks.response or hooks.response_body for _, hooks in self._active):
            super()._pass_on(response, b"")
            return
        self._waiting = []
        if left is None:
            self._back(len(self._active) - 1)
        elif left.error is not None:
            if self._calls.failed(*self._active[left.at], left.error):
                self._back(left.at - 1)
        else:
            self._goes_back(left.at, left.result)

    def _keep_for_next(self, response: Response, head: bytes) -> None:
        """Remember a head as it is without filters: the next one like it can be shown to them on the fast path."""
        bodiless = self.head_only or response.status in (204, 304)
        if response.length >= 0 and response.keep_alive and not bodiless and head not in self.target.answers.known:
            out = forwarding.response_head(response, None, b"", dechunked=False)
            self.target.answers.remember(head, out, response.length, response.status)

    def _back(self, index: int) -> None:
        """The filters that saw the request look at the response, from this one back to the first."""
        while index >= 0:
            active = self._active[index]
            hook = active[1].response
            index -= 1
            if hook is not None and not self._calls.call(
                active, hook, (self._view, self._reply), self._responded, partial(self._back, index)
            ):
                return
        self._answer_on()

    def _responded(self, made: Any) -> bool:
        """What a filter's `response` returned; the response goes on in any case."""
        if made is not None:
            self._reply = made
        return True

    def _goes_back(self, index: int, result: Any) -> None:
        """Go on with the response behind the filter that returned this."""
        active = self._active[index]
        if self._calls.judge(active, active[1].response, result, self._responded, partial(self._back, index - 1)):
            self._back(index - 1)

    def _answer_on(self) -> None:
        """The response as the filters left it."""
        reply = self._reply
        assert reply is not None
        if self._waiting is None:
            self._answer_here(reply)
            return
        response, content = reply.raw(), reply.content
        bodiless = self.head_only or response.status in (204, 304)
        taking = [one for one in self._active if one[1].response_body is not None]
        if taking and not bodiless and response.length != 0:
            response = open_response(response, framed=self._reframes)
            self._outward = ChunkPipeline(self._through_response, self._deliver_response, self._calls.later_chunk)
        self._frames = self._reframes and response.length == CHUNKED and not bodiless and self._web is None
        waited, self._waiting = self._waiting, None
        if self._response_readers:
            self._response_readers.fail(GoneOnError("the response's body has gone on while it was awaited"))
        super()._pass_on(response, b"")
        if content is not None:
            self._drops = True
            if self._outward is not None:
                self._outward.feed(content, True)
            elif content and not bodiless:
                self._write(content)
        if self.peer is not None:
            if content is not None and not 0 <= self._length <= DRAINED:
                self._close_peer()  # what it still sends, perhaps for ever, is not wanted
                waited = [None]
            else:
                self.peer.resume_reading()
        for data in waited:
            if data is None:
                self.response_end()
            else:
                self.response_data(data)
        if not waited:
            self.flush()

    def _answer_here(self, reply: api.Response) -> None:
        """A filter has answered, and no backend was asked."""
        close = self._closes
        keep_10 = self.request.http10 and not close
        self._pending = None
        self._status = reply.status
        self._started = True
        lines = [field.line for field in reply.headers.fields]
        content = reply.content or b""
        self._octets = len(content)
        self.client.write(whole(reply.status, lines, content, close=close, head_only=self.head_only, keep_alive_10=keep_10))
        self._finish(reuse=not close)

    # --- the response's body ---

    def response_data(self, data: bytes) -> None:
        if self._waiting is not None:
            self._waiting.append(data)
            self._look_for_whole_response(done=False)
            if not self._response_readers and self.peer is not None:
                self.peer.pause_reading()
        elif self._drops:
            return
        elif self._outward is not None:
            self._outward.feed(data, False)
            if self._outward.owed > self.client.limits.buffered_bytes and self.peer is not None:
                self.peer.pause_reading()
        else:
            self._write(data)

    def continued(self, data: bytes | memoryview) -> None:
        """A piece from the middle of a large body: filters see that as well."""
        if self._waiting is not None or self._drops or self._outward is not None or self._frames:
            self.response_data(bytes(data))
        else:
            self._octets += len(data)
            super().continued(data)

    def _write(self, data: bytes) -> None:
        self._octets += len(data)
        super().response_data(chunk(data) if self._frames and data else data)

    def flush(self) -> None:
        if self._waiting is None:
            super().flush()

    def response_trailers(self, fields: list[Field]) -> None:
        if self._frames or self._waiting is not None or self._outward is not None:
            self._trailers = fields
        else:
            super().response_trailers(fields)

    def response_end(self) -> None:
        if self._waiting is not None:
            self.peer = None
            self._waiting.append(None)
            self._look_for_whole_response(done=True)
            return
        self.peer = None
        self._is_over = True
        if self._outward is not None and not self._drops:
            self._outward.feed(b"", True)
        elif self._outward is None or self._outward.is_done:
            self._end_response()

    def _end_response(self) -> None:
        if self._frames:
            super().response_data(last_chunk(self._trailers))
        elif self._trailers and (self._web is not None or not self.client.is_framed):
            super().response_trailers(self._trailers)
        super().response_end()

    def response_lost(self, reason: str, *, clean: bool, untouched: bool = False) -> None:
        if clean and (self._waiting is not None or self._outward is not None):
            self.response_end()  # the connection's end is the body's
        elif self._waiting is not None:
            self.peer = None
            self.refuse(502, "the backend closed the connection before it was done")
        else:
            super().response_lost(reason, clean=clean, untouched=untouched)

    def _through_response(self, data: bytes, last: bool) -> bytes | Awaitable[bytes]:
        assert self._view is not None
        return self._calls.through("response_body", self._active[::-1], api.Chunk(data, last, self._view, self._reply))

    def _deliver_response(self, data: bytes, last: bool) -> None:
        if data:
            self._write(data)
        if last:
            if self._is_over:  # otherwise the backend still speaks, though nobody listens
                self._end_response()
        elif self._outward is not None and not self._outward.owed and self.peer is not None and self.client.takes_more:
            self.peer.resume_reading()

    def read_response(self, limit: int) -> asyncio.Future[bytes]:
        """The whole body of the backend's response, once it is there. Raises GoneOnError once it goes to the client."""
        if self._waiting is None and self._length:
            raise GoneOnError("the response's body has gone on; only `response` can read it")
        if self._response_readers is None:
            self._response_readers = AwaitedBody(502)
        future = self._response_readers.read(limit)
        self._look_for_whole_response(done=self._waiting is None or None in self._waiting)
        if self.peer is not None and not future.done():
            self.peer.resume_reading()
        return future

    def _look_for_whole_response(self, *, done: bool) -> None:
        readers = self._response_readers
        if not readers:
            return
        waiting = [data for data in self._waiting or () if data is not None]
        octets = sum(map(len, waiting))
        readers.refuse(lambda limit: octets > limit)
        if done and readers:
            readers.give(b"".join(waiting))

    def give_up(self, status: int, reason: str) -> None:
        self._ready = True
        self._waiting = None
        self.refuse(status, reason)

    # --- the end ---

    def _settle(self, status: int) -> None:
        super()._settle(status)
        for passage in (self._inward, self._outward):
            if passage is not None:
                passage.stop()
        self._calls.cancel()
        for readers in (self._request_readers, self._response_readers):
            if readers:
                readers.fail(GoneOnError("the exchange is over"))
        if self._view is None:
            return
        for program, hooks in self._active:
            if hooks.log is None or not self._log(program, hooks, status):
                hooks.forget(self._view)
                hooks.release()

    def _log(self, program: FilterProgram, hooks: Hooks, status: int) -> bool:
        """Tell a filter that the exchange is over; True where it takes longer."""
        assert self._view is not None
        over = api.Exchange(
            self._view, self._reply, status, started=self._began, seconds=monotonic() - self._since,
            response_bytes=self._octets, backend=self.target.backend.name if self.target.backend is not None else "",
            endpoint=self._endpoint.name if self._endpoint is not None else "",
        )  # fmt: skip
        return tell(program, hooks, over, self._view)
