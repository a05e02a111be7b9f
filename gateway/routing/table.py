"""Which rule answers a request: host, then path, then method, headers and query, as the Gateway API orders them.

`compile_host` turns the rules of one hostname into a `HostRules`; a `Table` holds those of one port and finds
the right ones for a Host. All are immutable once built: a change builds the hosts it touches anew, shares the
rest, and swaps the table whole. A `VirtualHost` is what a table knows of one Host; it is kept from table to table while
its rules stay the same, and remembers what request lines lead to.

Precedence (HTTPRouteRule.matches): the longest hostname; the longest one that a route wrote itself; an exact path; a
regular expression (whose rank the API leaves to us: before prefixes, so that a catch-all does not hide it, longest
first); the longest prefix; a method; more headers; more query parameters; then the order that the control plane gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

from gateway.http import paths
from gateway.http.http1 import Request, parse_line, request_start
from gateway.routing import regex
from gateway.snapshot import Limits, Match, Order, PathMatch, Specificity, ValueMatch

RouteT = TypeVar("RouteT")
T = TypeVar("T")
Condition: TypeAlias = Callable[[Request], bool]

MEMO: Final = 16384  # Hosts remembered; larger than any working set that pays
VARIANTS: Final = 256  # combinations of header conditions remembered for each host
REMEMBERED: Final = 65536  # paths and request lines remembered, over all hosts of a process
NOTHING: Final[Mapping[bytes, Any]] = {}
NO_NAMES: Final[frozenset[bytes]] = frozenset()
LINES: Final = 8192  # request lines remembered whatever their host


def _union(sets: Iterable[frozenset[bytes]]) -> frozenset[bytes]:
    """All names; the one empty set where there are none, as most hosts have none."""
    return NO_NAMES.union(*sets) or NO_NAMES


class SharedCache:
    """Keeps many dictionaries small together: when all of them hold too much, all are emptied."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._count = 0
        self._memos: list[dict[bytes, Any]] = []

    def put(self, memo: dict[bytes, T], key: bytes, value: T) -> T:
        """Remember a value."""
        if self._count >= self.most:
            for each in self._memos:
                each.clear()
            self._memos.clear()
            self._count = 0
        if not memo:
            self._memos.append(memo)
        memo[key] = value
        self._count += 1
        return value


MEMORY: Final = SharedCache(REMEMBERED)


class RouteMatch(Generic[RouteT]):
    """One match of one rule: where it leads, and what must hold beside the path.

    Conditions come apart by what they look at: the request line (method and query), or header fields. Each is None
    where there is nothing to test.
    """

    __slots__ = ("by_headers", "by_line", "headers", "match", "path", "prefix", "rank", "route")

    def __init__(self, match: Match, order: Order, route: RouteT) -> None:
        self.match = match
        self.route = route
        self.path = _path(match.path)
        self.prefix = self.path.rstrip(b"/") if match.path.kind == "PathPrefix" else b""
        self.headers = frozenset(header.name.lower().encode() for header in match.headers) if match.headers else NO_NAMES
        self.rank = (not match.method, -len(match.headers), -len(match.query), order)
        self.by_line = _all(_line_tests(match))
        self.by_headers = _all(_header_tests(match))

    @property
    def is_final(self) -> bool:
        """Whether the path alone decides."""
        return self.by_line is None and self.by_headers is None


def _path(match: PathMatch) -> bytes:
    """The value as requests' paths are compared with it: normalised like them."""
    value = match.value.encode()
    return paths.normalise(value) if match.kind in ("Exact", "PathPrefix") else value


def _line_tests(match: Match) -> list[Condition]:
    tests: list[Condition] = []
    if match.method:
        method = match.method.encode()
        tests.append(lambda request: request.method == method)
    query = {m.name: m for m in reversed(match.query)}
    return tests + [_query(m) for m in query.values()]


def _header_tests(match: Match) -> list[Condition]:
    # Only the first of several matchers with one header name counts (HTTPRouteMatch.headers).
    headers = {m.name.lower(): m for m in reversed(match.headers)}
    return [_header(m) for m in headers.values()]


def _all(tests: list[Condition]) -> Condition | None:
    if len(tests) <= 1:
        return tests[0] if tests else None
    return lambda request: all(test(request) for test in tests)


def _value(matcher: ValueMatch) -> Callable[[bytes], bool]:
    if matcher.regex:
        return regex.full_match(matcher.value)
    expected = matcher.value.encode()
    return lambda value: value == expected


def _header(matcher: ValueMatch) -> Condition:
    name = matcher.name.lower().encode()
    accepts = _value(matcher)

    def test(request: Request) -> bool:
        value = request.value(name)
        return value is not None and accepts(value)

    return test


