"""A rule, prepared: everything that the request path needs of it, looked up once.

Backends and counters outlive the rules that use them: endpoints change in place, and counts go on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from gateway.filters import cors, header_modifier, mirror, redirect, rewrite
from gateway.http import grammar
from gateway.http.forwarding import response_head
from gateway.http.head_templates import ResponseShape, weave
from gateway.http.http1 import LONG_HEAD, Edit, Field, parse_response
from gateway.interfaces import Endpoint
from gateway.scripting.program import ActiveFilter, FilterProgram
from gateway.snapshot import (
    Cors,
    ExternalAuth,
    Fault,
    Filter,
    Mirror,
    Persistence,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Retry,
    Rewrite,
    Rule,
    Scripted,
)
from gateway.transport.timeout_queue import TimeoutQueue
from gateway.upstream.backend import Backend
from gateway.upstream.load_balancing import EndpointPicker, WeightedSplit
from gateway.upstream.session_persistence import Sessions

HEADS: Final = 1024  # response heads remembered

Programs: TypeAlias = Callable[[str], FilterProgram]  # by name


class Counter:
    """What happened at one target of one rule; survives changes of the rule."""

    __slots__ = ("responses", "seconds")

    def __init__(self) -> None:
        # Responses by the hundreds of their status and by duration: at 32 * hundreds + n those under 2**n * 0.5 ms. A
        # dictionary, as most of these never come, and there are thousands of counters.
        self.responses: defaultdict[int, int] = defaultdict(int)
        self.seconds = 0.0

    def count(self, status_class: int, seconds: float) -> None:
        """One response. 2**31 * 0.5 ms are twelve days: none takes longer."""
        self.responses[(status_class << 5) + int(seconds * 2000).bit_length()] += 1
        self.seconds += seconds

    @property
    def classes(self) -> list[int]:
        """Responses by the hundreds of their status."""
        counts = [0] * 6
        for key, count in self.responses.items():
            counts[key >> 5] += count
        return counts

    @property
    def slots(self) -> list[int]:
        """Responses by duration: slot n counts those under 2**n * 0.5 ms and not under half of that."""
        counts = [0] * 32
        for key, count in self.responses.items():
            counts[key & 31] += count
        return counts


class ResponseHeadCache:
    """Response heads that passed once: what was sent on for them. One for all targets that leave responses alone."""

    __slots__ = ("_never", "_woven", "edit", "known")

    def __init__(self, edit: Edit | None, never: frozenset[int] = frozenset()) -> None:
        self.edit = edit
        self._never = never  # statuses that somebody must look at each time
        self.known: dict[bytes, tuple[bytes, int, int]] = {}  # head: (what goes on, length of the whole, status // 100)
        self._woven: dict[ResponseShape, Callable[[bytes], bytes | None]] = {}

    def remember(self, head: bytes, out: bytes, length: int, status: int) -> None:
        """A head, what went on for it, and the length of its body."""
        if len(head) < LONG_HEAD and status not in self._never:
            if len(self.known) >= HEADS:
                self.known.clear()
            self.known[head] = (out, len(head) + length, status // 100)

    def fill(self, shape: ResponseShape, varying: bytes) -> bytes | None:
        """What goes on for a head of this shape; None where it must be parsed."""
        if shape.status in self._never:
            return None
        woven = self._woven.get(shape)
        if woven is None:
            if len(self._woven) >= HEADS:
                self._woven.clear()
            block = response_head(parse_response(shape.model()), self.edit, b"", dechunked=False)
            woven = self._woven[shape] = weave(shape, block)
        return woven(varying)


Taken: TypeAlias = tuple[list[ActiveFilter], bool]
NOBODY_YET: Final[Taken] = ([], False)  # one for all: there are thousands of targets


class Target:
    """A prepared target: everything that the request path needs, looked up once."""

    __slots__ = (
        "answers",
        "auths",
        "backend",
        "cors",
        "counter",
        "edit_request",
        "edit_response",
        "endpoints",
        "fault",
        "hashed",
        "is_direct",
        "is_filtered",
        "is_plain",
        "location",
        "mirrors",
        "programs",
        "reason",
        "redirect_status",
        "rewrite",
        "sessions",
        "taken",
    )  # fmt: skip

    def __init__(
        self,
        filters: tuple[Filter, ...],
        backend: Backend | None,
        counter: Counter,
        programs: Programs,
        retry: Retry | None = None,
    ) -> None:
        self.backend = backend
        self.endpoints = backend.endpoints if backend is not None else NOBODY
        self.counter = counter
        self.hashed = False  # a client's requests go to the same endpoint
        self.sessions: Sessions | None = None
        self.fault = 0
        self.reason = ""
        self.location: redirect.Location | None = None
        self.redirect_status = 302
        self.rewrite: rewrite.Rewritten | None = None
        self.mirrors: tuple[tuple[Callable[[], bool], str], ...] = ()
        self.cors: cors.CorsPolicy | None = None
        self.auths: tuple[ExternalAuth, ...] = ()  # all of them are asked, in order: the listener's, the rule's, the backend's
        self.programs: tuple[FilterProgram, ...] = ()
        self.taken = NOBODY_YET  # see `take`
        on_request: list[Edit] = []
        on_response: list[Edit] = []
        for spec in filters:
            match spec:
                case RequestHeaders():
                    on_request.append(header_modifier.build(spec))
                case ResponseHeaders():
                    on_response.append(header_modifier.build(spec))
                case Redirect():
                    self.location, self.redirect_status = redirect.build(spec), spec.status
                case Rewrite():
                    self.rewrite = rewrite.build(spec)
                case Mirror():
                    self.mirrors += ((mirror.build(spec), spec.backend),)
                case Cors():
                    self.cors = cors.build(spec)
                case ExternalAuth():
                    grammar.path(spec.path)
                    self.auths += (spec,)
                case Scripted():
                    self.programs += (programs(spec.script),)
                case Fault():
                    self.fault, self.reason = spec.status, spec.reason
        if any(isinstance(spec, Fault) for spec in filters):
            self.location = self.cors = None  # nobody passes, whatever else would answer
        self.edit_request = _chain(on_request)
        self.edit_response = _chain(on_response)
        codes = frozenset(retry.codes) if retry is not None and retry.attempts else frozenset[int]()
        self.answers = ResponseHeadCache(self.edit_response, codes) if on_response or codes else UNEDITED
        self.is_direct = False  # see `settle`
        self.is_filtered = False
        self.is_plain = False

    def settle(self, *, timed: bool, looked_at: bool) -> None:
        """Say what kind it is, once all is known of it. `looked_at`: who asks decides where the request goes."""
        # Requests are passed on, not answered here.
        is_open = self.location is None and not self.fault and self.cors is None and not self.auths
        self.is_direct = is_open and not looked_at and not self.programs
        # As before, and besides filters in Python nobody looks at the request.
        is_simple = is_open and not looked_at and self.rewrite is None and not self.mirrors and not timed
        self.is_filtered = is_simple and bool(self.programs)
        # As before, and only the fields of their heads are changed, and nobody looks at the clock.
        self.is_plain = self.is_direct and self.rewrite is None and not self.mirrors and not timed

    def endpoint_for(self, key: bytes) -> Endpoint | None:
        """The same endpoint for the same key, as long as there is one."""
        return self.endpoints.of(key, name_of)

    def take(self) -> Taken:
        """The programs with the code that is in force, and whether any looks at answers; nobody, where not all can see
        requests on the fast path. Kept in `taken` until other code is in force."""
        taking = [(program, hooks) for program in self.programs if (hooks := program.hooks) is not None and hooks.is_quick]
        looks_back = any(hooks.response is not None or hooks.log is not None for _, hooks in taking)
        # Filters see an answer before it is edited.
        if len(taking) < len(self.programs) or (looks_back and self.edit_response is not None):
            taking = []
        self.taken = taking, looks_back
        return self.taken


def name_of(endpoint: Endpoint) -> str:
    """By which an endpoint is told from others."""
    return endpoint.name


NO_CHOICES: Final[dict[str, Target]] = {}  # one for all rules without filters in Python
NOBODY: Final[EndpointPicker[Endpoint]] = EndpointPicker()
UNEDITED: Final = ResponseHeadCache(None)


def _chain(edits: list[Edit]) -> Edit | None:
    if len(edits) <= 1:
        return edits[0] if edits else None

    def edit(fields: list[Field]) -> list[Field]:
        for change in edits:
            fields = change(fields)
        return fields

    return edit


class Route:
    """A prepared rule."""

    __slots__ = (
        "backend_timeout", "choices", "grpc", "is_programmed", "name", "request_timeout", "retry", "shared", "timeouts",
        "turns",
    )  # fmt: skip

    def __init__(
        self,
        rule: Rule,
        backends: Callable[[str], Backend],
        counters: Callable[[str, str], Counter],
        programs: Programs,
        phase: float,
    ) -> None:
        self.name = rule.name
        self.retry = rule.retry
        self.grpc = rule.grpc
        self.request_timeout = rule.timeouts.request
        self.backend_timeout = rule.timeouts.backend_request
        # While there has been one attempt, the shorter of the two decides.
        given = [seconds for seconds in (self.request_timeout, self.backend_timeout) if seconds]
        self.timeouts = TimeoutQueue(min(given)) if given else None
        targets, weights = _targets(rule, backends, counters, programs)
        _give_sessions(rule, targets)
        for target in targets:
            target.settle(timed=self.timeouts is not None, looked_at=target.sessions is not None or target.hashed)
        self.turns = WeightedSplit(targets, weights, phase=phase).turns
        # What filters in Python need.
        self.is_programmed = any(target.programs for target in targets)
        self.shared = sum(isinstance(spec, Scripted) for spec in rule.filters)  # programs that every target has, first of all
        self.choices = _choices(targets) if self.is_programmed else NO_CHOICES


def _targets(
    rule: Rule, backends: Callable[[str], Backend], counters: Callable[[str, str], Counter], programs: Programs
) -> tuple[list[Target], list[int]]:
    """The targets of a rule, and the weight of each; at least one has one."""
    targets: list[Target] = []
    weights: list[int] = []
    for spec in rule.targets:
        backend = backends(spec.backend) if spec.backend else None
        counter = counters(rule.name, spec.backend or spec.written)
        target = Target(rule.filters + spec.filters, backend, counter, programs, rule.retry)
        target.hashed = spec.hashed
        if spec.fault:
            target.fault, target.reason = spec.fault, spec.reason
        targets.append(target)
        weights.append(spec.weight)
    if not any(weights):
        # No backendRefs, or none with a weight: 500, unless a filter answers (HTTPRouteRule.backendRefs).
        target = Target(rule.filters, None, counters(rule.name, ""), programs)
        if not target.fault:
            target.fault, target.reason = 500, "this rule has no backend to send the request to"
        return [target], [1]
    return targets, weights


def _give_sessions(rule: Rule, targets: list[Target]) -> None:
    """Those of the rule, to targets whose backends have none of their own. Those are the same whatever rule leads there, and
    backends that ask for the same share the cookie or header."""
    alike: dict[tuple[str, Persistence], list[Target]] = {}
    for target, spec in zip(targets, rule.targets, strict=False):  # without a weight there is one that is nobody's
        asked = spec.persistence or rule.persistence
        if asked is not None and target.backend is not None:
            alike.setdefault(("" if spec.persistence else rule.name, asked), []).append(target)
    for (owner, asked), several in alike.items():
        backends = dict.fromkeys(target.backend for target in several if target.backend is not None)
        sessions = Sessions(owner, asked, tuple(backends))
        for target in several:
            target.sessions = sessions


def _choices(targets: Iterable[Target]) -> dict[str, Target]:
    """Targets by every spelling of their backends."""
    choices: dict[str, Target] = {}
    for target in targets:
        if target.backend is not None:
            for word in _spellings(target.backend.name):
                choices.setdefault(word, target)
    return choices


def _spellings(backend: str) -> tuple[str, ...]:
    """What people may call namespace/name:port."""
    whole = backend.partition(" ")[0]
    without_port = whole.rpartition(":")[0] or whole
    return whole, without_port, whole.partition("/")[2], without_port.partition("/")[2]
