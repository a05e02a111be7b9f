"""A client's repeated head, together with where it leads: what a shortcut reads in place of parsing.

A template is valid for any table: it looks up anew what a swap may have changed, and nothing else. Request lines
are remembered by the virtual host (one Host of one table), in a variant for each combination of conditions on header fields
that holds; a template's fixed fields meet them or do not once and for all, and what its slots hold is looked up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from gateway.http.forwarding import request_fields
from gateway.http.head_templates import ADDRESS, Composition, Shape, composition, mark, pieces, slots_of, with_marks
from gateway.http.http1 import (
    EXPECT,
    FOLDED,
    FORWARDED_FOR,
    HOST,
    LENGTH,
    NO_LENGTH,
    Edit,
    Field,
    Request,
    is_host,
    parse_line,
    parse_request,
    request_start,
)
from gateway.proxy.route import Route, Target
from gateway.routing.table import HeaderVariant, RouteDecision, Table, VirtualHost
from gateway.snapshot import Limits

LESSONS: Final = 32  # heads from which a connection learns; one that is different every time is parsed in full
VARIANTS: Final = 4096  # combinations of Host and of values in slots that a template remembers
COMPOSED: Final = 64  # ways to compose (one for each set of request filters) that it remembers
SEVERAL: Final = -1  # in place of a slot's number: there are more lines of this name
KEPT: Final = 256  # templates shared between connections
RECENT: Final = 16  # of them, among which a new connection looks for its own; a look at each is a hundredth of a parse

_FIRST = b"GET / HTTP/1.1"
_PASSED = Limits(fields=1 << 30)  # a template's head has passed its listener's limits


class Template(Shape):
    """A request head that repeats, with where its request lines lead.

    Shared by all connections of a port that send this head.
    """

    __slots__ = (
        "_as_values",
        "_host",
        "_host_slot",
        "_known",
        "_names",
        "_scheme",
        "_slots",
        "_variants",
        "closes",
        "composed",
        "cut",
        "folds",
        "keeps",
        "plans",
        "table",
    )  # fmt: skip

    def __init__(self, cut: Sequence[bytes], slots: Sequence[int], request: Request, scheme: bytes, longest: int) -> None:
        super().__init__(cut, longest)
        self.cut = tuple(cut)
        self._slots = tuple(slots)
        self._names = tuple(request.fields[index].name for index in slots)
        self._host_slot = next((n for n, index in enumerate(slots) if request.fields[index].kind == HOST), -1)
        self._host = request.host
        self._as_values = any(request.fields[index].kind == FORWARDED_FOR for index in slots)
        # Fields that are passed on behind the plain ones: what a filter adds comes in between.
        self.keeps = any(field.kind in (EXPECT, LENGTH, FOLDED) for field in request.special)
        # Some names have look-alikes: whoever sets or removes a field must see them all.
        self.folds = any(field.kind == FOLDED for field in request.special)
        self.closes = not request.keep_alive  # the connection, once its request is answered
        self._scheme = scheme
        self._known: dict[str, str | int] = {}  # fields as filters look them up
        self.composed: dict[Edit | None, Composition] = {}
        # What holds for one table.
        self.table: Table[Route] | None = None
        self.plans: dict[bytes, RouteDecision[Route]] = {}  # by request line, where it alone decides
        self._variants: dict[tuple[bytes, ...], HeaderVariant[Route]] = {}  # by Host and the slots that conditions look at

    def model(self) -> list[Field]:
        """The fields, with marks in the slots."""
        return self._marked().fields

    def _marked(self) -> Request:
        return parse_request(_FIRST + with_marks(self.cut)[:-4], _PASSED)

    def known(self) -> dict[str, str | int]:
        """Fields by their names: values, joined by commas, or the number of the slot that has it, or SEVERAL."""
        known = self._known
        if not known:
            for index, field in enumerate(self.model()):
                name = field.name.decode("latin-1")
                before, value = known.get(name), field.value.decode("latin-1")
                if index in self._slots:
                    known[name] = self._slots.index(index) if before is None else SEVERAL
                elif before is None:
                    known[name] = value
                else:
                    known[name] = f"{before}, {value}" if isinstance(before, str) else SEVERAL
        return known

    @property
    def slots(self) -> tuple[int, ...]:
        """Which fields have slots."""
        return self._slots

    def renew(self, table: Table[Route]) -> None:
        """Forget what another table has changed."""
        self.table = table
        self._variants.clear()
        self.plans = {}
        if self._host_slot < 0:
            virtual_host = table.virtual_host(self._host)
            if not self._slots_of(virtual_host):
                self.plans = (virtual_host.header_variant(self._marked()) if virtual_host.headers else virtual_host.plain).plans

    def _slots_of(self, virtual_host: VirtualHost[Route]) -> list[int]:
        """The slots that conditions of a virtual host look at."""
        return (
            [number for number, name in enumerate(self._names) if name in virtual_host.headers] if virtual_host.headers else []
        )

    def decision(self, data: bytes, end: int, varying: bytes, limits: Limits) -> RouteDecision[Route] | None:
        """Where a request leads whose line is not in `plans`; None where only the slow path can tell."""
        line = data[:end]
        table = self.table
        assert table is not None
        if self._host_slot < 0:
            virtual_host = table.virtual_host(self._host)
        else:
            host = varying.partition(self.separator)[0] if self._host_slot == 0 else self.values(varying)[self._host_slot]
            known = (
                table.virtual_hosts.get(host) if host else None
            )  # HTTP/1.0 may lack a Host, and so has a virtual host; HTTP/1.1 may not
            if known is None and not is_host(host):
                return None
            virtual_host = known or table.virtual_host(host)
        header_variant = self._variant(virtual_host, data, varying, limits) if virtual_host.headers else virtual_host.plain
        if self._host_slot >= 0:
            return header_variant.decision(line, limits, passing=True)
        return header_variant.plans.get(line) or header_variant.decision(line, limits)

    def _variant(self, virtual_host: VirtualHost[Route], data: bytes, varying: bytes, limits: Limits) -> HeaderVariant[Route]:
        values = self.values(varying)
        key = (virtual_host.host, *(values[number] for number in self._slots_of(virtual_host)))
        header_variant = self._variants.get(key)
        if header_variant is None:
            if len(self._variants) >= VARIANTS:
                self._variants.clear()
            # The line is judged by itself, by the variant; it must not be judged here.
            request = parse_request(_FIRST + data[data.index(b"\r\n") : -4], limits)
            header_variant = self._variants[key] = virtual_host.header_variant(request)
        return header_variant

    def compose(self, edit: Edit | None) -> Composition:
        """How this head is passed on, by a rule with this edit of the request's fields; kept in `composed`."""
        if len(self.composed) >= COMPOSED:
            self.composed.clear()
        block = request_fields(self._marked(), mark(ADDRESS), self._scheme, edit, upgrading=False)
        composed = self.composed[edit] = composition(self, block, as_values=self._as_values)
        if self.closes:
            composed.is_whole = False  # there is more to do than to join it
        return composed


