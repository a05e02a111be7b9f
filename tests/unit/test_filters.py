"""One table for each filter."""

from __future__ import annotations

import pytest

from gateway.filters import header_modifier, mirror, path_modifier, redirect
from gateway.http.http1 import Field, kind_of, parse_request
from gateway.snapshot import Mirror, PathEdit, Redirect, RequestHeaders


def request(target: str, host: str = "example.org"):
    return parse_request(f"GET {target} HTTP/1.1\r\nHost: {host}".encode())


def edited(spec: RequestHeaders, *lines: str) -> list[str]:
    fields = [
        Field(kind_of(n.lower().encode()), n.lower().encode(), v.strip().encode(), f"{n}:{v}".encode())
        for n, _, v in (x.partition(":") for x in lines)
    ]
    return [field.line.decode() for field in header_modifier.build(spec)(fields)]


@pytest.mark.parametrize(
    ("spec", "before", "after"),
    [
        (RequestHeaders(set=(("A", "1"),)), [], ["A: 1"]),
        (RequestHeaders(set=(("A", "1"),)), ["a: 0", "B: 2", "A: 3"], ["B: 2", "A: 1"]),
        (RequestHeaders(add=(("A", "2"),)), ["a: 1"], ["a: 1,2"]),
        (RequestHeaders(add=(("A", "2"),)), ["a: 0", "a: 1"], ["a: 0", "a: 1,2"]),
        (RequestHeaders(add=(("A", "1"),)), [], ["A: 1"]),
        (RequestHeaders(add=(("Set-Cookie", "b"),)), ["set-cookie: a"], ["set-cookie: a", "Set-Cookie: b"]),
        (RequestHeaders(remove=("A",)), ["a: 1", "B: 2", "A: 3"], ["B: 2"]),
        (RequestHeaders(set=(("A", "1"),), add=(("A", "2"),), remove=("b",)), ["A: 0", "B: 1"], ["A: 1,2"]),
        # What is set or removed, no look-alike stands for; what is added to stays.
        (RequestHeaders(set=(("X-A", "1"),)), ["X_A: 0", "x.a: 0", "X_B: 2", "XA: 3"], ["X_B: 2", "XA: 3", "X-A: 1"]),
        (RequestHeaders(remove=("X-A-B",)), ["X_A_B: 0", "X-A_B: 0", "x_a: 1", "X-A: 2"], ["x_a: 1", "X-A: 2"]),
        (RequestHeaders(add=(("X-A", "2"),)), ["X_A: 1"], ["X_A: 1", "X-A: 2"]),
        (RequestHeaders(set=(("X_A", "1"),)), ["X_A: 0", "X.A: 0"], ["X_A: 1"]),
    ],
)
def test_header_modifiers(spec: RequestHeaders, before: list[str], after: list[str]) -> None:
    assert edited(spec, *before) == after


# The table of HTTPPathModifier's documentation, and what it leaves open.
@pytest.mark.parametrize(
    ("target", "prefix", "replacement", "expected"),
    [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"), ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"), ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"), ("/foo", "/foo", "/xyz", "/xyz"), ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"), ("/foo/", "/foo", "", "/"), ("/foo", "/foo", "", "/"), ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"), ("/foo/bar?q=1", "/foo", "/xyz", "/xyz/bar?q=1"), ("/foo", "/", "/xyz", "/xyz/foo"),
    ],
)  # fmt: skip
def test_replace_prefix(target: str, prefix: str, replacement: str, expected: str) -> None:
    new_target = path_modifier.build(PathEdit("ReplacePrefixMatch", replacement))
    assert new_target(request(target), prefix.rstrip("/").encode()) == expected.encode()


def test_replace_full_path_keeps_the_query() -> None:
    assert path_modifier.build(PathEdit("ReplaceFullPath", "/new"))(request("/a/b?c=d"), b"") == b"/new?c=d"


@pytest.mark.parametrize(
    ("spec", "scheme", "port", "host", "expected"),
    [
        (Redirect(hostname="a.b"), "http", 80, "x", "http://a.b/p"),
        (Redirect(), "http", 80, "x:80", "http://x/p"),
        (Redirect(), "http", 8080, "x:8080", "http://x:8080/p"),
        (Redirect(port=8083), "http", 80, "x", "http://x:8083/p"),
        (Redirect(scheme="https"), "http", 80, "x", "https://x/p"),
        (Redirect(scheme="https"), "http", 8080, "x:8080", "https://x/p"),
        (Redirect(scheme="http"), "https", 443, "x", "http://x/p"),
        (Redirect(scheme="http", port=443), "http", 80, "x", "http://x:443/p"),
        (Redirect(scheme="https", port=443), "http", 8080, "x", "https://x/p"),
        (Redirect(port=80), "http", 8080, "x", "http://x/p"),
        (Redirect(port=443), "https", 443, "x", "https://x/p"),
        (Redirect(path=PathEdit("ReplaceFullPath", "/q")), "http", 80, "[::1]:80", "http://[::1]/q"),
    ],
)
def test_redirect(spec: Redirect, scheme: str, port: int, host: str, expected: str) -> None:
    assert redirect.build(spec)(request("/p", host), b"", scheme, port) == expected.encode()


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 100), (20, 100), (35, 100), (1, 3), (100, 100), (1, 1000)])
def test_mirrors_are_exact(numerator: int, denominator: int) -> None:
    due = mirror.build(Mirror("b", numerator, denominator))
    assert sum(due() for _ in range(denominator * 3)) == numerator * 3
