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
from support.wire import SOURCES


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

# Filters in Python: what they may read, and everything that they may do, decided by what the request says.
SOURCES |= {
    "reads": """
from gateway.filters.api import Response
def request(r):
    got = [r.method, r.path, r.query_string, r.target, r.host, r.route, r.connection.address]
    got += [r.headers.get(n, "-") for n in ("X-Id", "x-t", "cookie", "Accept", "x-forwarded-for", "host", "x-canary", "x-none")]
    got += [str("X-ID" in r.headers), str("x-none" in r.headers)]
    r.headers["X-Seen"] = "|".join(got)
    r.headers["X-Seen-2"] = "a"
    r.headers["x-seen-2"] = r.headers["X-Seen-2"] + "b"
""",
    "changes": """
from gateway.filters.api import Response, Refused
def request(r):
    r.headers["X-Before"] = "1"
    if r.headers.get("x-id", "").endswith(("0", "1")):
        r.headers["X-Id"] = "changed"
    if r.headers.get("x-id", "").endswith(("2", "3")):
        del r.headers["x-id"]
    r.headers.pop("x-set", None)
    if "cookie" in r.headers:
        r.headers.add("X-Cookies", str(len(r.cookies)))
    if r.headers.get("x-canary") == "yes":
        r.path = "/canary" + r.path
        r.query["q"] = "1"
    if r.headers.get("x-canary") == "no":
        return Response(403, "no", {"X-Why": r.path})
    if r.headers.get("x-canary") == "Yes":
        raise Refused(418, "short and stout")
    if r.headers.get("origin", "").endswith("other"):
        1 / 0
    if "authorization" in r.headers:
        r.choose("other")
    r.state["x"] = len(list(r.headers))
""",
    "last": """
def request(r):
    r.headers["X-Last"] = r.headers.get("x-before", "-") + r.headers.get("x-seen", "-") + str(r.state.get("x"))
""",
}
