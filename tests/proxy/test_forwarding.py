"""What reaches the backend, and what reaches the client."""

from __future__ import annotations

import asyncio

import pytest
from support.proxy import OK, Proxy, Server, make_rule, parsed

from gateway.http.chunked import Chunks
from gateway.snapshot import (
    Backend,
    Endpoint,
    Match,
    Mirror,
    PathEdit,
    PathMatch,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
    Target,
    ValueMatch,
)


async def test_the_head_is_written_anew_and_forwarding_fields_are_added(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    await proxy.talk(
        b"GET /a?b=c HTTP/1.1\r\nhost: Example.com:8080\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        b"Keep-Alive: timeout=5\r\nConnection: close, X-Private\r\nX-Private: 1\r\nTE: trailers\r\nX-Kept:  yes \r\n\r\n"
    )
    assert server.seen == [
        b"GET /a?b=c HTTP/1.1\r\nHost: Example.com:8080\r\nX-Kept:  yes \r\nX-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n"
        b"X-Forwarded-Proto: http\r\nX-Forwarded-Host: Example.com:8080\r\n\r\n"
    ]


async def test_hop_by_hop_fields_of_the_response_stay_behind(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    server.replies = [
        b"HTTP/1.1 200 Fine\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Length: 2\r\n\r\nhi"
    ]
    answer = await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer == b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nhi"


async def test_one_client_connection_and_one_backend_connection_serve_many_requests(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    reader, writer = await proxy.connect()
    for number in range(50):
        writer.write(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        assert await reader.readexactly(len(OK)) == OK
    writer.close()
    assert server.connections == 1
    assert [head.split()[1] for head in server.seen] == [b"/%d" % number for number in range(50)]


async def test_pipelined_requests_are_answered_in_order(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    server.replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5)]
    request = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    answer = await _read_n(proxy, b"".join(request % n for n in range(5)), 5)
    assert [part[-1:] for part in answer] == [b"0", b"1", b"2", b"3", b"4"]
    assert all(seen.endswith(b"abc") for seen in server.seen)


async def _read_n(proxy: Proxy, data: bytes, count: int) -> list[bytes]:
    reader, writer = await proxy.connect()
    writer.write(data)
    found = []
    for _ in range(count):
        head = await reader.readuntil(b"\r\n\r\n")
        found.append(head + await reader.readexactly(1))
    writer.close()
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_a_request_split_anywhere_is_the_same_request(proxy: Proxy, server: Server, size: int) -> None:
    await proxy.route(server)
    data = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        server.seen[-1] += await reader.readuntil(b"X-Trailer: 1\r\n\r\n")
        writer.write(OK)

    server.replies = [reply]
    reader, writer = await proxy.connect()
    for at in range(0, len(data), size):
        writer.write(data[at : at + size])
        await asyncio.sleep(0)
    assert await reader.readexactly(len(OK)) == OK
    writer.close()
    assert whole_chunks(server.seen[0]).endswith(b"\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n")


def whole_chunks(message: bytes) -> bytes:
    """The message as if all of its content had been there at once: the sizes of chunks depend on when it comes."""
    head, _, body = message.partition(b"\r\n\r\n")
    chunks = Chunks()
    assert chunks.feed(body) == len(body)
    return head + b"\r\n\r\n" + chunks.framed()


@pytest.mark.parametrize("size", [1, 2, 5, 64])
async def test_a_response_split_anywhere_is_the_same_response(proxy: Proxy, server: Server, size: int) -> None:
    await proxy.route(server)
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)

    server.default = reply
    for _ in range(2):
        assert whole_chunks(await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True)) == data
    assert server.connections == 1


@pytest.mark.parametrize(
    ("request_line", "reply", "expected"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            b"GET",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        ),
    ],
)
async def test_responses_without_a_body(
    proxy: Proxy, server: Server, request_line: bytes, reply: bytes, expected: bytes
) -> None:
    await proxy.route(server)
    server.default = reply
    reader, writer = await proxy.connect()
    for _ in range(3):
        writer.write(request_line + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reader.readexactly(len(expected)) == expected
    writer.close()
    assert server.connections == 1


async def test_a_body_that_ends_with_the_connection(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil ")
        await writer.drain()
        writer.write(b"the end")
        writer.close()

    server.default = reply
    answer = await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=False)
    assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end"


async def test_http_1_0_clients_get_no_chunks(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    server.default = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    answer = await proxy.talk(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", half_close=False)
    assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde"


async def test_http_1_0_keep_alive(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    reader, writer = await proxy.connect()
    expected = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
    for _ in range(2):
        writer.write(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        assert await reader.readexactly(len(expected)) == expected
    writer.close()


async def test_http_1_0_expectations_are_ignored(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    await proxy.talk(b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", half_close=False)
    assert b"Expect" not in server.seen[0]


async def test_absolute_form(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, hostname="a.example")
    status, _, _ = parsed(await proxy.talk(b"GET http://A.example/x?y HTTP/1.1\r\nHost: a.EXAMPLE\r\n\r\n"))
    assert status == 200
    assert server.seen[0].startswith(b"GET /x?y HTTP/1.1\r\nHost: A.example\r\n")


async def test_expect_100_continue(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(5) == b"hello"
        writer.write(OK)

    server.replies = [reply]
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert await reader.readexactly(len(OK)) == OK
    writer.close()


async def test_early_hints_pass(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    server.default = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
    assert await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == server.default


async def test_header_modifiers(proxy: Proxy, server: Server) -> None:
    await proxy.route(
        server,
        filters=(
            RequestHeaders(set=(("X-Set", "1"),), add=(("X-Add", "b"), ("X-New", "n")), remove=("x-gone",)),
            ResponseHeaders(set=(("Server", "gw"),), add=(("Set-Cookie", "b=2"),), remove=("X-Powered-By",)),
        ),
    )
    server.default = b"HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: a=1\r\nX-Powered-By: php\r\nContent-Length: 2\r\n\r\nok"
    answer = await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nx-set: 0\r\nx-set: 2\r\nX-Add: a\r\nX-Gone: 1\r\n\r\n")
    assert answer == (b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\nServer: gw\r\nSet-Cookie: b=2\r\n\r\nok")
    lines = server.seen[0].split(b"\r\n")
    assert b"X-Set: 1" in lines
    assert b"X-Add: a,b" in lines
    assert b"X-New: n" in lines
    assert not [line for line in lines if line.lower().startswith((b"x-gone", b"x-set: 0", b"x-set: 2"))]


async def test_a_targets_own_filters_apply_only_to_it(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.apply(
        Backend("one", (Endpoint("127.0.0.1", server.port),)), Backend("two", (Endpoint("127.0.0.1", other.port),))
    )
    await proxy.route(
        server,
        targets=(
            Target(1, "one", (RequestHeaders(set=(("Backend", "one"),)),)),
            Target(1, "two", (RequestHeaders(set=(("Backend", "two"),)),)),
        ),
    )
    for _ in range(10):
        await proxy.get()
    assert len(server.seen) == len(other.seen) == 5
    assert all(b"\r\nBackend: one\r\n" in head for head in server.seen)
    assert all(b"\r\nBackend: two\r\n" in head for head in other.seen)


async def test_rewrite(proxy: Proxy, server: Server) -> None:
    await proxy.route(
        server,
        matches=(Match(PathMatch("PathPrefix", "/old")),),
        filters=(Rewrite("inner.example", PathEdit("ReplacePrefixMatch", "/new")),),
    )
    await proxy.get("/old/a?q=1")
    assert server.seen[0].startswith(b"GET /new/a?q=1 HTTP/1.1\r\nHost: inner.example\r\n")


async def test_redirect_answers_without_a_backend(proxy: Proxy) -> None:
    await proxy.route(filters=(Redirect(scheme="https", status=301),), targets=())
    status, fields, _ = await proxy.get("/a?b=c", host="example.com:8080")
    assert (status, fields["location"]) == (301, "https://example.com/a?b=c")


async def test_mirrors_get_a_copy_and_a_dead_one_hurts_nobody(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.apply(
        Backend("mirror", (Endpoint("127.0.0.1", other.port),)), Backend("dead", (Endpoint("127.0.0.1", 1),)), Backend("empty")
    )
    await proxy.route(server, filters=(Mirror("mirror"), Mirror("dead"), Mirror("empty"), Mirror("mirror", 1, 2)))
    for _ in range(4):
        answer = await proxy.talk(b"POST /m HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        assert parsed(answer)[0] == 200
    async with asyncio.timeout(5):
        while len(other.seen) < 6:
            await asyncio.sleep(0.01)
    assert all(seen.endswith(b"\r\n\r\nbody") and seen.startswith(b"POST /m ") for seen in other.seen)
    assert len(other.seen) == 6


async def test_matches_by_method_header_and_query(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.apply(Backend("other", (Endpoint("127.0.0.1", other.port),)))
    special = Match(method="GET", headers=(ValueMatch("X-Version", "v.*", regex=True),), query=(ValueMatch("a", "b c"),))
    await proxy.apply(make_rule("special", matches=(special,), targets=(Target(1, "other"),)))
    await proxy.route(server)
    await proxy.get("/?a=b%20c", X_Version="v2")
    await proxy.get("/?a=b+c&a=x", X_Version="v2")
    assert len(other.seen) == 2
    await proxy.get("/?a=x&a=b+c", X_Version="v2")
    await proxy.get("/?a=b+c", X_Version="2v2")
    await proxy.get("/")
    assert (len(other.seen), len(server.seen)) == (2, 3)


async def test_weights_are_exact_and_zero_is_never(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.apply(
        Backend("one", (Endpoint("127.0.0.1", server.port),)), Backend("two", (Endpoint("127.0.0.1", other.port),))
    )
    await proxy.route(server, targets=(Target(70, "one"), Target(30, "two"), Target(0, "nowhere")))
    for _ in range(100):
        assert (await proxy.get())[0] == 200
    assert (len(server.seen), len(other.seen)) == (70, 30)
