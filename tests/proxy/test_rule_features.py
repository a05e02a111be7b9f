"""CORS, retries and sessions on real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter

import msgspec
import pytest
import trustme
from support.proxy import OK, Proxy, Server, make_rule, parsed

from gateway.filters import cors
from gateway.snapshot import (
    Backend,
    Certificate,
    Cors,
    Endpoint,
    Listener,
    Persistence,
    ResponseHeaders,
    Retry,
    Target,
    Timeouts,
)  # fmt: skip


def fields_of(answer: bytes) -> dict[str, str]:
    return {k: v for k, v in parsed(answer)[1].items() if k.startswith("access-control") or k == "vary"}


async def ask(proxy: Proxy, method: str = "GET", **fields: str) -> tuple[int, dict[str, str], bytes]:
    lines = [
        f"{method} / HTTP/1.1",
        "Host: a",
        "Connection: close",
        *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items()),
    ]
    answer = await proxy.talk("\r\n".join(lines).encode() + b"\r\n\r\n")
    status, _, body = parsed(answer)
    return status, fields_of(answer), body


LISTED = Cors(
    ("https://www.foo.com", "https://*.bar.com", "http://local:*"), True, ("GET", "PUT"), ("x-one", "x-two"), ("x-seen",), 3600
)
ANYBODY = Cors(("*",), False, ("*",), ("*",), ("*",))
ANYBODY_WITH = Cors(("*",), True, ("*",), ("*",), ("*",))
NEVER = {"vary": "Origin"}  # caches must know that the answer to another origin is another one


@pytest.mark.parametrize(
    ("spec", "origin", "expected"),
    [
        (LISTED, "https://www.foo.com", {
            "access-control-allow-origin": "https://www.foo.com", "vary": "Origin", "access-control-allow-credentials": "true",
            "access-control-allow-methods": "GET, PUT", "access-control-allow-headers": "x-one, x-two", "access-control-max-age": "3600", "access-control-expose-headers": "x-seen",
        }),
        (LISTED, "https://a.b.bar.com", {
            "access-control-allow-origin": "https://a.b.bar.com", "vary": "Origin", "access-control-allow-credentials": "true",
            "access-control-allow-methods": "GET, PUT", "access-control-allow-headers": "x-one, x-two", "access-control-max-age": "3600", "access-control-expose-headers": "x-seen",
        }),
        (LISTED, "https://bar.com", NEVER),
        (LISTED, "http://www.foo.com", NEVER),
        (LISTED, "https://www.foo.com.evil.example", NEVER),
        (LISTED, "https://evil.example/.bar.com", NEVER),
        (ANYBODY, "https://x", {
            "access-control-allow-origin": "*", "access-control-allow-methods": "*", "access-control-allow-headers": "*",
            "access-control-max-age": "5", "access-control-expose-headers": "*",
        }),
        (ANYBODY_WITH, "https://x", {
            "access-control-allow-origin": "https://x", "vary": "Origin", "access-control-allow-credentials": "true",
            "access-control-allow-methods": "PUT", "access-control-allow-headers": "x-q", "access-control-max-age": "5",
        }),
    ],
)  # fmt: skip
async def test_preflights(proxy: Proxy, server: Server, spec: Cors, origin: str, expected: dict[str, str]) -> None:
    await proxy.route(server, filters=(spec,))
    status, fields, _ = await ask(
        proxy, "OPTIONS", Origin=origin, Access_Control_Request_Method="PUT", Access_Control_Request_Headers="x-q"
    )  # fmt: skip
    assert (status, fields) == (204, expected)
    assert not server.seen


@pytest.mark.parametrize(
    ("spec", "origin", "expected"),
    [
        (LISTED, "https://www.foo.com", {
            "access-control-allow-origin": "https://www.foo.com", "vary": "Origin", "access-control-allow-credentials": "true",
            "access-control-expose-headers": "x-seen",
        }),
        (LISTED, "https://other.example", NEVER),
        (ANYBODY, "https://x", {"access-control-allow-origin": "*", "access-control-expose-headers": "*"}),
        (ANYBODY_WITH, "https://x", {
            "access-control-allow-origin": "https://x", "vary": "Origin", "access-control-allow-credentials": "true",
        }),
        (LISTED, "", NEVER),
    ],
)  # fmt: skip
async def test_requests_of_pages(proxy: Proxy, server: Server, spec: Cors, origin: str, expected: dict[str, str]) -> None:
    await proxy.route(server, filters=(spec,))
    for _ in range(3):
        status, fields, body = await ask(proxy, **({"Origin": origin} if origin else {}))
        assert (status, fields, body) == (200, expected, b"ok")
    assert len(server.seen) == 3


async def test_what_the_backend_says_of_cors_is_replaced(proxy: Proxy, server: Server) -> None:
    server.default = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://evil\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n"
    )
    await proxy.route(server, filters=(ANYBODY,))
    answer = await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://x\r\nConnection: close\r\n\r\n")
    assert answer.count(b"Access-Control-Allow-Origin") == 1
    assert b"Vary: Accept\r\n" in answer


async def test_what_the_backend_lets_pages_read_is_the_policys_to_say(proxy: Proxy, server: Server) -> None:
    server.default = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    await proxy.route(server, filters=(LISTED,))
    for origin in ("Origin: https://other.example\r\n", ""):
        answer = await proxy.talk(f"GET / HTTP/1.1\r\nHost: a\r\n{origin}Connection: close\r\n\r\n".encode())
        assert b"Access-Control-Allow" not in answer
        assert b"Vary: Accept\r\n" in answer
        assert b"Vary: Origin\r\n" in answer


@pytest.mark.parametrize("allowed", ["https://a.example", "https://a.example:443", "HTTPS://A.example:443"])
@pytest.mark.parametrize("origin", ["https://a.example", "https://a.example:443"])
def test_the_port_that_a_scheme_implies(allowed: str, origin: str) -> None:
    policy = cors.build(Cors((allowed, "http://b.example:80", "https://c.example:8443")))
    assert policy.allows(origin.encode())
    assert policy.allows(b"http://b.example")
    assert policy.allows(b"https://c.example:8443")
    assert not policy.allows(b"http://b.example:443")
    assert not policy.allows(b"https://c.example")


async def test_options_that_is_no_preflight_passes(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, filters=(LISTED,))
    assert (await ask(proxy, "OPTIONS"))[0] == 200
    assert len(server.seen) == 1


# --- retries ---

FAIL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfail"
ODD = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"


async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
    writer.transport.abort()


@pytest.mark.parametrize(
    ("retry", "replies", "status", "asked"),
    [
        (Retry((503,), 2), [FAIL, FAIL], 200, 3),
        (Retry((503,), 2), [FAIL, FAIL, FAIL], 503, 3),
        (Retry((503,), 0), [FAIL], 503, 1),
        (Retry((503,), 2), [ODD], 500, 1),
        (Retry((500, 503), 3), [ODD, FAIL, ODD], 200, 4),
        (Retry((), 2), [cut, cut], 200, 3),
        (Retry((), 2), [cut, cut, cut], 503, 3),
        (None, [FAIL], 503, 1),
    ],
)
async def test_retries(proxy: Proxy, server: Server, retry: Retry | None, replies: list, status: int, asked: int) -> None:
    await proxy.route(server, retry=retry)
    server.replies = list(replies)
    assert (await ask(proxy))[0] == status
    assert len(server.seen) == asked


async def test_retries_hold_on_connections_that_take_the_short_way(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, retry=Retry((503,), 1))
    reader, writer = await proxy.connect()
    for n in range(6):
        server.replies = [FAIL] if n % 2 else []
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reader.readexactly(len(OK)) == OK
    server.replies = [FAIL] * 2
    for _ in range(2):  # the same answer twice in a row is not taken for one that is known
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        status = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        await reader.readexactly(4 if status == b"503" else 2)
        server.replies = [FAIL]
    assert len(server.seen) >= 6 + 3 + 2
    writer.close()


async def test_a_body_is_sent_again(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, retry=Retry((503,), 2))
    server.replies = [FAIL]
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    assert parsed(await proxy.talk(request))[0] == 200
    assert [seen[-5:] for seen in server.seen] == [b"hello"] * 2


async def test_a_body_too_large_to_keep_is_not(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, retry=Retry((503,), 2))
    server.replies = [FAIL]
    body = b"x" * 200_000
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    assert parsed(await proxy.talk(request + body))[0] == 503


async def test_another_endpoint_is_asked(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.route(server, other, retry=Retry((503,), 1))
    server.default = FAIL
    assert [(await ask(proxy))[0] for _ in range(6)] == [200] * 6


async def never(*_: object) -> None:
    await asyncio.sleep(5)


async def test_an_attempt_that_takes_too_long(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, retry=Retry((), 2), timeouts=Timeouts(backend_request=0.05))
    server.replies = [never, never]
    assert (await ask(proxy))[0] == 200
    server.replies = [never] * 3
    assert (await ask(proxy))[0] == 504


async def test_the_request_s_time_is_for_all_attempts(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, retry=Retry((503,), 50, 0.05), timeouts=Timeouts(request=0.3))
    server.default = FAIL
    assert (await ask(proxy))[0] == 504
    assert 3 <= len(server.seen) <= 7


# --- sessions ---


async def sessions(proxy: Proxy, server: Server, other: Server, spec: Persistence, **weights: int) -> None:
    server.default = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
    other.default = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2"
    await proxy.apply(*(Backend(n, (Endpoint("127.0.0.1", s.port),)) for n, s in (("b-1", server), ("b-2", other))))
    targets = (Target(weights.get("one", 1), "b-1"), Target(weights.get("two", 1), "b-2"))
    await proxy.route(server, persistence=spec, targets=targets)


async def whole(proxy: Proxy, **fields: str) -> tuple[dict[str, str], bytes]:
    status, got, body = await proxy.get(**fields)
    assert status == 200
    return got, body


async def test_a_cookie_leads_back(proxy: Proxy, server: Server, other: Server) -> None:
    await sessions(proxy, server, other, Persistence(cookie="sid", path="/app"), two=0)
    await proxy.apply(Backend("b-1", tuple(Endpoint("127.0.0.1", s.port) for s in (server, other))))
    got, first = await whole(proxy)
    cookie, *attributes = got["set-cookie"].split("; ")
    assert attributes == ["Path=/app", "HttpOnly"]
    for _ in range(5):
        got, body = await whole(proxy, Cookie=f"x=1; {cookie}; y=2")
        assert body == first
        assert "set-cookie" not in got
    assert Counter([(await whole(proxy))[1] for _ in range(10)]) == {b"1": 5, b"2": 5}  # who has none is shared out
    got, _ = await whole(proxy, Cookie="sid=forged")
    assert "set-cookie" in got


@pytest.mark.parametrize("spec", [Persistence(cookie="sid"), Persistence(header="X-Session", seconds=100)])
async def test_weights_choose_the_backend_and_a_session_binds_within_each(
    proxy: Proxy, server: Server, other: Server, spec: Persistence
) -> None:
    """GEP-1619: a canary's share is of requests, whatever sessions there are; at each backend a client stays where it was."""
    both = tuple(Endpoint("127.0.0.1", s.port) for s in (server, other))
    await sessions(proxy, server, other, spec)
    marked = [Target(3 - n, f"b-{n}", (ResponseHeaders(set=(("X-Backend", str(n)),)),)) for n in (1, 2)]
    await proxy.apply(Backend("b-1", both), Backend("b-2", both[::-1]), make_rule("r", targets=(*marked,), persistence=spec))
    seen: Counter[tuple[str, bytes]] = Counter()
    held: dict[str, str] = {}
    told = 0
    for _ in range(30):
        got, body = await whole(proxy, **held)
        seen[got["x-backend"], body] += 1
        given = got.get("set-cookie", "").split(";")[0] or got.get("x-session", "")
        if given:
            held = {"Cookie" if spec.cookie else "X_Session": given}
            told += 1
    assert sorted(seen.values()) == [10, 20]
    assert {backend for backend, _ in seen} == {"1", "2"}
    assert told == 2, "once at each backend; the second time it is told of both"
    # A weight of 0 gets nothing, and the session there stands until it has one again.
    await proxy.apply(make_rule("r", targets=(marked[0], Target(0, "b-2")), persistence=spec))
    for _ in range(6):
        assert (await whole(proxy, **held))[0]["x-backend"] == "1"
    await proxy.apply(make_rule("r", targets=(*marked,), persistence=spec))
    for _ in range(6):
        got, body = await whole(proxy, **held)
        assert (got["x-backend"], body) in seen