def rewritten(decision: RouteDecision[Route], target: Target, line: bytes, limits: Limits) -> bytes:
    """The first two lines of what goes to a backend, where the target rewrites host or path."""
    assert target.rewrite is not None
    if decision.starts is None:
        decision.starts = {}
    start = decision.starts.get(target.rewrite)
    if start is None:
        request = parse_line(line, decision.host, limits)
        assert request is not None
        new_host, uri = target.rewrite(request, decision.entry.prefix)
        start = decision.starts[target.rewrite] = request_start(request.method, uri, new_host)
    return start


class Templates:
    """All templates of one port, so that clients that send alike share them.

    A connection that is new can compare its first head only with those that others began with: heads with the same fields in
    the same order are one client's, or one kind of client's.
    """

    __slots__ = ("_firsts", "_known", "_longest", "_recent", "_scheme", "latest")

    def __init__(self, scheme: bytes, longest: int) -> None:
        self._scheme = scheme
        self._longest = longest  # bytes of a head, with the empty line at its end
        self._known: dict[tuple[bytes, ...], Template] = {}
        self._firsts: dict[tuple[object, ...], Template | list[Field]] = {}  # what connections began with, by its names
        self._recent: deque[Template] = deque(maxlen=RECENT)
        self.latest: Template | None = None  # what a new connection tries first

    def learn(self, model: Sequence[Field], known: Sequence[int], request: Request) -> Template | None:
        """A template from two heads of one client, or from a template and a head; None where they differ in too much."""
        slots = slots_of(model, request.fields, known)
        cut = pieces(request.fields, slots) if slots else None
        if slots is None or cut is None:
            return None
        template = self._known.get(tuple(cut))
        if template is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            template = self._known[tuple(cut)] = Template(cut, slots, request, self._scheme, self._longest)
        if template not in self._recent:
            self._recent.appendleft(template)
        self.latest = template
        return template

    def learn_first(self, request: Request) -> Template | None:
        """The same from the first head of a connection, and those that others began with."""
        names = request.keep_alive, *(field.name for field in request.fields)
        first = self._firsts.get(names)
        template = None
        if isinstance(first, Template):
            template = self.learn(first.model(), first.slots, request)
        elif first is not None:
            template = self.learn(first, (), request)
        if template is not None or not isinstance(first, Template):
            if len(self._firsts) >= KEPT:
                self._firsts.clear()
            self._firsts[names] = template or request.fields
        return template

    def find(self, data: bytes) -> Template | None:
        """One of the latest that accepts this head and nothing else; `data` has a line end."""
        end = data.find(b"\r\n")
        for template in self._recent:
            is_around = data.startswith(template.first, end) and data.endswith(template.last, 0, template.longest)
            if is_around and template.holds(data[end + template.skip : template.stop]):
                return template
        return None

    def forget(self) -> None:
        """From now on every head is parsed."""
        self._known.clear()
        self._firsts.clear()
        self._recent.clear()
        self.latest = None


def is_plain(request: Request) -> bool:
    """Whether a head may become a template: no body, nothing about the connection that must be acted upon."""
    return request.length == NO_LENGTH and not request.http10 and not request.upgrade
