"""Which rule answers: one line a case."""

from __future__ import annotations

import pytest

from gateway.http.http1 import parse_request
from gateway.routing import table as routing
from gateway.routing.table import HostRules, RouteMatch, Table, VirtualHosts, bare
from gateway.snapshot import DEFAULT_LIMITS, Match, Order, PathMatch, ValueMatch


def match(text: str) -> Match:
    """`[METHOD] [=|~]path [name=value …] [?name=value …]`: = is Exact, ~ is RegularExpression."""
    method, headers, query, path = "", [], [], PathMatch()
    for word in text.split():
        if word.startswith("?"):
            name, _, value = word[1:].partition("=")
            query.append(ValueMatch(name, value))
        elif word.startswith("=/"):
            path = PathMatch("Exact", word[1:])
        elif word.startswith("~"):
            path = PathMatch("RegularExpression", word[1:])
        elif word.startswith("/"):
            path = PathMatch("PathPrefix", word)
        elif "=" in word:
            name, _, value = word.partition("=")
            headers.append(ValueMatch(name, value))
        else:
            method = word
    return Match(path, method, tuple(headers), tuple(query))


def table(rules: dict[str, str], listeners: dict[str, str] | None = None) -> Table:
    """`host match` → name; one listener for everything unless said otherwise (`listener@host match`)."""
    hosts: dict[tuple[str, str], list[RouteMatch]] = {}
    for index, (where, name) in enumerate(rules.items()):
        place, _, rest = where.partition(" ")
        listener, _, host = place.rpartition("@")
        entry = RouteMatch(match(rest), Order(index=index), name)
        hosts.setdefault((listener or "l", "" if host == "*" else host), []).append(entry)
    return Table(listeners or {"": "l"}, {k: HostRules(v) for k, v in hosts.items()})


def ask(found: Table, text: str) -> str | None:
    """`[METHOD] host/path [Name:value …]` → the rule's name."""
    words = text.split()
    method = words.pop(0) if "/" not in words[0] else "GET"
    host, slash, path = words.pop(0).partition("/")
    lines = [f"{method} {slash}{path} HTTP/1.1", f"Host: {host}", *words]
    entry = found.find(parse_request("\r\n".join(lines).encode()))
    return entry.route if entry else None


PATHS = table(
    {
        "* /": "root", "* /foo": "foo", "* /foo/bar": "bar", "* =/foo": "exact", "* =/foo/": "exact/", "* ~/reg/[0-9]+": "regex",
        "* ~/reg/[0-9]+/.*": "long regex", "* /reg": "reg", "* /slash/": "slash",
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ("a/", "root"), ("a/x", "root"), ("a/foo", "exact"), ("a/foo/", "exact/"), ("a/foo/x", "foo"), ("a/fooo", "root"),
        ("a/foo?x", "exact"), ("a/foo/bar", "bar"), ("a/foo/bar/", "bar"), ("a/foo/bar/x", "bar"), ("a/foo/barx", "foo"),
        ("a/FOO", "root"), ("a/reg/1", "regex"), ("a/reg/1/x", "long regex"), ("a/reg/x", "reg"), ("a/xreg/1", "root"),
        ("a/slash", "slash"), ("a/slash/", "slash"), ("a/slash/x", "slash"), ("a/slashx", "root"),
        # Paths are normalised before they are matched.
        ("a//foo", "exact"), ("a/./foo", "exact"), ("a/x/../foo", "exact"), ("a/%66oo", "exact"), ("a/%2e/foo", "exact"),
        ("a/foo%2Fbar", "root"), ("a/foo/bar/..", "exact/"), ("a/foo//bar", "bar"), ("a/.foo", "root"),
    ],
)  # fmt: skip
def test_paths(request_: str, rule: str) -> None:
    assert ask(PATHS, request_) == rule


HOSTS = table(
    {
        "very.specific.com /": "exact", "*.specific.com /": "wild", "*.very.specific.com /only": "deep", "* /any": "any",
        "*.com /com": "com",
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ("very.specific.com/", "exact"), ("VERY.Specific.COM:8080/", "exact"), ("very.specific.com./", "exact"),
        ("other.specific.com/", "wild"), ("a.b.specific.com/", "wild"), ("specific.com/", None), ("specific.com/com", "com"),
        ("x.very.specific.com/only", "deep"), ("x.very.specific.com/", "wild"), ("elsewhere.org/any", "any"),
        ("elsewhere.org/", None), ("very.specific.com/com", "exact"),
    ],
)  # fmt: skip
def test_hosts(request_: str, rule: str | None) -> None:
    """The longest hostname first; where none of its rules matches, a shorter one may."""
    assert ask(HOSTS, request_) == rule