@pytest.mark.parametrize(
    ("spec", "in_the_clear", "over_tls"),
    [
        (Persistence(), "", "; Secure"),
        (Persistence(secure=True), "; Secure", "; Secure"),
        (Persistence(secure=False), "", ""),
        (Persistence(same_site="Strict"), "; SameSite=Strict", "; Secure; SameSite=Strict"),
        (Persistence(same_site="None", secure=True), "; Secure; SameSite=None", "; Secure; SameSite=None"),
        (Persistence(seconds=60, permanent=True, secure=True), "; Max-Age=60; Secure", "; Max-Age=60; Secure"),
    ],
)
async def test_attributes_of_a_cookie(
    proxy: Proxy, server: Server, other: Server, authority: trustme.CA, spec: Persistence, in_the_clear: str, over_tls: str
) -> None:
    mine = authority.issue_cert("example.com")
    chain = b"".join(one.bytes() for one in mine.cert_chain_pems).decode()
    certificate = Certificate("c", chain, mine.private_key_pem.bytes().decode())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    for domain, said in (("", ""), ("example.com", "; Domain=example.com")):
        await sessions(proxy, server, other, msgspec.structs.replace(spec, cookie="sid", domain=domain))
        got, _ = await whole(proxy)
        assert got["set-cookie"].partition(";")[2] == f" Path=/{said}; HttpOnly{in_the_clear}"
        await proxy.apply(certificate, Listener("l", 80, protocol="HTTPS", certificates=("c",)))
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="example.com")
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(5):
                _, fields, _ = parsed(await reader.read())
        finally:
            writer.close()
        assert fields["set-cookie"].partition(";")[2] == f" Path=/{said}; HttpOnly{over_tls}"