def _query(matcher: ValueMatch) -> Condition:
    name = matcher.name.encode()
    accepts = _value(matcher)

    def test(request: Request) -> bool:
        # The first value counts where a name is repeated (HTTPRouteMatch.queryParams).
        for pair in request.query.split(b"&"):
            raw, _, value = pair.partition(b"=")
            if _decoded(raw) == name:
                return accepts(_decoded(value))
        return False

    return test


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text


class HostRules(Generic[RouteT]):
    """The entries of one hostname of one listener."""

    __slots__ = ("_always", "_exact", "_memo", "_methods", "_prefix", "_regex", "behind", "headers")

    def __init__(self, entries: Iterable[RouteMatch[RouteT]], behind: HostRules[RouteT] | None = None) -> None:
        self.behind = behind  # those of routes whose own hostname is less specific: asked where none of these answers
        ordered = sorted(entries, key=lambda entry: entry.rank)
        exact: dict[bytes, tuple[RouteMatch[RouteT], ...]] = {}
        prefix: dict[bytes, tuple[RouteMatch[RouteT], ...]] = {}
        methods: dict[bytes, tuple[RouteMatch[RouteT], ...]] = {}
        by_expression: dict[str, list[RouteMatch[RouteT]]] = {}
        for entry in ordered:
            kind = entry.match.path.kind
            if kind == "Exact":
                exact[entry.path] = (*exact.get(entry.path, ()), entry)
            elif kind == "PathPrefix":
                prefix[entry.prefix] = (*prefix.get(entry.prefix, ()), entry)
            elif kind == "Method":
                methods[entry.path] = (*methods.get(entry.path, ()), entry)
            else:
                by_expression.setdefault(entry.match.path.value, []).append(entry)
        longest_first = sorted(by_expression, key=lambda text: (-len(text), text))
        self._exact: Mapping[bytes, tuple[RouteMatch[RouteT], ...]] = exact or NOTHING  # there are thousands of these
        self._prefix = prefix
        self._methods: Mapping[bytes, tuple[RouteMatch[RouteT], ...]] = methods or NOTHING
        self._regex = tuple((regex.full_match(text), by_expression[text]) for text in longest_first)
        self._memo: dict[bytes, tuple[RouteMatch[RouteT], ...]] | None = None  # until somebody asks
        # Where every entry has the prefix "/", all paths are alike.
        self._always = (
            _until_final(self._prefix[b""])
            if [*self._prefix] == [b""] and not (self._exact or self._regex or methods)
            else None
        )
        self.headers = _union(entry.headers for entry in ordered)  # names that conditions look at

    def find(self, request: Request) -> RouteMatch[RouteT] | None:
        """The first entry, in order of precedence, of which every condition holds."""
        for entry in self.reachable(request.path):
            if (entry.by_line is None or entry.by_line(request)) and (entry.by_headers is None or entry.by_headers(request)):
                return entry
        return None

    @property
    def only(self) -> RouteMatch[RouteT] | None:
        """The entry that answers every request, if there is such a one."""
        return self._always[0] if self._always is not None and self._always[0].is_final else None

    def reachable(self, path: bytes) -> tuple[RouteMatch[RouteT], ...]:
        """The entries whose path matches, as far as the first that has no conditions."""
        if self._always is not None:
            return self._always
        memo = self._memo
        if memo is None:
            memo = self._memo = {}
        entries = memo.get(path)
        return entries if entries is not None else MEMORY.put(memo, path, _until_final(self.candidates(path)))

    def candidates(self, path: bytes) -> list[RouteMatch[RouteT]]:
        """All entries whose path matches, in order of precedence."""
        candidates = list(self._exact.get(path, ()))
        for matches, entries in self._regex:
            if matches(path):
                candidates += entries
        # By path element: /a/b matches the prefixes /a/b, /a and / but not /a/b/c nor /a/bc.
        prefix = path.rstrip(b"/")
        while True:
            if not prefix and self._methods and path.count(b"/") == 2:
                candidates += self._methods.get(path[path.rfind(b"/") + 1 :], ())
            candidates += self._prefix.get(prefix, ())
            if not prefix:
                return candidates
            prefix = prefix[: max(prefix.rfind(b"/"), 0)]

    def entries(self) -> list[RouteMatch[RouteT]]:
        """Every entry, for explanations."""
        groups = [*self._exact.values(), *(e for _, e in self._regex), *self._prefix.values(), *self._methods.values()]
        return [entry for group in groups for entry in group] + (self.behind.entries() if self.behind is not None else [])