PRECEDENCE = table(
    {
        "* /": "plain", "* POST /": "method", "* / a=1": "header", "* / a=1 b=2": "two headers", "* / ?q=1": "query",
        "* / a=1 ?q=1": "header and query", "* POST / ?q=1": "method and query", "* / c=1": "older", "* / d=1": "younger",
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ("a/", "plain"), ("POST a/ a:1", "method"), ("a/ a:1", "header"), ("a/ A:1 B:2", "two headers"), ("a/?q=1", "query"),
        ("a/?q=1 a:1", "header and query"), ("POST a/?q=1", "method and query"), ("a/?q=2", "plain"), ("a/?Q=1", "plain"),
        ("a/ a:2", "plain"), ("a/ c:1 d:1", "older"), ("a/ a:1 a:1", "plain"),
    ],
)  # fmt: skip
def test_precedence(request_: str, rule: str) -> None:
    assert ask(PRECEDENCE, request_) == rule


ISOLATED = table(
    {"all@* /": "all", "wild@*.example.com /": "wild", "foo@*.foo.example.com /": "foo", "one@abc.foo.example.com /one": "one"},
    {"": "all", "*.example.com": "wild", "*.foo.example.com": "foo", "abc.foo.example.com": "one"},
)


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ("bar.com/", "all"), ("bar.example.com/", "wild"), ("bar.foo.example.com/", "foo"), ("abc.foo.example.com/one", "one"),
        ("abc.foo.example.com/", None),
    ],
)  # fmt: skip
def test_listener_isolation(request_: str, rule: str | None) -> None:
    """The most specific listener owns a host; others never see it, even where it has no rule."""
    assert ask(ISOLATED, request_) == rule


@pytest.mark.parametrize(
    ("host", "name"),
    [(b"A.b", "a.b"), (b"a.b:80", "a.b"), (b"a.b.", "a.b"), (b"[::1]:80", "[::1]"), (b"[::1]", "[::1]"), (b"", "")],
)
def test_bare(host: bytes, name: str) -> None:
    assert bare(host) == name


def test_expressions_take_linear_time() -> None:
    """A backtracking engine would be at this until tomorrow."""
    found = table({"* ~/(a+)+b": "hostile"})
    assert ask(found, "h/" + "a" * 8_000) is None
    assert ask(found, "h/" + "a" * 8_000 + "b") == "hostile"


@pytest.mark.parametrize("text", ["(unclosed", "(?=ahead)", r"(a)\1", "a{1,9999}"])
def test_expressions_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        HostRules([RouteMatch(Match(PathMatch("RegularExpression", text)), Order(), "r")])


def test_a_swap_forgets_what_it_touched_and_nothing_else() -> None:
    virtual_hosts: VirtualHosts = VirtualHosts()
    a, b, new_b = (HostRules([RouteMatch(match("/"), Order(), name)]) for name in ("a", "b", "new b"))
    before = Table({"": "l"}, {("l", "a"): a, ("l", "b"): b}, virtual_hosts)
    assert ask(before, "a/") == "a"
    assert ask(before, "b/") == "b"
    before.virtual_host(b"a").plain.decision(b"GET / HTTP/1.1", DEFAULT_LIMITS)
    after = Table({"": "l"}, {("l", "a"): a, ("l", "b"): new_b}, virtual_hosts)
    assert ask(after, "b/") == "new b"
    assert after.virtual_host(b"a") is before.virtual_host(b"a"), "with all that it remembers"
    assert after.virtual_host(b"a").plain.plans
    assert ask(before, "b/") == "b", "a request keeps the table that it started with"


def test_what_sites_remember_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing.MEMORY, "most", 100)
    found = table({"* /": "root"})
    for host in (b"a", b"b"):
        for number in range(300):
            assert found.virtual_host(host).plain.decision(b"GET /%d HTTP/1.1" % number, DEFAULT_LIMITS)
    assert sum(len(found.virtual_host(host).plain.plans) for host in (b"a", b"b")) <= 101