async def test_a_header_leads_back(proxy: Proxy, server: Server, other: Server) -> None:
    await sessions(proxy, server, other, Persistence(header="X-Session"), two=0)
    await proxy.apply(Backend("b-1", tuple(Endpoint("127.0.0.1", s.port) for s in (server, other))))
    got, first = await whole(proxy)
    for _ in range(4):
        assert (await whole(proxy, X_Session=got["x-session"]))[1] == first


async def test_a_session_ends_with_its_endpoint_or_its_time(
    proxy: Proxy, server: Server, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Persistence(cookie="sid", seconds=100, permanent=True)
    await sessions(proxy, server, other, spec, two=0)
    await proxy.apply(Backend("b-1", tuple(Endpoint("127.0.0.1", s.port) for s in (server, other))))
    got, body = await whole(proxy)
    assert "Max-Age=100" in got["set-cookie"]
    cookie = got["set-cookie"].split(";")[0]
    assert (await whole(proxy, Cookie=cookie))[1] == body
    gone, left = (server, other) if body == b"1" else (other, server)
    await proxy.apply(Backend("b-1", (Endpoint("127.0.0.1", left.port),)))
    got, now = await whole(proxy, Cookie=cookie)
    assert now != body
    assert "set-cookie" in got
    await proxy.apply(Backend("b-1", (Endpoint("127.0.0.1", gone.port),)))
    assert (await whole(proxy, Cookie=cookie))[1] == body
    import time

    later = time.time() + 101
    monkeypatch.setattr("gateway.upstream.session_persistence.time.time", lambda: later)
    assert "set-cookie" in (await whole(proxy, Cookie=cookie))[0]


@pytest.mark.parametrize("said", ["", "_", "." * 50, "_".join(["a.9"] * 5000), "x.99999999999999999999", "\xe4.1"])
async def test_what_a_client_says_of_its_sessions_may_be_anything(
    proxy: Proxy, server: Server, other: Server, said: str
) -> None:
    await sessions(proxy, server, other, Persistence(cookie="sid", seconds=100))
    got, _ = await whole(proxy, Cookie=f"sid={said}")
    assert len(got["set-cookie"]) < 100
