"""Messages without content: what a backend says of content that there is not, or sends in spite of it, and what a client gets.

One row for each message, by RFC 9110 §6.4.1, §8.6 and §15, RFC 9112 §6, RFC 9113 §8.1.1. Each is said three times on one connection
of a client, between answers that have content: whatever came of it, the next answer begins where this one ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from support.http2_peers import Asked, Backend2, client
from support.proxy import OK, Proxy, Server, make_rule

from gateway.snapshot import (
    Backend,
    Cors,
    Endpoint,
    ExternalAuth,
    Fault,
    Listener,
    Match,
    PathMatch,
    Redirect,
    Script,
    Scripted,
    Target,
)

# Fields that say how long a message is, or whether there is another one.
FRAMING = ("content-length", "transfer-encoding", "connection", "trailer", "keep-alive", "upgrade")
TE = "Transfer-Encoding: chunked"
CHUNKED = {"transfer-encoding": "chunked"}
ZERO = b"0\r\n\r\n"


class Got(NamedTuple):
    """What a client gets: interim statuses, the status, what of the fields is about framing, the octets that follow."""

    interim: list[int]
    status: int
    framing: dict[str, str]
    content: bytes


@pytest.fixture
async def backend() -> AsyncIterator[Backend2]:
    made = await Backend2().start()
    yield made
    await made.stop()


def fields_of(head: bytes) -> dict[str, str]:
    """What of a head's fields is about framing."""
    pairs = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:]]
    return {name.lower(): value.strip() for name, _, value in pairs if name.lower() in FRAMING}


async def told(reader: asyncio.StreamReader, content: bytes) -> Got:
    """An answer on HTTP/1.1, followed by as many octets as are expected."""
    interim = []
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        status, framing = int(head.split()[1]), fields_of(head)
        if status >= 200:
            return Got(interim, status, framing, await reader.readexactly(len(content)))
        assert not framing, "an interim response says nothing of framing"
        interim.append(status)