def compile_host(entries: Iterable[tuple[Specificity, Sequence[RouteMatch[RouteT]]]]) -> HostRules[RouteT]:
    """The rules of one hostname of one listener. Where several routes have it as their intersection with the listener, the
    one goes first whose own hostname is more specific (`Attachment.specificity`), whatever its age and its matches' length."""
    groups: dict[Specificity, list[RouteMatch[RouteT]]] = {}
    for specificity, some in entries:
        groups.setdefault(specificity, []).extend(some)
    rules: HostRules[RouteT] | None = None
    for specificity in sorted(groups, reverse=True):
        rules = HostRules(groups[specificity], rules)
    return rules if rules is not None else HostRules(())


def _until_final(entries: Sequence[RouteMatch[RouteT]]) -> tuple[RouteMatch[RouteT], ...]:
    """What stands behind an entry without conditions can never be reached."""
    for index, entry in enumerate(entries):
        if entry.is_final:
            return tuple(entries[: index + 1])
    return tuple(entries)


HostKey: TypeAlias = tuple[str, str]  # listener name, hostname
Chain: TypeAlias = tuple[HostRules[RouteT], ...]


class RouteDecision(Generic[RouteT]):
    """Where a request line leads at one Host, and the first two lines of what goes to the backend."""

    __slots__ = ("_seen", "entry", "host", "listener", "route", "start", "starts")

    def __init__(self, entry: RouteMatch[RouteT], start: bytes, host: bytes, listener: str) -> None:
        self.entry = entry
        self.route = entry.route
        self.host = host
        self.listener = listener
        self.start = start
        self.starts: dict[object, bytes] | None = None  # the same, as rewritten by one filter or another
        self._seen: Request | None = None

    def seen(self, data: bytes, limits: Limits) -> Request:
        """The request line, parsed; `data` begins with it."""
        request = self._seen
        if request is None:
            request = self._seen = parse_line(data[: data.index(b"\r\n")], self.host, limits)
            assert request is not None  # it has been parsed before
        return request


class HeaderVariant(Generic[RouteT]):
    """A virtual host as seen by requests whose header fields meet the same conditions: request lines alone decide here."""

    __slots__ = ("_chain", "_entry", "_holding", "_host", "_listener", "plans")

    def __init__(self, host: bytes, chain: Chain[RouteT], holding: frozenset[RouteMatch[RouteT]], listener: str) -> None:
        self._host = host
        self._listener = listener
        self._chain = chain
        self._holding = holding
        self._entry = chain[0].only if chain else None  # where every request leads there
        self.plans: dict[bytes, RouteDecision[RouteT]] = {}

    def find(self, request: Request) -> RouteMatch[RouteT] | None:
        """The entry that answers this request, of which only the line is looked at."""
        for rules in self._chain:
            for entry in rules.reachable(request.path):
                if (entry.by_line is None or entry.by_line(request)) and (entry.by_headers is None or entry in self._holding):
                    return entry
        return None

    def decision(self, line: bytes, limits: Limits, *, passing: bool = False) -> RouteDecision[RouteT] | None:
        """Where a request line leads; None where it is not so plain.

        `passing`: the Host is one of many, so that a plan which is cheap to make is not worth remembering: to look it up
        among thousands costs more, in memory that is not in the processor's cache.
        """
        if passing and self._entry is None:
            plan = self.plans.get(line)
            if plan is not None:
                return plan
            passing = False
        known = (_lines.get(line) or _remember_line(line, limits)) if len(line) <= limits.target_bytes else None
        if known is None:
            return None
        request, start = known
        entry = self._entry or self.find(request)
        if entry is None:
            return None
        decision = RouteDecision(entry, b"%b%b\r\n" % (start, self._host), self._host, self._listener)
        return decision if passing else MEMORY.put(self.plans, line, decision)


_lines: dict[bytes, tuple[Request, bytes]] = {}  # request line: (a request without Host, what goes on up to Host's value)


def _remember_line(line: bytes, limits: Limits) -> tuple[Request, bytes] | None:
    request = parse_line(line, b"", limits)
    if request is None:
        return None
    if len(_lines) >= LINES:
        _lines.clear()
    known = _lines[line] = request, request_start(request.method, request.target, b"")[:-2]
    return known


