"""An exchange in which filters take part: functions of the request, its body, the response, its body, and the end.

Filters see requests in the order in which the rule names them, and responses the other way round. Each function answers
at once or later; what comes meanwhile waits, and who sends it is not read beyond what may wait. The filters of the
Gateway API change the heads that go out, after all of these.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any

from gateway.filters import api
from gateway.http import forwarding
from gateway.http.forwarding import unexpecting
from gateway.http.http1 import CHUNKED, Field, Request, Response
from gateway.http.local_replies import whole
from gateway.interfaces import DownstreamPeer, Endpoint
from gateway.proxy import grpc_web
from gateway.proxy.client_response import ResponseFraming
from gateway.proxy.exchange import Exchange
from gateway.proxy.filter_calls import FilterCalls, tell
from gateway.proxy.filtered_bodies import FilteredRequestBody, FilteredResponseBody, open_response
from gateway.proxy.handover import FilterResult, Handover, ResponseShown, SeenRequest
from gateway.proxy.route import Route, Target
from gateway.routing.table import RouteMatch
from gateway.scripting.chunk_pipeline import ChunkPipeline
from gateway.scripting.hooks import Hooks
from gateway.scripting.listener_filters import connection_of
from gateway.scripting.program import ActiveFilter, FilterProgram
from gateway.upstream.backend import Backend


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
        "_key",
        "_ready",
        "_reply",
        "_shown",
        "_view",
        "filtered_request",
        "filtered_response",
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
        self.filtered_request = FilteredRequestBody(self)
        # The response.
        self._reply: api.Response | None = None
        self.filtered_response = FilteredResponseBody(self)
        self._shown: ResponseShown | None = None  # what of it filters were shown on the fast path

    # --- the request's head ---

    def proceed(self) -> None:
        if self._ready:
            super().proceed()
            return
        if not self._at:
            self.request_body.wait()
        self.run_filters()

    @property
    def view(self) -> api.Request:
        """The request, as filters see it."""
        view = self._view
        if view is None:
            connection = connection_of(self.client)
            view = self._view = api.Request(self.request, connection, self.filtered_request, self, self.entry.route.name)
        return view

    def resume(self, left: FilterResult) -> None:
        """Go on behind the filters that have seen the request on the fast path, the last of which returned or raised this."""
        self._at = left.at + 1
        self.request_body.wait()
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
            self.filtered_response.octets = shown.octets

    def _adopt(self, seen: SeenRequest) -> None:
        """All filters have seen the request on the fast path; now it is this exchange's."""
        self._active = [*seen.active]
        self._at = len(seen.active)
        self._ready = True
        view = self.view
        seen.pass_to(view)
        self.request = view.raw()
        self._watch()

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

    def _requested(self, result: Any) -> bool:
        """What a filter's `request` returned; whether the request goes on."""
        if result is None:
            return True
        self._ready = True
        self._reply = result
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
        request = view.raw()
        if self.filtered_request.is_invited:
            request = unexpecting(request)
        sees_content = any(hooks.request_body for _, hooks in self._active)
        if self.entry.route.grpc and grpc_web.is_asked(request) and sees_content:
            self.give_up(415, "a filter wants to see what comes in, and cannot read gRPC-Web")
            return
        self._watch()
        pipeline = None
        if sees_content and (request.length > 0 or request.length == CHUNKED):
            pipeline = ChunkPipeline(self._through_request, self._deliver_request, self._calls.later_chunk)
        self.filtered_request.go_on(request, view.replaced, pipeline)
        if not self._status:  # nobody has refused it
            super().proceed()

    def _watch(self) -> None:
        """Say who looks at the answer."""
        self._is_watched = any(hooks.response or hooks.response_body or hooks.log for _, hooks in self._active)
        if any(hooks.response or hooks.response_body for _, hooks in self._active):
            if self.client_response.framing is ResponseFraming.KEPT:
                self.client_response.framing = ResponseFraming.ANEW

    def _next(self, target: Target) -> Endpoint | None:
        if self._key is None:
            return super()._next(target)
        return target.endpoint_for(self._key.encode())

    # --- the request's body ---

    def data(self, data: bytes) -> None:
        content, is_last = self.filtered_request, self.request_done and self.client.is_framed
        if content.is_replaced:
            return
        if content.is_changed:
            content.feed(data, is_last=is_last)
        else:
            super().data(data)
            content.give_to_readers(is_whole=is_last)

    def end(self, trailers: list[Field] | None = None) -> None:
        content = self.filtered_request
        self.request_done = True
        if content.is_replaced:
            self._take_known_heads()
        elif not content.is_changed:
            super().end(trailers)
            if not self.client.is_framed:
                content.give_to_readers(is_whole=True)
        elif not self.client.is_framed:  # otherwise its last octets follow
            self.request_body.trailers = trailers
            content.feed(b"", is_last=True)

    def passing(self, trailers: list[Field]) -> list[Field]:
        view = self._view
        return [] if view is None or view.is_changed else super().passing(trailers)

    @property
    def is_sent(self) -> bool:
        content = self.filtered_request
        return (self.request_done or content.is_replaced) and content.is_passed

    @property
    def _is_awaited(self) -> bool:
        return self.filtered_request.is_awaited or super()._is_awaited

    def _through_request(self, data: bytes, last: bool) -> bytes | Awaitable[bytes]:
        assert self._view is not None
        return self._calls.through("request_body", self._active, api.Chunk(data, last, self._view))

    def _deliver_request(self, data: bytes, last: bool) -> None:
        if data:
            super().data(data)
        if last:
            self._end_content(self.request_body.trailers)
        elif not self.filtered_request.owes:
            self._want_more()

    # --- the response's head ---

    def _pass_on(self, response: Response, head: bytes) -> None:
        self.filtered_response.length = response.length
        if head and self.target.is_filtered and self.target.edit_response is None:
            self._keep_for_next(response, head)
        shown, self._shown = self._shown, None
        left = shown.left if shown is not None else None
        if shown is not None and left is not None:
            self._reply = shown.taken(response, self.filtered_response)
        else:
            self._reply = api.Response.received(response, self.filtered_response)
        if not any(hooks.response or hooks.response_body for _, hooks in self._active):
            super()._pass_on(response, b"")
            return
        self.filtered_response.hold()
        if left is None:
            self._back(len(self._active) - 1)
        elif left.error is not None:
            if self._calls.failed(*self._active[left.at], left.error):
                self._back(left.at - 1)
        else:
            self._goes_back(left.at, left.result)

    def _keep_for_next(self, response: Response, head: bytes) -> None:
        """Remember a head as it is without filters: the next one like it can be shown to them on the fast path."""
        bodiless = self.client_response.is_bodiless(response.status)
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

    def _responded(self, result: Any) -> bool:
        """What a filter's `response` returned; the response goes on in any case."""
        if result is not None:
            self._reply = result
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
        if not self.filtered_response.is_held:
            self._answer_with(reply)
            return
        response, pipeline = reply.raw(), None
        is_bodiless = self.client_response.is_bodiless(response.status)
        if response.length != 0 and not is_bodiless and any(hooks.response_body for _, hooks in self._active):
            response = open_response(response, framed=self.client_response.framing is ResponseFraming.ANEW)
            pipeline = ChunkPipeline(self._through_response, self.filtered_response.deliver, self._calls.later_chunk)
        content = b"" if reply.content and is_bodiless else reply.content
        held = self.filtered_response.release(pipeline)
        super()._pass_on(response, b"")
        self.filtered_response.go_on(held, content)

    def _answer_with(self, reply: api.Response) -> None:
        """A filter has answered, and no backend was asked."""
        close = self.closes_if_answered_here
        keep_10 = self.request.http10 and not close
        lines = [field.line for field in reply.headers.fields]
        content = reply.content or b""
        self.filtered_response.octets = len(content)
        message = whole(reply.status, lines, content, close=close, head_only=self.head_only, keep_alive_10=keep_10)
        self.answer_here(reply.status, message)

    # --- the response's body ---

    def response_data(self, data: bytes) -> None:
        self.filtered_response.feed(data)

    def continued(self, data: bytes | memoryview) -> None:
        """A piece from the middle of a large body: filters see that as well."""
        if self.filtered_response.is_seen or self.client_response.frames:
            self.response_data(bytes(data))
        else:
            self.filtered_response.octets += len(data)
            super().continued(data)

    def flush(self) -> None:
        if not self.filtered_response.is_held:
            super().flush()

    def response_trailers(self, fields: list[Field]) -> None:
        self.filtered_response.trailers(fields)

    def response_end(self) -> None:
        self.filtered_response.end()

    def finish_response(self) -> None:
        """The client has got all of it."""
        super().response_end()

    def response_lost(self, reason: str, *, clean: bool, untouched: bool = False) -> None:
        if clean and self.filtered_response.needs_end:
            self.response_end()  # the connection's end is the body's
        elif self.filtered_response.is_held:
            self.peer = None
            self.refuse(502, "the backend closed the connection before it was done")
        else:
            super().response_lost(reason, clean=clean, untouched=untouched)

    def _through_response(self, data: bytes, last: bool) -> bytes | Awaitable[bytes]:
        assert self._view is not None
        return self._calls.through("response_body", self._active[::-1], api.Chunk(data, last, self._view, self._reply))

    def give_up(self, status: int, reason: str) -> None:
        self._ready = True
        self.filtered_response.drop()
        self.refuse(status, reason)

    # --- the end ---

    def _settle(self, status: int) -> None:
        super()._settle(status)
        self._calls.cancel()
        self.filtered_request.settle()
        self.filtered_response.settle()
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
            response_bytes=self.filtered_response.octets,
            backend=self.target.backend.name if self.target.backend is not None else "",
            endpoint=self._endpoint.name if self._endpoint is not None else "",
        )  # fmt: skip
        return tell(program, hooks, over, self._view)