async def asked_by_1(proxy: Proxy, method: str, content: bytes, times: int = 3) -> list[Got]:
    """The answers to a client of HTTP/1.1, each followed by one to a GET of /ok, on one connection."""
    reader, writer = await proxy.connect()
    found = []
    try:
        async with asyncio.timeout(5):
            for _ in range(times):
                writer.write(b"%b /empty HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode())
                found.append(await told(reader, content))
                writer.write(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n")
                status, framing, after = (await told(reader, b"ok"))[1:]
                assert (status, framing.get("content-length"), after) == (200, "2", b"ok"), (
                    "the next answer begins where it should"
                )
    finally:
        writer.close()
    return found


async def asked_by_2(proxy: Proxy, method: str, times: int = 3) -> list[Got]:
    """The same of HTTP/2, by a client whose library holds content against content-length, and 204 and HEAD against content."""
    me = await client(proxy.port)
    found = []
    for _ in range(times):
        answer = await me.get("/empty", method=method)
        assert answer.reset is None
        framing = {name: value for name, value in answer.headers.items() if name in FRAMING}
        found.append(Got(answer.interim, answer.status, framing, answer.body))
        assert (await me.get("/ok")).body == b"ok"
    assert not me.goaways
    me.transport.close()
    return found


# --- what a backend of HTTP/1.1 says ---

# method, status, fields, octets behind the head → framing fields for HTTP/1.1, octets for HTTP/1.1, framing fields for HTTP/2
NOTHING: dict[str, str] = {}
TEXT = {"content-length": "2"}
NULL = {"content-length": "0"}
BY_1 = [
    # RFC 9110 §15.3.5, §8.6: no content, and nothing that says how long it is.
    ("GET", 204, [], b"", NOTHING, b"", NOTHING),
    ("GET", 204, ["Content-Length: 0"], b"", NOTHING, b"", NOTHING),
    ("GET", 204, ["Content-Length: 5"], b"", NOTHING, b"", NOTHING),
    ("GET", 204, ["Content-Length: 5"], b"hello", NOTHING, b"", NOTHING),
    ("GET", 204, ["Content-Length: 5"], OK, NOTHING, b"", NOTHING),
    ("GET", 204, [], b"hello", NOTHING, b"", NOTHING),
    ("GET", 204, [TE], b"", NOTHING, b"", NOTHING),
    ("GET", 204, [TE], ZERO, NOTHING, b"", NOTHING),
    ("GET", 204, [TE], b"5\r\nhello\r\n0\r\n\r\n", NOTHING, b"", NOTHING),
    ("GET", 204, ["Connection: close"], b"", NOTHING, b"", NOTHING),
    ("GET", 204, ["Connection: keep-alive, Content-Length", "Content-Length: 5", "Keep-Alive: timeout=1"], b"", NOTHING, b"", NOTHING),
    ("POST", 204, ["Content-Length: 5"], b"", NOTHING, b"", NOTHING),
    ("HEAD", 204, ["Content-Length: 5"], b"", NOTHING, b"", NOTHING),
    # §15.3.6: no content, but framed like any other: RFC 9112 §6.3 knows no exception.
    ("GET", 205, ["Content-Length: 0"], b"", NULL, b"", NULL),
    ("GET", 205, [TE], ZERO, CHUNKED, ZERO, NOTHING),
    ("GET", 205, ["Content-Length: 2"], b"ok", TEXT, b"ok", TEXT),
    ("HEAD", 205, ["Content-Length: 0"], b"", NULL, b"", NULL),
    # §15.4.5, §8.6: no content; a length is that of a 200.
    ("GET", 304, [], b"", NOTHING, b"", NOTHING),
    ("GET", 304, ["Content-Length: 5"], b"", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("GET", 304, ["Content-Length: 0"], b"", NULL, b"", NULL),
    ("GET", 304, ["Content-Length: 5"], b"hello", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("GET", 304, ["Content-Length: 5"], OK, {"content-length": "5"}, b"", {"content-length": "5"}),
    ("GET", 304, ["Connection: Content-Length", "Content-Length: 5"], b"", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("GET", 304, [TE], b"", NOTHING, b"", NOTHING),
    ("GET", 304, [TE], ZERO, NOTHING, b"", NOTHING),
    ("HEAD", 304, ["Content-Length: 5"], b"", {"content-length": "5"}, b"", {"content-length": "5"}),
    # §9.3.2: the head that a GET would have; RFC 9112 §6.1: also that it would come in chunks.
    ("HEAD", 200, [], b"", NOTHING, b"", NOTHING),
    ("HEAD", 200, ["Content-Length: 0"], b"", NULL, b"", NULL),
    ("HEAD", 200, ["Content-Length: 5"], b"", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("HEAD", 200, ["Content-Length: 5"], b"hello", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("HEAD", 200, ["Content-Length: 5"], OK, {"content-length": "5"}, b"", {"content-length": "5"}),
    ("HEAD", 200, [TE, "Trailer: X-Sum"], b"", {**CHUNKED, "trailer": "X-Sum"}, b"", {"trailer": "X-Sum"}),
    ("HEAD", 200, [TE], ZERO, CHUNKED, b"", NOTHING),
    ("HEAD", 200, ["Connection: close"], b"", NOTHING, b"", NOTHING),
    ("HEAD", 500, ["Content-Length: 5"], b"", {"content-length": "5"}, b"", {"content-length": "5"}),
    # No content, and it is said so.
    ("GET", 200, ["Content-Length: 0"], b"", NULL, b"", NULL),
    ("GET", 200, [TE], ZERO, CHUNKED, ZERO, NOTHING),
    ("GET", 404, ["Content-Length: 0"], b"", NULL, b"", NULL),
    # RFC 9110 §7.6.1: what frames a message is no option of a connection, whatever Connection lists.
    ("GET", 200, ["Connection: Content-Length", "Content-Length: 2"], b"ok", {"content-length": "2"}, b"ok", {"content-length": "2"}),
    ("GET", 200, ["Connection: Transfer-Encoding, x-y", TE, "X-Y: 1"], b"2\r\nok\r\n0\r\n\r\n", CHUNKED, b"2\r\nok\r\n0\r\n\r\n", NOTHING),
    ("HEAD", 200, ["Connection: Content-Length", "Content-Length: 2"], b"", {"content-length": "2"}, b"", {"content-length": "2"}),
]  # fmt: skip


def said_by_1(status: int, fields: list[str], content: bytes) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} X", *fields, "", ""]).encode() + content


def name_of(row: object) -> str:
    return " ".join(map(str, row[:4])).replace("\\r\\n", "|") if isinstance(row, tuple) else str(row)


# What stands between: nothing; a plain function, which the fast path calls; one that answers later; one that sees content in pieces.
LOOKING = {
    "": "",
    "plain": "def response(request, response):\n    response.headers['X-Seen'] = '1'",
    "later": "async def response(request, response):\n    response.headers['X-Seen'] = '1'",
    "whole": "async def response(request, response):\n    await response.body()",
    "pieces": "def response_body(chunk):\n    return chunk.data.upper()",
}


async def put(proxy: Proxy, backend: Backend, source: str) -> None:
    """Rules to a backend: /ok as it is, and all else past a filter."""
    if source:
        source = "from gateway.filters.api import Response\n" + source
        await proxy.apply(Script("s", source, execution="inline", is_tried=False))
    targets, ok = (Target(1, "b"),), (Match(PathMatch("Exact", "/ok")),)
    looked_at = make_rule("r", targets=targets, filters=(Scripted("s"),) if source else ())
    await proxy.apply(Listener("l", 80), backend, looked_at, make_rule("ok", matches=ok, targets=targets))


def looked_at(rows: list[tuple]) -> list[tuple[tuple, str]]:
    """Each row with all who may look; content that a filter may change piece by piece has no length that could be compared."""
    return [(row, who) for row in rows for who in LOOKING if who != "pieces" or row[0] == "HEAD" or row[1] in (204, 304)]


async def serve(proxy: Proxy, server: Server, reply: bytes, who: str = "", own: str = "") -> None:
    await put(proxy, Backend("b", (Endpoint("127.0.0.1", server.port),)), own or LOOKING[who])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(OK if b" /ok " in head else reply)

    server.default = answer


@pytest.mark.parametrize(("row", "who"), looked_at(BY_1), ids=name_of)
async def test_a_backend_of_http1(proxy: Proxy, server: Server, row: tuple, who: str) -> None:
    method, status, fields, content, framing, octets, framing_2 = row
    await serve(proxy, server, said_by_1(status, fields, content), who)
    assert await asked_by_1(proxy, method, octets) == [Got([], status, framing, octets)] * 3
    seen = b"ok" if b"ok" in octets else b""
    assert await asked_by_2(proxy, method) == [Got([], status, framing_2, seen)] * 3


INTERIM_BY_1 = [
    # RFC 9110 §15.2: a head, and nothing behind it, whatever it says. 100 is for those who asked for it.
    (100, [], []),
    (102, [], [102]),
    (103, ["Link: x"], [103]),
    (103, ["Content-Length: 0"], [103]),
    (103, ["Content-Length: 5"], [103]),
    (103, [TE], [103]),
    (103, ["Connection: close", "Trailer: X"], [103]),
    (199, ["Connection: Content-Length", "Content-Length: 5"], [199]),
]
FINAL = [
    (["Content-Length: 2"], b"ok", {"content-length": "2"}),
    (["Content-Length: 0"], b"", NULL),
]


@pytest.mark.parametrize("row", INTERIM_BY_1, ids=lambda row: f"{row[0]} {row[1]}")
@pytest.mark.parametrize("final", FINAL, ids=lambda final: final[0][0])
async def test_interim_responses_of_http1(proxy: Proxy, server: Server, row: tuple, final: tuple) -> None:
    status, fields, interim = row
    said, content, framing = final
    await serve(proxy, server, said_by_1(status, fields, b"") + said_by_1(200, said, content))
    assert await asked_by_1(proxy, "GET", content) == [Got(interim, 200, framing, content)] * 3
    assert await asked_by_2(proxy, "GET") == [Got(interim, 200, framing, content)] * 3


# --- what a backend of HTTP/2 says ---

# method, status, fields, what follows: nothing (the head ends the stream), b"" (a frame without octets does), or content
# → framing fields for HTTP/1.1, octets for HTTP/1.1, framing fields for HTTP/2
FIVE = [("content-length", "5")]
BY_2 = [
    ("GET", 204, [], None, NOTHING, b"", NOTHING),
    ("GET", 204, [], b"", NOTHING, b"", NOTHING),
    ("GET", 204, [("content-length", "0")], None, NOTHING, b"", NOTHING),
    ("GET", 204, FIVE, None, NOTHING, b"", NOTHING),
    ("GET", 204, FIVE, b"", NOTHING, b"", NOTHING),
    ("GET", 204, [], b"hello", NOTHING, b"", NOTHING),
    ("GET", 204, FIVE, b"hello", NOTHING, b"", NOTHING),
    ("GET", 204, [], OK, NOTHING, b"", NOTHING),
    ("HEAD", 204, [], OK, NOTHING, b"", NOTHING),
    ("GET", 205, [], None, NULL, b"", NULL),
    ("GET", 205, [], b"", CHUNKED, ZERO, NOTHING),
    ("GET", 205, [("content-length", "0")], None, NULL, b"", NULL),
    ("GET", 304, [], None, NOTHING, b"", NOTHING),
    ("GET", 304, [], b"", NOTHING, b"", NOTHING),
    ("GET", 304, FIVE, None, {"content-length": "5"}, b"", {"content-length": "5"}),
    ("GET", 304, FIVE, b"", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("GET", 304, FIVE, b"hello", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("GET", 304, [], OK, NOTHING, b"", NOTHING),
    # RFC 9110 §8.6: a length is that of a GET, so that none is made up.
    ("HEAD", 200, [], None, NOTHING, b"", NOTHING),
    ("HEAD", 200, [], b"", NOTHING, b"", NOTHING),
    ("HEAD", 200, FIVE, None, {"content-length": "5"}, b"", {"content-length": "5"}),
    ("HEAD", 200, FIVE, b"", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("HEAD", 200, FIVE, b"hello", {"content-length": "5"}, b"", {"content-length": "5"}),
    ("HEAD", 200, [], OK, NOTHING, b"", NOTHING),
    ("HEAD", 404, [], None, NOTHING, b"", NOTHING),
    ("GET", 200, [], None, NULL, b"", NULL),
    ("GET", 200, [("content-length", "0")], b"", NULL, b"", NULL),
    ("GET", 200, [], b"", CHUNKED, ZERO, NOTHING),
]  # fmt: skip


async def serve_2(
    proxy: Proxy, backend: Backend2, *said: tuple[int, list[tuple[str, str]], bytes | None], who: str = ""
) -> None:
    await put(proxy, Backend("b", (Endpoint("127.0.0.1", backend.port),), "h2c"), LOOKING[who])

    async def answer(asked: Asked) -> None:
        await asked.ended.wait()
        if asked.headers[":path"] == "/ok":
            asked.reply(200, [("content-length", "2")])
            await asked.send(b"ok", end=True)
            return
        for status, fields, content in said:
            asked.reply(status, fields, end=content is None and status >= 200)
            if content == b"":
                asked.speaker.h2.send_data(asked.stream, b"", end_stream=True)
                asked.speaker.flush()
            elif content is not None:
                await asked.send(content, end=True)

    backend.default = answer


@pytest.mark.parametrize(("row", "who"), looked_at(BY_2), ids=name_of)
async def test_a_backend_of_http2(proxy: Proxy, backend: Backend2, row: tuple, who: str) -> None:
    method, status, fields, content, framing, octets, framing_2 = row
    await serve_2(proxy, backend, (status, fields, content), who=who)
    assert await asked_by_1(proxy, method, octets) == [Got([], status, framing, octets)] * 3
    assert await asked_by_2(proxy, method) == [Got([], status, framing_2, b"")] * 3


@pytest.mark.parametrize("status", [100, 102, 103])
@pytest.mark.parametrize("fields", [[], FIVE, [("content-length", "0")]], ids=str)
async def test_interim_responses_of_http2(proxy: Proxy, backend: Backend2, status: int, fields: list[tuple[str, str]]) -> None:
    await serve_2(proxy, backend, (status, fields, None), (200, [("content-length", "2")], b"ok"))
    interim = [status] if status != 100 else []
    expected = [Got(interim, 200, {"content-length": "2"}, b"ok")] * 3
    assert await asked_by_1(proxy, "GET", b"ok") == expected
    assert await asked_by_2(proxy, "GET") == expected


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_length_that_the_end_of_the_stream_belies_is_502(proxy: Proxy, backend: Backend2, method: str) -> None:
    """RFC 9113 §8.1.1: malformed; nothing of it has gone to the client yet."""
    await serve_2(proxy, backend, (200, FIVE, None))
    me = await client(proxy.port)
    assert (await me.get("/empty", method=method)).status == 502
    assert (await proxy.talk(f"{method} /empty HTTP/1.1\r\nHost: a\r\n\r\n".encode())).startswith(b"HTTP/1.1 502 ")


# --- answers that are made here ---

# What a filter says → framing fields, content for a GET; a HEAD gets the same fields, and a client of HTTP/2 the same in all.
BY_FILTERS = [
    ("def request(request):\n    return Response(200, 'no')", 200, TEXT, b"no"),
    ("def request(request):\n    return Response(200)", 200, NULL, b""),
    ("def request(request):\n    return Response(204)", 204, NOTHING, b""),
    ("def request(request):\n    return Response(204, 'no')", 204, NOTHING, b""),
    ("def request(request):\n    return Response(205)", 205, NULL, b""),
    ("def request(request):\n    return Response(205, 'no')", 205, NULL, b""),
    ("def request(request):\n    return Response(304, 'no')", 304, NOTHING, b""),
    ("async def request(request):\n    return Response(205, 'no')", 205, NULL, b""),
    ("def response(request, response):\n    return Response(205, 'no')", 205, NULL, b""),
    ("def response(request, response):\n    return Response(204, 'no')", 204, NOTHING, b""),
    ("def response(request, response):\n    return Response(304, 'no')", 304, NOTHING, b""),
    ("def response(request, response):\n    response.status = 204", 204, NOTHING, b""),
    ("def response(request, response):\n    response.status = 205", 205, NULL, b""),
    ("def response(request, response):\n    response.status = 304", 304, NOTHING, b""),
    ("def response(request, response):\n    response.set_body('no')\n    response.status = 205", 205, NULL, b""),
    ("def response(request, response):\n    response.set_body('no')\n    response.status = 204", 204, NOTHING, b""),
    ("async def response(request, response):\n    await response.body()\n    response.status = 205", 205, NULL, b""),
    ("def response(request, response):\n    response.set_body('no')", 200, TEXT, b"no"),
    ("def response(request, response):\n    response.set_body('')", 200, NULL, b""),
]  # fmt: skip


@pytest.mark.parametrize("framing_of_backend", ["Content-Length: 5", TE])
@pytest.mark.parametrize("row", BY_FILTERS, ids=lambda row: row[0].replace("\n", ""))
async def test_a_filters_own_answer(proxy: Proxy, server: Server, row: tuple, framing_of_backend: str) -> None:
    source, status, framing, content = row
    body = b"hello" if framing_of_backend != TE else b"5\r\nhello\r\n0\r\n\r\n"
    await serve(proxy, server, said_by_1(200, [framing_of_backend], body), own=source)
    assert await asked_by_1(proxy, "GET", content) == [Got([], status, framing, content)] * 3
    assert await asked_by_2(proxy, "GET") == [Got([], status, framing, content)] * 3


@pytest.mark.parametrize("row", [row for row in BY_FILTERS if "Response(" in row[0]], ids=lambda row: row[0].replace("\n", ""))
async def test_a_filters_own_answer_to_head(proxy: Proxy, server: Server, row: tuple) -> None:
    source, status, framing, _ = row
    await serve(proxy, server, said_by_1(200, ["Content-Length: 5"], b""), own=source)
    assert await asked_by_1(proxy, "HEAD", b"") == [Got([], status, framing, b"")] * 3
    assert await asked_by_2(proxy, "HEAD") == [Got([], status, framing, b"")] * 3


# What an authorization server says in place of yes → framing fields, content
BY_SERVERS = [
    ("GET", 403, ["Content-Length: 2"], b"no", TEXT, b"no"),
    ("GET", 403, [TE, "Trailer: X-Sum"], b"2\r\nno\r\n0\r\nX-Sum: 1\r\n\r\n", TEXT, b"no"),
    ("GET", 403, ["Content-Length: 0"], b"", NULL, b""),
    ("GET", 204, ["Content-Length: 2"], b"", NOTHING, b""),
    ("GET", 204, [], b"", NOTHING, b""),
    ("GET", 205, ["Content-Length: 2"], b"no", NULL, b""),
    ("GET", 304, ["Content-Length: 2"], b"", NOTHING, b""),
    ("GET", 403, ["Connection: Content-Length", "Content-Length: 2"], b"no", TEXT, b"no"),
    # RFC 9110 §8.6: nobody knows how long the content of a GET would be.
    ("HEAD", 403, ["Content-Length: 2"], b"", NOTHING, b""),
    ("HEAD", 403, [TE], b"", NOTHING, b""),
    ("HEAD", 204, [], b"", NOTHING, b""),
]  # fmt: skip


@pytest.mark.parametrize("row", BY_SERVERS, ids=name_of)
async def test_an_authorization_servers_answer(proxy: Proxy, server: Server, other: Server, row: tuple) -> None:
    method, status, fields, content, framing, octets = row
    other.default = said_by_1(status, fields, content)
    await serve(proxy, server, OK)
    auth = Backend("auth", (Endpoint("127.0.0.1", other.port),))
    await proxy.apply(auth, make_rule("r", targets=(Target(1, "b"),), filters=(ExternalAuth("auth"),)))
    assert await asked_by_1(proxy, method, octets) == [Got([], status, framing, octets)] * 3
    assert await asked_by_2(proxy, method) == [Got([], status, framing, octets)] * 3
    assert all(b" /ok " in seen for seen in server.seen)


# Answers of the gateway's own → framing fields, content
BY_US = [
    (Fault(503, "no"), "GET", 503, {"content-length": "3"}, b"no\n"),
    (Fault(503, "no"), "HEAD", 503, {"content-length": "3"}, b""),
    (Fault(205, "no"), "GET", 205, NULL, b""),
    (Redirect(status=302, scheme="https"), "GET", 302, NULL, b""),
    (Redirect(status=302, scheme="https"), "HEAD", 302, NULL, b""),
]


@pytest.mark.parametrize("row", BY_US, ids=str)
async def test_answers_of_ours(proxy: Proxy, server: Server, row: tuple) -> None:
    how, method, status, framing, content = row
    await serve(proxy, server, OK)
    await proxy.apply(make_rule("r", targets=(Target(1, "b"),), filters=(how,)))
    assert await asked_by_1(proxy, method, content) == [Got([], status, framing, content)] * 3
    assert await asked_by_2(proxy, method) == [Got([], status, framing, content)] * 3


async def test_a_preflight_has_no_content(proxy: Proxy, server: Server) -> None:
    await serve(proxy, server, OK)
    await proxy.apply(make_rule("r", targets=(Target(1, "b"),), filters=(Cors(("*",)),)))
    asked = b"OPTIONS /empty HTTP/1.1\r\nHost: a\r\nOrigin: https://x\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
    reader, writer = await proxy.connect()
    try:
        async with asyncio.timeout(5):
            for _ in range(3):
                writer.write(asked)
                assert await told(reader, b"") == Got([], 204, NOTHING, b"")
    finally:
        writer.close()


# --- what a client sends ---

# method, fields, octets behind the head → framing fields for a backend of HTTP/1.1, octets there, length and content on HTTP/2
EXPECTS = "Expect: 100-continue"
ASKED_BY_1 = [
    ("GET", [], b"", NOTHING, b"", None, b""),
    ("GET", ["Content-Length: 0"], b"", NULL, b"", "0", b""),
    ("GET", ["Content-Length: 2"], b"hi", TEXT, b"hi", "2", b"hi"),
    ("GET", [TE], ZERO, CHUNKED, ZERO, None, b""),
    ("GET", ["Connection: Content-Length", "Content-Length: 2"], b"hi", TEXT, b"hi", "2", b"hi"),
    ("GET", ["Connection: Transfer-Encoding", TE], ZERO, CHUNKED, ZERO, None, b""),
    ("HEAD", [], b"", NOTHING, b"", None, b""),
    ("HEAD", ["Content-Length: 0"], b"", NULL, b"", "0", b""),
    ("HEAD", ["Content-Length: 2"], b"hi", TEXT, b"hi", "2", b"hi"),
    ("HEAD", [TE], b"2\r\nhi\r\n0\r\n\r\n", CHUNKED, b"2\r\nhi\r\n0\r\n\r\n", None, b"hi"),
    ("DELETE", ["Content-Length: 2"], b"hi", TEXT, b"hi", "2", b"hi"),
    ("POST", [], b"", NOTHING, b"", None, b""),
    ("POST", ["Content-Length: 0"], b"", NULL, b"", "0", b""),
    ("POST", [TE, "Trailer: X-Sum"], ZERO, {**CHUNKED, "trailer": "X-Sum"}, ZERO, None, b""),
    ("GET", [EXPECTS], b"", NOTHING, b"", None, b""),
    ("POST", [EXPECTS, "Content-Length: 0"], b"", NULL, b"", "0", b""),
    ("HEAD", [EXPECTS, "Content-Length: 2"], b"hi", TEXT, b"hi", "2", b"hi"),
]  # fmt: skip


@pytest.mark.parametrize("row", ASKED_BY_1, ids=name_of)
async def test_a_client_of_http1(proxy: Proxy, server: Server, backend: Backend2, row: tuple) -> None:
    method, fields, content, framing, octets, length, seen = row
    asked = "\r\n".join([f"{method} /x HTTP/1.1", "Host: a", *fields, "", ""]).encode() + content
    expected = Got([], 200, TEXT, b"" if method == "HEAD" else b"ok")

    async def ask() -> None:
        reader, writer = await proxy.connect()
        try:
            async with asyncio.timeout(5):
                for _ in range(3):
                    writer.write(asked)
                    assert await told(reader, expected.content) == expected
        finally:
            writer.close()

    server.default = said_by_1(200, ["Content-Length: 2"], expected.content)
    await put(proxy, Backend("b", (Endpoint("127.0.0.1", server.port),)), "")
    await ask()
    for one in server.seen:
        head, _, behind = one.partition(b"\r\n\r\n")
        assert (fields_of(head), behind) == (framing, octets)
    await serve_2(proxy, backend, (200, [("content-length", "2")], None if method == "HEAD" else b"ok"))
    await ask()
    assert len(server.seen) == len(backend.seen) == 3
    for other in backend.seen:
        assert (other.headers.get("content-length"), other.body) == (length, seen)
        assert other.headers.keys().isdisjoint(("transfer-encoding", "connection"))


# The same of HTTP/2: method, fields, what follows (None: nothing, the head ends the stream)
ASKED_BY_2 = [
    ("GET", [], None, NOTHING, b"", None, b""),
    ("GET", [("content-length", "0")], None, NULL, b"", "0", b""),
    ("GET", [("content-length", "0")], b"", NULL, b"", "0", b""),
    ("GET", [], b"", CHUNKED, ZERO, None, b""),
    ("GET", [], b"hi", CHUNKED, b"2\r\nhi\r\n0\r\n\r\n", None, b"hi"),
    ("HEAD", [], None, NOTHING, b"", None, b""),
    ("HEAD", [("content-length", "2")], b"hi", TEXT, b"hi", "2", b"hi"),
    ("HEAD", [], b"hi", CHUNKED, b"2\r\nhi\r\n0\r\n\r\n", None, b"hi"),
    ("POST", [], None, NOTHING, b"", None, b""),
    ("POST", [("content-length", "0")], None, NULL, b"", "0", b""),
    ("POST", [("content-length", "0"), ("expect", "100-continue")], None, NULL, b"", "0", b""),
    ("GET", [("expect", "100-continue")], None, NOTHING, b"", None, b""),
]  # fmt: skip


async def ask_2(port: int, method: str, fields: list[tuple[str, str]], content: bytes | None, times: int = 3) -> None:
    me = await client(port)
    for _ in range(times):
        stream = me.ask("/x", method=method, more=fields, end=content is None)
        if content is not None:
            me.h2.send_data(stream, content, end_stream=True)
            me.flush()
        answer = await me.answer(stream)
        assert (answer.status, answer.reset, answer.body) == (200, None, b"" if method == "HEAD" else b"ok")
    me.transport.close()


@pytest.mark.parametrize("row", ASKED_BY_2, ids=name_of)
async def test_a_client_of_http2(proxy: Proxy, server: Server, backend: Backend2, row: tuple) -> None:
    method, fields, content, framing, octets, length, seen = row
    server.default = said_by_1(200, ["Content-Length: 2"], b"" if method == "HEAD" else b"ok")
    await put(proxy, Backend("b", (Endpoint("127.0.0.1", server.port),)), "")
    await ask_2(proxy.port, method, fields, content)
    for one in server.seen:
        head, _, behind = one.partition(b"\r\n\r\n")
        assert (fields_of(head), behind) == (framing, octets)
    await serve_2(proxy, backend, (200, [("content-length", "2")], None if method == "HEAD" else b"ok"))
    await ask_2(proxy.port, method, fields, content)
    assert len(server.seen) == len(backend.seen) == 3
    for other in backend.seen:
        assert (other.headers.get("content-length"), other.body) == (length, seen)
