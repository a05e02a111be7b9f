"""Why a request gets the answer that it gets: the way through listener, hostname, rule, match and backend.

Runs the data plane's own matching on the parts of a snapshot, so it cannot disagree with what traffic meets.
Where nothing matches it says what came nearest, and why that did not match either.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.filters import redirect
from gateway.http.http1 import Field, ProtocolError, Request
from gateway.routing import table as routing
from gateway.routing.table import HostRules, RouteMatch, Table, bare
from gateway.snapshot import Backend, Fault, Listener, Match, Part, Redirect, Rule, Specificity

NEAREST = 3


class Asked(msgspec.Struct, frozen=True):
    """A request in question."""

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()


class Choice(msgspec.Struct, frozen=True):
    """One target of the rule: its share of the traffic, and what it leads to."""

    share: float
    backend: str = ""
    endpoints: tuple[str, ...] = ()
    status: int = 0  # what it answers by itself; 0: the backend answers
    reason: str = ""


class Near(msgspec.Struct, frozen=True):
    """A match that failed, and each condition that did."""

    rule: str
    match: str
    failed: tuple[str, ...]


class Explanation(msgspec.Struct, frozen=True):
    """The way of one request."""

    request: str
    outcome: str
    status: int  # what the gateway answers by itself; 0: a backend answers
    listener: str = ""
    hostname: str = ""
    rule: str = ""
    match: str = ""
    filters: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    nearest: tuple[Near, ...] = ()
    hints: tuple[str, ...] = ()


def url_fault(text: str) -> str:
    """Why a text is no URL that a gateway could be asked for, in words; "" where it is one."""
    example = "one such as http://demo.example.com/callme is needed"
    try:
        url = urlsplit(text if "//" in text else f"http://{text}")
        port = url.port
    except ValueError as error:
        return f"{text!r} is no URL ({error}); {example}"
    is_bare = "//" not in text and not set(".:/[") & set(text) and text != "localhost"
    if is_bare or url.scheme not in ("http", "https") or not url.hostname or port == 0:
        return f"{text!r} is no URL; {example}"
    return ""


def explain(parts: Iterable[Part], asked: Asked, port_offset: int = 0) -> Explanation:
    """Follow a request through a snapshot, of which listeners are served at their ports and `port_offset`.

    The URL must be one (`url_fault`).
    """
    every = list(parts)
    request_line = f"{asked.method} {asked.url}"
    try:
        request, port = _request(asked)
    except ProtocolError as error:
        return Explanation(request_line, f"{error.status}: {error.reason}", error.status)
    listeners = [part for part in every if isinstance(part, Listener)]
    # As clients see it; or as the Gateway has it, where nothing is there.
    here = [one for one in listeners if one.port + port_offset == port] or [one for one in listeners if one.port == port]
    if not here:
        ports = sorted({listener.port + port_offset for listener in listeners})
        hint = f"listeners are on port {', '.join(map(str, ports))}" if ports else "there is no listener at all"
        return Explanation(request_line, f"nothing listens on port {port}", 0, hints=(hint,))
    table = _table(every, here)
    owner = table.listener(request.host)
    if owner is None:
        hostnames = [listener.hostname for listener in here]
        return Explanation(
            request_line, "404: no listener is for this hostname", 404, hints=tuple(_close(bare(request.host), hostnames))
        )
    entry = table.find(request)
    if entry is None:
        return _not_found(request_line, request, owner, table)
    rule: Rule = entry.route
    hostname = next(
        name for name in table.matching(request.host) if any(one is entry for one in table.hosts[owner, name].entries())
    )
    choices = tuple(_choices(rule, {part.name: part for part in every if isinstance(part, Backend)}))
    outcome, status = _outcome(rule, choices, request, entry, here[0])
    return Explanation(
        request_line, outcome, status, owner, hostname or "*", rule.name, spelled(entry.match),
        tuple(_filter(rule_filter) for rule_filter in rule.filters), choices,
    )  # fmt: skip


def aimed_at(asked: Asked) -> tuple[str, int]:
    """The host, in lower case, and the port for which a request asks."""
    try:
        request, port = _request(asked)
    except ProtocolError:
        return "", 0
    return bare(request.host).lower(), port


def _request(asked: Asked) -> tuple[Request, int]:
    url = urlsplit(asked.url if "//" in asked.url else f"http://{asked.url}")
    port = url.port or (443 if url.scheme == "https" else 80)
    fields = [Field(0, name.lower().encode(), value.encode(), f"{name}: {value}".encode()) for name, value in asked.headers]
    query = url.query.encode() if url.query else None
    request = Request(asked.method.encode(), (url.path or "/").encode(), query, False, fields)
    host = next((value for name, value in asked.headers if name.lower() == "host"), url.hostname or "")
    request.host = host.encode()
    return request, port


def _table(every: list[Part], here: list[Listener]) -> Table[Rule]:
    names = {listener.name for listener in here}
    entries: dict[routing.HostKey, list[tuple[Specificity, list[RouteMatch[Rule]]]]] = {}
    for part in every:
        if isinstance(part, Rule):
            for at in part.at:
                if at.listener in names:
                    matches = [RouteMatch(match, part.order, part) for match in part.matches]
                    entries.setdefault((at.listener, at.hostname), []).append((at.specificity, matches))
    hosts = {key: routing.compile_host(groups) for key, groups in entries.items()}
    return Table({listener.hostname: listener.name for listener in here}, hosts)


def _choices(rule: Rule, backends: dict[str, Backend]) -> Iterable[Choice]:
    total = sum(target.weight for target in rule.targets)
    for target in rule.targets:
        share = target.weight / total if total else 0.0
        if target.fault:
            yield Choice(share, target.backend, (), target.fault, target.reason)
            continue
        backend = backends.get(target.backend)
        endpoints = tuple(f"{e.address}:{e.port}" for e in backend.endpoints) if backend else ()
        if endpoints:
            yield Choice(share, target.backend, endpoints)
        else:
            yield Choice(share, target.backend, (), 503, "no endpoint is ready")


def _outcome(
    rule: Rule, choices: tuple[Choice, ...], request: Request, entry: RouteMatch[Rule], listener: Listener
) -> tuple[str, int]:
    for rule_filter in rule.filters:
        if isinstance(rule_filter, Redirect):
            location = redirect.build(rule_filter)(request, entry.prefix, listener.protocol.lower(), listener.port)
            return f"{rule_filter.status}: redirected to {location.decode('latin-1')}", rule_filter.status
        if isinstance(rule_filter, Fault):
            return f"{rule_filter.status}: {rule_filter.reason}", rule_filter.status
    alive = [choice for choice in choices if choice.share]
    if not alive:
        return "answered by 500: the rule has no backend with a weight", 500
    failing = [choice for choice in alive if choice.status]
    if len(failing) == len(alive):
        return f"answered by {failing[0].status}: {failing[0].reason}", failing[0].status
    names = " or ".join(choice.backend for choice in alive if not choice.status)
    if failing:
        part = sum(choice.share for choice in failing)
        return f"answered by {names}; but {part:.0%} of such requests fail, by {failing[0].status}: {failing[0].reason}", 0
    return f"answered by {names}", 0


def _not_found(request_line: str, request: Request, owner: str, table: Table[Rule]) -> Explanation:
    names = table.matching(request.host)
    if not names:
        known = [hostname for listener, hostname in table.hosts if listener == owner]
        hints = _close(bare(request.host), known)
        return Explanation(request_line, "404: no route is for this hostname", 404, owner, hints=tuple(hints))
    near: list[tuple[int, Near]] = []
    for name in names:
        for entry in table.hosts[owner, name].entries():
            failed = tuple(_why_not(entry, request))
            near.append((len(failed), Near(entry.route.name, spelled(entry.match), failed)))
    near.sort(key=lambda pair: pair[0])
    outcome = "404: the hostname has rules, but none matches"
    return Explanation(
        request_line, outcome, 404, owner, names[0] or "*", nearest=tuple(candidate for _, candidate in near[:NEAREST])
    )


def _why_not(entry: RouteMatch[Rule], request: Request) -> Iterable[str]:
    """Each condition of a match that a request fails, with what was found."""
    match = entry.match
    if not HostRules([entry]).candidates(request.path):
        yield f"path {match.path.kind} {match.path.value}: found {request.path.decode('latin-1')}"
    if match.method and match.method.encode() != request.method:
        yield f"method {match.method}: found {request.method.decode()}"
    for kind, matchers in (("header", match.headers), ("query", match.query)):
        for matcher in matchers:
            only = Match(headers=(matcher,)) if kind == "header" else Match(query=(matcher,))
            if HostRules([RouteMatch(only, entry.route.order, entry.route)]).find(request) is None:
                value = request.value(matcher.name.lower().encode()) if kind == "header" else request.query or None
                what = value.decode("latin-1") if value is not None else "none"
                yield f"{kind} {matcher.name} {'~' if matcher.regex else '='} {matcher.value}: found {what}"


def _close(host: str, known: list[str]) -> list[str]:
    near = difflib.get_close_matches(host, known, NEAREST, 0.5) or sorted(set(known))[:NEAREST]
    hints = [f"known hostnames: {', '.join(name or '*' for name in near)}"] if near else ["no hostname is known here"]
    if any(name == f"*.{host}" for name in known):
        hints.append(f"*.{host} stands for one or more labels before {host}, not for {host} itself")
    return hints


def spelled(match: Match) -> str:
    """A match in one line."""
    words = [match.method] if match.method else []
    words.append(f"{match.path.kind} {match.path.value}")
    words += [f"header {m.name}{'~' if m.regex else '='}{m.value}" for m in match.headers]
    words += [f"query {m.name}{'~' if m.regex else '='}{m.value}" for m in match.query]
    return ", ".join(words)


def _filter(spec: Any) -> str:
    fields = msgspec.to_builtins(spec)
    kind = fields.pop("type", type(spec).__name__)
    return f"{kind} {msgspec.json.encode(fields).decode()}" if fields else str(kind)
