"""What a backend says of where its answer ends, and what a client gets: written anew, or 502; interim responses as well.

Each answer comes several times on one connection, so that it also takes the way of answers whose heads are known.
"""

from __future__ import annotations

import asyncio
import re

import pytest
from support.http2_peers import Asked, Backend2, client
from support.proxy import OK, Proxy, Server, make_rule, parsed

from gateway.http.http1 import MAX_INTERIM
from gateway.snapshot import Backend, Endpoint, Listener, Target

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def said(status: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


TE = b"Transfer-Encoding: chunked"
REWRITTEN = [
    (said(b"200 OK", b"Content-Length: 002", body=b"ok"), said(b"200 OK", b"Content-Length: 2", body=b"ok")),
    (said(b"200 OK", b"content-length:2", body=b"ok"), said(b"200 OK", b"content-length: 2", body=b"ok")),
    (said(b"200 OK", b"Content-Length:  \t2 ", body=b"ok"), said(b"200 OK", b"Content-Length: 2", body=b"ok")),
    (said(b"200 OK", b"Content-Length: 010", body=b"0123456789"), said(b"200 OK", b"Content-Length: 10", body=b"0123456789")),
    (said(b"200 OK", b"transfer-encoding:\tCHUNKED", body=b'02;a="b"\r\nok\r\n00;c\r\n\r\n'), said(b"200 OK", TE, body=b"2\r\nok\r\n0\r\n\r\n")),
    (said(b"200 OK", TE, body=b"1\r\no\r\n1\r\nk\r\n000\r\nX-Sum: 1\r\nContent_Length: 9\r\n\r\n"),
     said(b"200 OK", TE, body=b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")),
    (said(b"200 OK", b"Content_Length: 9", b"Transfer_Encoding: x", b"X_Fine: 1", b"Content-Length: 2", body=b"ok"),
     said(b"200 OK", b"X_Fine: 1", b"Content-Length: 2", body=b"ok")),
    # RFC 9110 §8.6, RFC 9112 §6.1: neither 1xx nor 204 says how long it is.
    (said(b"204 No Content", b"Content-Length: 5"), said(b"204 No Content")),
    (said(b"204 No Content", TE), said(b"204 No Content")),
    (said(b"304 Not Modified", TE, b"ETag: x"), said(b"304 Not Modified", b"ETag: x")),
    (said(b"304 Not Modified", b"Content-Length: 05"), said(b"304 Not Modified", b"Content-Length: 5")),
    (said(b"103 Early Hints", b"Link: x", b"Content-Length: 5", b"Connection: close", b"Upgrade: x") + OK, said(b"103 Early Hints", b"Link: x") + OK),
    (said(b"103 Early Hints", b"Link: x", TE, b"Connection: x-y", b"X-Y: 1") + OK, said(b"103 Early Hints", b"Link: x") + OK),
    # Nobody asked to be told to continue.
    (said(b"100 Continue") + OK, OK),
    (said(b"100 Continue") * 3 + said(b"102 Processing") + OK, said(b"102 Processing") + OK),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "expected"), REWRITTEN, ids=lambda value: re.sub(r"[^\x21-\x7e]", ".", repr(value)[2:90]))
async def test_answers_are_framed_anew(proxy: Proxy, server: Server, reply: bytes, expected: bytes) -> None:
    await proxy.route(server)
    server.default = reply
    reader, writer = await proxy.connect()
    async with asyncio.timeout(5):
        for _ in range(5):
            writer.write(GET)
            assert await reader.readexactly(len(expected)) == expected
    server.default = OK
    writer.write(GET)
    assert await reader.readexactly(len(OK)) == OK, "nothing is left over"
    writer.close()
    assert server.connections == 1


async def test_a_length_in_a_slot_is_written_anew(proxy: Proxy, server: Server) -> None:
    """Heads that differ in nothing but values are not parsed any more; a length is looked at in any case."""
    await proxy.route(server)
    reader, writer = await proxy.connect()
    for n in range(40):
        body = b"x" * (n % 9 + 1)
        length = b"%d" % len(body) if n % 3 else b"%03d" % len(body)
        server.replies = [said(b"200 OK", b"ETag: %d" % n, b"Content-Length: " + length, body=body)]
        writer.write(GET)
        expected = said(b"200 OK", b"ETag: %d" % n, b"Content-Length: %d" % len(body), body=body)
        assert await reader.readexactly(len(expected)) == expected
    writer.close()


async def test_on_http2_as_well(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    me = await client(proxy.port)
    for reply, length, body in (
        (said(b"200 OK", b"Content-Length: 002", body=b"ok"), "2", b"ok"),
        (said(b"204 No Content", b"Content-Length: 5"), None, b""),
        (said(b"204 No Content", TE), None, b""),
        (said(b"200 OK", TE, body=b"2;a\r\nok\r\n0\r\n\r\n"), None, b"ok"),
    ):
        server.default = reply
        for _ in range(3):
            answer = await me.get()
            assert (answer.headers.get("content-length"), answer.body, answer.reset) == (length, body, None)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    ("expects", "body", "interim"),
    [(False, False, []), (False, True, []), (True, True, [100])],
    ids=["plain", "body", "expects"],
)
async def test_only_who_waits_is_told_to_continue(
    proxy: Proxy, server: Server, version: str, expects: bool, body: bool, interim: list[int]
) -> None:
    """RFC 9110 §15.2.1; and once, however often the backend says so."""
    await proxy.route(server)
    server.default = said(b"100 Continue") * 3 + OK
    if version == "2":
        me = await client(proxy.port)
        stream = me.ask(method="POST", more=[("expect", "100-continue")] if expects else [], end=not body)
        if body:
            await me.send(stream, b"hello", end=True)
        answer = await me.answer(stream)
        assert (answer.status, answer.interim, answer.body) == (200, interim, b"ok")
        return
    sent = (
        b"POST / HTTP/1.1\r\nHost: a\r\n"
        + b"Expect: 100-continue\r\n" * expects
        + (b"Content-Length: 5\r\n\r\nhello" if body else b"\r\n")
    )
    assert await proxy.talk(sent) == said(b"100 Continue") * len(interim) + OK


@pytest.mark.parametrize("fields", [(), (b"Expect: 100-continue",)])
async def test_http_1_0_gets_no_interim_response(proxy: Proxy, server: Server, fields: tuple[bytes, ...]) -> None:
    await proxy.route(server)
    server.default = said(b"100 Continue") + said(b"103 Early Hints", b"Link: x") + OK
    sent = b"POST / HTTP/1.0\r\nHost: a\r\n" + b"".join(field + b"\r\n" for field in fields) + b"Content-Length: 5\r\n\r\nhello"
    answer = await proxy.talk(sent)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    ("interim", "passes"),
    [
        (said(b"103 Early Hints", b"Link: x") * MAX_INTERIM, True),
        (said(b"103 Early Hints", b"Link: x") * (MAX_INTERIM + 1), False),
        (said(b"100 Continue") * 10_000, False),
        (said(b"103 Early Hints", b"Link: " + b"x" * 30_000) * 3, False),
    ],
    ids=["as many as may", "one more", "10,000", "long ones"],
)
async def test_interim_responses_without_end_are_502(
    proxy: Proxy, server: Server, version: str, interim: bytes, passes: bool
) -> None:
    await proxy.route(server)
    server.default = interim + OK
    if version == "2":
        me = await client(proxy.port)
        answer = await me.get()
        assert answer.status == (200 if passes else 502)
        assert len(answer.interim) <= MAX_INTERIM
        assert (await me.get()).status == answer.status, "the connection goes on"
    else:
        status = re.findall(rb"HTTP/1\.1 ([2-5]..)", await proxy.talk(GET))
        assert status == [b"200" if passes else b"502"]
    (counter,) = proxy.runtime.counters.values()
    assert (counter.classes[2] > 0, counter.classes[5] > 0) == (passes, not passes)


@pytest.mark.parametrize("version", ["1", "2"])
async def test_interim_responses_on_http2_are_counted_as_well(proxy: Proxy, version: str) -> None:
    backend = await Backend2().start()

    async def hints(asked: Asked) -> None:
        for _ in range(MAX_INTERIM + 1):
            asked.speaker.h2.send_headers(asked.stream, [(":status", "103"), ("link", "x")])
        asked.reply(200, end=True)

    backend.default = hints
    await proxy.apply(
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", backend.port),), "h2c"), make_rule(targets=(Target(1, "b"),))
    )  # fmt: skip
    if version == "2":
        answer = await (await client(proxy.port)).get()
        assert answer.status == 502
    else:
        assert b"HTTP/1.1 502 " in await proxy.talk(GET)
    await backend.stop()


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 103 x\r\nContent-Length: 5\r\n\r\nhello", b"HTTP/1.1 100 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
)
async def test_content_of_an_interim_response_is_no_answer(proxy: Proxy, server: Server, head: bytes) -> None:
    await proxy.route(server)
    server.default = head + OK
    answer = await proxy.talk(GET)
    assert parsed(answer[answer.index(b"HTTP/1.1 502") :])[0] == 502
    assert OK not in answer