class VirtualHost(Generic[RouteT]):
    """What a table knows of one Host as it was sent: the rules that may answer, and request lines seen before."""

    __slots__ = ("_conditional", "_variants", "chain", "headers", "host", "listener", "plain")

    def __init__(self, host: bytes, chain: Chain[RouteT], listener: str = "") -> None:
        self.host = host
        self.chain = chain
        self.listener = listener  # that owns it, where connections belong to listeners (TLS)
        self.headers = _union(rules.headers for rules in chain)  # names that conditions look at
        self._conditional = [entry for rules in chain for entry in rules.entries() if entry.by_headers] if self.headers else []
        self.plain: HeaderVariant[RouteT] = HeaderVariant(
            host, chain, frozenset(), listener
        )  # none of the conditions on header fields holds
        self._variants = {frozenset[RouteMatch[RouteT]](): self.plain}

    def find(self, request: Request) -> RouteMatch[RouteT] | None:
        """The entry that answers this request."""
        for rules in self.chain:
            entry = rules.find(request)
            if entry is not None:
                return entry
        return None

    def header_variant(self, request: Request) -> HeaderVariant[RouteT]:
        """The variant for requests with header fields like these."""
        holding = frozenset(entry for entry in self._conditional if entry.by_headers and entry.by_headers(request))
        variant = self._variants.get(holding)
        if variant is None:
            if len(self._variants) >= VARIANTS:
                self._variants = {frozenset(): self.plain}
            variant = self._variants[holding] = HeaderVariant(self.host, self.chain, holding, self.listener)
        return variant


class VirtualHosts(Generic[RouteT]):
    """The virtual hosts of one port, kept from table to table: a change forgets only what it touched."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, VirtualHost[RouteT]] = {}

    def get(self, host: bytes, chain: Chain[RouteT], listener: str = "") -> VirtualHost[RouteT]:
        """The virtual host of a Host; the one from before where its rules are the same."""
        virtual_host = self._known.get(host)
        if virtual_host is None or virtual_host.chain != chain or virtual_host.listener != listener:
            if len(self._known) >= MEMO:
                self._known.clear()
            virtual_host = self._known[host] = VirtualHost(host, chain, listener)
        return virtual_host


class Table(Generic[RouteT]):
    """Everything that one port knows. `listeners` maps a hostname ("" for all) to the listener that owns it."""

    def __init__(
        self,
        listeners: Mapping[str, str],
        hosts: Mapping[HostKey, HostRules[RouteT]],
        kept: VirtualHosts[RouteT] | None = None,
        *,
        secure: bool = False,
    ) -> None:
        self._secure = secure  # a connection belongs to the listener that its SNI chose
        self.listeners = listeners
        self.hosts = hosts
        self._kept: VirtualHosts[RouteT] = kept if kept is not None else VirtualHosts()
        self.virtual_hosts: dict[bytes, VirtualHost[RouteT]] = {}  # of the Hosts that were asked for, as they were sent

    def find(self, request: Request) -> RouteMatch[RouteT] | None:
        """The entry that answers this request, or None: 404."""
        return self.virtual_host(request.host).find(request)

    def virtual_host(self, host: bytes) -> VirtualHost[RouteT]:
        """What is known of a Host, which must have been validated."""
        virtual_host = self.virtual_hosts.get(host)
        if virtual_host is None:
            if len(self.virtual_hosts) >= MEMO:
                self.virtual_hosts.clear()
            virtual_host = self.virtual_hosts[host] = self._kept.get(host, self.chain(host), self.owner(host))
        return virtual_host

    def owner(self, host: bytes) -> str:
        """The listener to which connections for a host or a server name (RFC 6066 §3) belong; "" where to none."""
        return (self.listener(host) or "") if self._secure else ""

    def listener(self, host: bytes) -> str | None:
        """The most specific listener for a Host; less specific ones never see it (listener isolation)."""
        for hostname in patterns(bare(host)):
            if hostname in self.listeners:
                return self.listeners[hostname]
        return None

    def chain(self, host: bytes) -> Chain[RouteT]:
        """The rules that may answer for a Host, those of the longest hostname first."""
        chain: list[HostRules[RouteT]] = []
        for name in self.matching(host):
            rules: HostRules[RouteT] | None = self.hosts[self.listener_key(host, name)]
            while rules is not None:
                chain.append(rules)
                rules = rules.behind
        return tuple(chain)

    def matching(self, host: bytes) -> list[str]:
        """The hostnames of the Host's listener that match it and have rules, the longest first."""
        return [n for n in patterns(bare(host)) if self.listener_key(host, n) in self.hosts]

    def listener_key(self, host: bytes, hostname: str) -> HostKey:
        """The key under which the rules of a hostname stand for the listener that owns this Host."""
        return self.listener(host) or "", hostname


def bare(host: bytes) -> str:
    """A Host without its port, in lower case."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].rstrip(".")


def patterns(host: str) -> list[str]:
    """The hostnames that match a host, most specific first: itself, its wildcards, everything.

    A wildcard stands for one or more labels: a.b.example.com matches *.b.example.com and *.example.com.
    """
    labels = host.split(".")
    return [host, *("*." + ".".join(labels[at:]) for at in range(1, len(labels))), ""]
