"""Rules that take the fast path, each in another way."""

from __future__ import annotations

import msgspec

from gateway.snapshot import (
    Attachment,
    Cors,
    Match,
    Mirror,
    Order,
    PathEdit,
    PathMatch,
    Persistence,
    RequestHeaders,
    ResponseHeaders,
    Retry,
    Rewrite,
    Rule,
    Scripted,
    Target,
    Timeouts,
    ValueMatch,
)


def rule(name: str, path: str, *filters: object, host: str = "", backend: str = "plain", **match: object) -> Rule:
    targets = (Target(3, backend), Target(1, "other"))
    matches = (Match(PathMatch("PathPrefix", path), **match),)  # type: ignore[arg-type]
    return Rule(name, Order(route=name), (Attachment("l", host),), matches, tuple(filters), targets)  # type: ignore[arg-type]


RULES = [
    rule("all", "/"),
    rule("reading", "/reading", Scripted("reads")),
    rule("reading-edited", "/reading/edited", Scripted("reads"), RequestHeaders((("X-Seen", "1"),), (), ("accept",))),
    rule("changing", "/changing", Scripted("changes")),
    rule("several", "/several", Scripted("reads"), Scripted("changes"), Scripted("last")),
    rule("edited", "/edited", RequestHeaders((("X-Set", "1"), ("X-Id", "fixed")), (("Accept", "b"), ("X-T", "t")), ("dnt",))),
    rule("answered", "/answered", ResponseHeaders((("Server", "us"),), (("X-Id", "2"), ("ETag", "w")), ("date",))),
    rule("moved", "/moved", Rewrite("inner.example", PathEdit("ReplacePrefixMatch", "/to"))),
    rule("mirrored", "/mirrored", Mirror("mirror", 1, 2)),
    msgspec.structs.replace(rule("timed", "/timed"), timeouts=Timeouts(request=30, backend_request=20)),
    rule("pages", "/pages", Cors(("https://*.example",), True, expose_headers=("x-id",))),
    msgspec.structs.replace(rule("held", "/held"), persistence=Persistence(cookie="sid")),
    msgspec.structs.replace(rule("patient", "/patient"), retry=Retry((404,), 0)),
    rule("by-method", "/m", method="DELETE", backend="deleting"),
    rule("by-query", "/q", query=(ValueMatch("v", "2"),), backend="second"),
    rule("canary", "/", host="headers.example", headers=(ValueMatch("x-canary", "yes"),), backend="canary"),
    rule("rest", "/", host="headers.example"),
    rule("exact", "/p", host="named.example", backend="named"),
]
