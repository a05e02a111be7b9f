"""Filters in Python, through real sockets: what each moment can do, in what order, and what happens when one fails."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import textwrap
from typing import Any, Literal, get_args

import pytest
from support.http2_peers import Asked, Backend2, client, until
from support.proxy import OK, Proxy, Server, make_rule, parsed

from controller.ports import free_ports
from gateway.scripting.hooks import HOOKS, HookName
from gateway.snapshot import Backend, Endpoint, Listener, Script, Scripted, Target, redacted

HEADER = "from gateway.filters.api import Request, Response, Chunk, Exchange, Refused, config, log\n"


@pytest.fixture(params=["inline", "process"], autouse=True)
def execution(request: pytest.FixtureRequest) -> Literal["inline", "process"]:
    """Where filters run: it must make no difference."""
    global mode
    mode = request.param
    return mode


mode: Literal["inline", "process"] = "inline"


async def programmed(proxy: Proxy, server: Server, *sources: str, targets: tuple[Target, ...] = (), **options: Any) -> None:
    """One rule to a backend, through filters of these sources in this order."""
    scripts = [
        Script(f"s{at}", HEADER + textwrap.dedent(source), **{"execution": mode, "is_tried": False, **options})
        for at, source in enumerate(sources)
    ]
    await proxy.apply(
        Listener("l", 80), Backend("default/app:80", (Endpoint("127.0.0.1", server.port),)), *scripts,
        make_rule("r", targets=targets or (Target(1, "default/app:80"),), filters=tuple(Scripted(one.name) for one in scripts)),
    )  # fmt: skip


def post(body: bytes, *lines: str, chunked: bool = False) -> bytes:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = "\r\n".join(["POST /p?q=1 HTTP/1.1", "Host: example.com", "Connection: close", framing, *lines])
    content = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:3], body[3:]) if p) + b"0\r\n\r\n" if chunked else body
    return head.encode() + b"\r\n\r\n" + content


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """Answers with the body that it got, in chunks."""
    from support.proxy import read_body

    body = await read_body(reader, head)
    if b"chunked" in head.lower():
        body = b"".join(body.split(b"\r\n")[1:-2:2])
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:4], body[4:]) if p)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")


def dechunked(body: bytes) -> bytes:
    result = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        if not int(size, 16):
            return result
        result += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    raise AssertionError("the body has no end")


# --- requests ---


async def test_a_request_is_changed(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        def request(request: Request) -> None:
            request.headers["X-Seen"] = f"{request.method} {request.path} {request.query['q']} {request.cookies['c']}"
            request.headers.add("X-Seen", "twice")
            del request.headers["x-secret"]
            request.path = "/new" + request.path
            request.query["q"] = "2"
            request.host = "other.example"
    """)  # fmt: skip
    status, _, _ = await proxy.get("/old?q=1", X_Secret="s", Cookie="a=b; c=d")
    assert status == 200
    head = server.seen[0].decode()
    assert head.startswith("GET /new/old?q=2 HTTP/1.1\r\nHost: other.example\r\n")
    assert "X-Seen: GET /old 1 d\r\n" in head
    assert "X-Seen: twice\r\n" in head
    assert "secret" not in head.lower()


async def test_cookies_of_several_lines(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        def request(request):
            request.headers["X-Seen"] = repr(dict(request.cookies))
    """)  # fmt: skip
    await proxy.talk(b'GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\nCookie: c=d; e="f"\r\nConnection: close\r\n\r\n')
    assert "X-Seen: {'a': 'b', 'c': 'd', 'e': 'f'}\r\n" in server.seen[0].decode()


async def test_a_filter_answers(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        def request(request):
            if request.path == "/json":
                return Response(200, {"a": [1]})
            return Response(403, "no\\n", {"X-Why": "because"})
    """)  # fmt: skip
    status, fields, body = await proxy.get()
    assert (status, body, fields["x-why"], fields["content-type"]) == (403, b"no\n", "because", "text/plain; charset=utf-8")
    status, fields, body = await proxy.get("/json")
    assert (status, body, fields["content-type"]) == (200, b'{"a":[1]}', "application/json")
    assert not server.seen


async def test_a_connection_goes_on_after_an_answer(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, "def request(request):\n    if request.path == '/no': return Response(403)")
    reader, writer = await proxy.connect()
    one = b"GET /no HTTP/1.1\r\nHost: a\r\n\r\n"
    writer.write(one + one.replace(b"/no", b"/yes"))
    assert (await reader.readuntil(b"Content-Length: 0\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
    assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_bodies_are_changed_on_their_way(proxy: Proxy, server: Server, is_async: bool, chunked: bool) -> None:
    word = "async def" if is_async else "def"
    wait = "await __import__('asyncio').sleep(0)" if is_async else "pass"
    await programmed(proxy, server, f"""
        {word} request_body(chunk):
            {wait}
            return chunk.data.upper() + (b"!" if chunk.is_last else b"")
        {word} response_body(chunk):
            {wait}
            return chunk.data.replace(b"O", b"0")
    """)  # fmt: skip
    server.default = echo
    status, fields, body = parsed(await proxy.talk(post(b"hello world", chunked=chunked)))
    assert status == 200
    assert fields["transfer-encoding"] == "chunked"
    assert dechunked(body) == b"HELL0 W0RLD!"


async def test_a_whole_body_is_read_and_replaced(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        async def request(request):
            value = await request.json()
            request.set_body({"n": value["n"] + 1})
        async def response(request, response):
            value = await response.json()
            response.set_body(f"n is {value['n']}")
            response.headers["x-n"] = "yes"
    """)  # fmt: skip
    server.default = echo
    status, fields, body = parsed(await proxy.talk(post(b'{"n": 1}', chunked=True)))
    assert (status, body, fields["x-n"], fields["content-length"]) == (200, b"n is 2", "yes", "6")
    assert b"Content-Length: 7\r\n" in server.seen[0]


async def test_a_body_is_replaced_while_the_backend_still_sends_its_own(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        def response(request, response):
            if request.path != "/own":
                response.set_body("new")
        def response_body(chunk):
            return chunk.data.upper()
    """)  # fmt: skip
    go = asyncio.Event()

    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nold")
        await go.wait()
        writer.write(b"old")

    server.replies = [slow]
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readuntil(b"\r\nNEW\r\n")).startswith(b"HTTP/1.1 200 ")
    go.set()
    assert await reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
    writer.write(b"GET /own HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"2\r\nOK\r\n0\r\n\r\n")
    assert server.connections == 1
    writer.close()


async def test_a_replaced_body_does_not_wait_for_a_stream_without_end(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, "def response(request, response):\n    response.set_body('new')")

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n")
        await reader.read()

    server.replies = [endless]
    assert (await proxy.get())[2] == b"new"


async def test_a_body_that_is_read_passes_as_it_came(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        async def request(request):
            request.headers["x-length"] = str(len(await request.body()))
        async def response(request, response):
            response.headers["x-length"] = str(len(await response.body()))
    """)  # fmt: skip
    server.default = echo
    status, fields, body = parsed(await proxy.talk(post(b"12345", chunked=True)))
    assert (status, fields["x-length"], dechunked(body)) == (200, "5", b"12345")
    assert b"x-length: 5\r\n" in server.seen[0]


@pytest.mark.parametrize(
    ("body", "lines", "status", "reason"),
    [
        (b"x" * 11, (), 413, b"the body is longer than 10 bytes"),
        (b"{", (), 400, b"the body is not JSON"),
        (b"{}", ("Content-Encoding: gzip",), 415, b"a body in gzip cannot be read as JSON"),
    ],
    ids=["too long", "not JSON", "encoded"],
)
async def test_a_body_that_cannot_be_read(proxy: Proxy, server: Server, body, lines, status, reason) -> None:
    await programmed(proxy, server, "async def request(request):\n    await request.json(limit=10)")
    found, _, text = parsed(await proxy.talk(post(body, *lines)))
    assert found == status
    assert reason in text
    assert not server.seen


async def test_a_client_that_waits_is_told_to_continue(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, "async def request(request):\n    request.set_body(await request.body() + b'!')")
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert (await reader.read()).endswith(b"ok")
    assert server.seen[0].endswith(b"hi!")
    assert b"expect" not in server.seen[0].lower()
    writer.close()


# --- order, steering, state ---


async def test_responses_pass_the_other_way_round(proxy: Proxy, server: Server) -> None:
    source = """
        def request(request):
            request.state["name"] = NAME.upper()
            request.headers["x-way"] = request.headers.get("x-way", "") + NAME
            if NAME == "b" and request.path == "/stop":
                return Response(200, "stopped")
        def response(request, response):
            response.headers["x-way"] = response.headers.get("x-way", "") + NAME.upper()
    """
    await programmed(proxy, server, *(f"NAME = '{name}'\n" + textwrap.dedent(source) for name in "abc"))
    assert (await proxy.get())[1]["x-way"] == "CBA"
    assert b"x-way: abc\r\n" in server.seen[0]
    assert (await proxy.get("/stop"))[1]["x-way"] == "A"


async def test_a_filter_chooses_the_backend(proxy: Proxy, server: Server, other: Server) -> None:
    await proxy.apply(Backend("default/green:80", (Endpoint("127.0.0.1", other.port),)))
    targets = (Target(1, "default/app:80"), Target(0, "default/green:80"))
    source = "def request(request):\n    if 'x-to' in request.headers: request.choose(request.headers['x-to'])"
    await programmed(proxy, server, source, targets=targets)
    for service in ("green", "default/green", "default/green:80", "green:80"):
        assert (await proxy.get(X_To=service))[0] == 200
    assert len(other.seen) == 4
    assert (await proxy.get())[0] == 200
    assert len(server.seen) == 1
    assert (await proxy.get(X_To="elsewhere"))[0] == 500
    assert (
        "'elsewhere' is none of this rule's backends (default/app:80, default/green:80)"
        in proxy.runtime.programs.get("s0").last_failure
    )


async def test_a_key_leads_to_one_endpoint(proxy: Proxy, server: Server, other: Server) -> None:
    await programmed(proxy, server, "def request(request):\n    request.choose('app', key=request.path)")
    ports = (server.port, other.port)
    await proxy.apply(Backend("default/app:80", tuple(Endpoint("127.0.0.1", port) for port in ports)))
    for number in range(24):  # that all of them lead to one is not to be expected
        before = len(server.seen), len(other.seen)
        for _ in range(3):
            assert (await proxy.get(f"/{number}"))[0] == 200
        assert sorted((len(server.seen) - before[0], len(other.seen) - before[1])) == [0, 3]
    assert server.seen
    assert other.seen


async def test_a_connection_has_state(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        def request(request):
            state = request.connection.state
            state["n"] = state.get("n", 0) + 1
            request.headers["x-n"] = f"{state['n']} {request.connection.address}"
    """)  # fmt: skip
    one = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    reader, writer = await proxy.connect()
    for _ in range(2):
        writer.write(one)
        await reader.readuntil(b"\r\n\r\nok")
    writer.close()
    await proxy.talk(one)
    assert [head.partition(b"x-n: ")[2].partition(b"\r\n")[0] for head in server.seen] == [
        b"1 127.0.0.1",
        b"2 127.0.0.1",
        b"1 127.0.0.1",
    ]


async def test_the_end_is_logged(proxy: Proxy, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fsm.filter")
    await programmed(proxy, server, """
        def log(exchange):
            log_.info(
                f"{exchange.request.method} {exchange.status} {exchange.response.headers['content-length']} "
                f"{exchange.response_bytes} {exchange.backend} {exchange.endpoint} {0 < exchange.seconds < 5}"
            )
        from gateway.filters.api import log as log_
    """)  # fmt: skip
    assert (await proxy.get())[0] == 200
    await until(lambda: caplog.messages)
    assert caplog.messages == [f"GET 200 2 2 default/app:80 127.0.0.1:{server.port} True"]


async def test_the_configuration_is_given(proxy: Proxy, server: Server) -> None:
    await programmed(
        proxy, server, "def request(request):\n    return Response(200, config['greeting'])", config='{"greeting": "hey"}'
    )
    assert (await proxy.get())[2] == b"hey"


# --- failing ---


@pytest.mark.parametrize(
    ("source", "failure"),
    [
        ("def request(request):\n    1 / 0", "line 3: ZeroDivisionError: division by zero"),
        ("async def request(request):\n    1 / 0", "line 3: ZeroDivisionError: division by zero"),
        ("def request(request):\n    return 3", "request returned int; a Response or nothing was expected"),
        ("async def request(request):\n    await __import__('asyncio').sleep(9)", "no answer within 0.1 s"),
        ("def request(request):\n    request.headers['x'] = 'a\\r\\nb: c'", "characters that a field value may not"),
        ("def request(request):\n    request.headers['content-length'] = '3'", "content-length frames the message"),
        ("def request(request):\n    request.path = '/a b'", "is not a path with a query"),
        ("def response(request, response):\n    raise KeyError('x')", "line 3: KeyError: 'x'"),
        ("async def response(request, response):\n    raise KeyError('x')", "line 3: KeyError: 'x'"),
        ("def response_body(chunk):\n    raise KeyError('x')", "line 3: KeyError: 'x'"),
    ],
)
async def test_a_filter_that_fails(proxy: Proxy, server: Server, source: str, failure: str) -> None:
    await programmed(proxy, server, source, seconds=0.1)
    answer = await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    if "response_body" in source:
        assert not answer.endswith(b"0\r\n\r\n")  # it has begun, and must not look whole
    else:
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert answer.endswith(b"the filter s0 failed\n")
    program = proxy.runtime.programs.get("s0")
    assert failure in program.last_failure
    assert program.failures == 1

    await programmed(proxy, server, source, seconds=0.1, passes=True)
    status, _, body = await proxy.get()
    assert status == 200
    assert body in (b"ok", b"2\r\nok\r\n0\r\n\r\n")


async def test_a_filter_that_is_not_there_answers_for_nobody(proxy: Proxy, server: Server) -> None:
    await proxy.route(server, filters=(Scripted("missing"),))
    status, _, body = await proxy.get()
    assert (status, body) == (500, b"the filter missing cannot be used\n")
    assert not server.seen


# --- hot ---


async def test_an_edit_takes_effect_and_a_bad_one_does_not(proxy: Proxy, server: Server) -> None:
    from gateway.snapshot import Change

    await programmed(proxy, server, "def request(request):\n    return Response(200, 'one')")
    assert (await proxy.get())[2] == b"one"
    await proxy.apply(
        Script("s0", "from gateway.filters.api import Response\ndef request(request):\n    return Response(200, 'two')")
    )
    assert (await proxy.get())[2] == b"two"
    for source, reason in (
        ("def request(request)\n    pass", "s0, line 1: SyntaxError: expected ':'"),
        ("x = 1\n\n1 / 0", "s0, line 3: ZeroDivisionError: division by zero"),
        ("def request(a, b): pass", "s0, line 1: request must take (request)"),
        (
            "x = 1",
            "s0: there is no function of a known name; these are request, request_body, response, response_body, log, connect, data, datagram",
        ),
    ):
        (problem,) = await proxy.runtime.apply(Change(put=(Script("s0", source),)))
        assert problem.message == reason
        assert (await proxy.get())[2] == b"two"


async def test_a_request_in_flight_finishes_on_the_old_code(proxy: Proxy, server: Server) -> None:
    source = "async def request(request):\n    await request.body()\ndef response(request, response):\n    response.headers['x-v'] = 'V'"
    await programmed(proxy, server, source.replace("V", "1"))
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nh")
    await until(lambda: proxy.runtime.programs.get("s0").calls)
    await programmed(proxy, server, source.replace("V", "2"))
    assert (await proxy.get())[1]["x-v"] == "2"
    writer.write(b"i")
    assert b"x-v: 1\r\n" in await reader.read()
    writer.close()


async def test_a_response_is_seen_by_the_code_that_its_request_began_with(proxy: Proxy, server: Server) -> None:
    source = "def response(request, response):\n    response.headers['x-v'] = 'V'"
    asked, go = asyncio.Event(), asyncio.Event()

    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        asked.set()
        await go.wait()
        writer.write(OK)

    server.replies = [late]
    await programmed(proxy, server, source.replace("V", "1"))
    first = asyncio.create_task(proxy.get())
    await asked.wait()
    await programmed(proxy, server, source.replace("V", "2"))
    assert (await proxy.get())[1]["x-v"] == "2"
    go.set()
    assert (await first)[1]["x-v"] == "1"


async def test_a_client_that_leaves_takes_its_filters_along(
    proxy: Proxy, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fsm.filter")
    await programmed(proxy, server, """
        import asyncio
        async def request(request):
            try:
                log.info("begun")
                await asyncio.sleep(60)
            finally:
                log.info("ended")
    """, seconds=100.0)  # fmt: skip
    _, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: caplog.messages == ["begun"])
    # A reset: a client that only closes its half may still wait for the answer.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await until(lambda: caplog.messages == ["begun", "ended"])


async def test_a_large_body_passes_with_little_held(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        import asyncio
        async def request_body(chunk):
            await asyncio.sleep(0)
        async def response_body(chunk):
            await asyncio.sleep(0)
    """)  # fmt: skip
    body = bytes(range(256)) * 16384

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        got = b""
        while size := int(await reader.readline(), 16):
            got += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        writer.write(OK.replace(b"ok", b"%02d" % (got == body)))

    server.default = counting
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert (await proxy.talk(head + body)).endswith(b"2\r\n01\r\n0\r\n\r\n")


# --- calling others ---


async def test_a_filter_calls_somebody(proxy: Proxy, server: Server, other: Server) -> None:
    other.default = b'HTTP/1.1 201 Created\r\nX-A: b\r\nContent-Length: 7\r\n\r\n{"a":1}'
    await programmed(proxy, server, f"""
        from gateway.filters.api import http
        async def request(request):
            reply = await http.post("http://127.0.0.1:{other.port}/ask?x=1", {{"q": request.path}}, {{"X-Q": "1"}})
            request.headers["x-reply"] = f"{{reply.status}} {{reply.headers['x-a']}} {{reply.json()['a']}}"
    """, network=(f"127.0.0.1:{other.port}",))  # fmt: skip
    for _ in range(3):
        assert (await proxy.get("/p"))[0] == 200
    assert b"x-reply: 201 b 1\r\n" in server.seen[0]
    head = other.seen[0].decode()
    assert head.startswith(f"POST /ask?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{other.port}\r\nX-Q: 1\r\n")
    assert head.endswith('\r\n\r\n{"q":"/p"}')
    assert other.connections == 1, "connections are kept"


@pytest.mark.parametrize(
    ("url", "failure"),
    [
        ("http://127.0.0.1:1/", "PermissionError: this filter may not call 127.0.0.1:1; its definition's spec.network has"),
        ("http://example.com/", "PermissionError: this filter may not call example.com:80"),
        ("ftp://x/", "ValueError: 'ftp://x/' is not an http or https URL"),
        ("http://a@b/", "ValueError: 'http://…@b/' is not an http or https URL"),
        ("http://127.0.0.1:NONE/", "OSError: GET http://127.0.0.1:NONE/: it refuses connections"),
    ],
)
async def test_whom_a_filter_cannot_call(proxy: Proxy, server: Server, url: str, failure: str) -> None:
    (port,) = free_ports(1)
    url, failure = url.replace("NONE", str(port)), failure.replace("NONE", str(port))
    source = f"from gateway.filters.api import http\nasync def request(request):\n    await http.get('{url}')"
    await programmed(proxy, server, source, network=(f"127.0.0.1:{port}",))
    assert (await proxy.get())[0] == 500
    assert failure in proxy.runtime.programs.get("s0").last_failure


# --- HTTP/2 ---


async def test_bodies_over_http2_on_both_sides(proxy: Proxy) -> None:
    async def shout(asked: Asked) -> None:
        await asked.ended.wait()
        asked.reply(200, [("x-got", asked.body.decode())])
        await asked.send(b"from the backend")
        asked.finish([("x-sum", "9")])

    backend = await Backend2().start()
    backend.default = shout
    source = """
        async def request(request):
            request.headers["x-first"] = "1"
        def request_body(chunk):
            return chunk.data.upper() + (b"!" if chunk.is_last else b"")
        def response(request, response):
            response.headers["x-seen"] = response.headers["x-got"]
        async def response_body(chunk):
            return chunk.data.title()
    """
    await proxy.apply(
        Listener("l", 80), Backend("b2", (Endpoint("127.0.0.1", backend.port),), "h2c"),
        Script("s", HEADER + textwrap.dedent(source), execution=mode),
        make_rule("r", targets=(Target(1, "b2"),), filters=(Scripted("s"),)),
    )  # fmt: skip
    me = await client(proxy.port)
    stream = me.ask(method="POST", end=False)
    await me.send(stream, b"hello ")
    await me.send(stream, b"there", end=True)
    answer = await me.answer(stream)
    assert (answer.status, answer.body, answer.headers["x-seen"]) == (200, b"From The Backend", "HELLO THERE!")
    assert answer.trailers == {"x-sum": "9"}
    await backend.stop()


async def test_a_filter_answers_over_http2(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, "async def request(request):\n    return Response(200, await request.json())")
    me = await client(proxy.port)
    stream = me.ask(method="POST", end=False)
    await me.send(stream, b'{"a": 1}', end=True)
    answer = await me.answer(stream)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b'{"a":1}', "application/json")


# --- what a filter is given ---


async def test_counts_turns_and_values_that_are_shared(proxy: Proxy, server: Server) -> None:
    await programmed(
        proxy,
        server,
        """
        from gateway.filters.api import shared
        async def request(request: Request) -> Response:
            match request.path:
                case "/add": found = await shared.add("k", 2)
                case "/count": found = await shared.count("k")
                case "/take": found = await shared.take("t", requests=1, interval=3600, burst=2)
                case "/set": found = await shared.set("v", b"value", seconds=60)
                case "/get": found = await shared.get("v")
                case "/drop": found = await shared.drop("v")
                case "/hold": found = await shared.hold("h", most=1)
                case "/release": found = await shared.release("h")
            return Response(200, str(found))
    """,
    )
    found = [
        (path, (await proxy.get("/" + path))[2].decode())
        for path in [
            "count",
            "add",
            "add",
            "count",
            "take",
            "take",
            "take",
            "get",
            "set",
            "get",
            "drop",
            "get",
            "hold",
            "hold",
            "release",
            "hold",
        ]
    ]
    assert found == [
        ("count", "0.0"), ("add", "2.0"), ("add", "4.0"), ("count", "4.0"), ("take", "0.0"), ("take", "0.0"), ("take", "None"),
        ("get", "None"), ("set", "None"), ("get", "b'value'"), ("drop", "None"), ("get", "None"), ("hold", "True"),
        ("hold", "False"), ("release", "None"), ("hold", "True"),
    ]  # fmt: skip


async def test_what_is_shared_belongs_to_one_filter_and_outlives_its_edits(proxy: Proxy, server: Server) -> None:
    source = """
        from gateway.filters.api import shared
        async def request(request: Request) -> None:
            request.headers.add("x-count", str(await shared.add("k")))
    """
    await programmed(proxy, server, source, source)
    await proxy.get()
    assert server.seen[-1].count(b"x-count: 1.0") == 2
    await programmed(proxy, server, source + "    # edited", source)
    await proxy.get()
    assert server.seen[-1].count(b"x-count: 2.0") == 2


async def test_metrics_of_a_filter(proxy: Proxy, server: Server) -> None:
    await programmed(
        proxy,
        server,
        """
        from gateway.filters.api import metrics
        def request(request: Request) -> None:
            metrics.add("logins_total", 2, kind="guest")
            metrics.set("depth", 7)
            metrics.observe("lookup_seconds", 0.003)
            try:
                metrics.add("fsm_requests")
            except ValueError as error:
                log.info(error)
    """,
    )
    await proxy.get()
    await proxy.get()
    series = proxy.runtime.programs.get("s0").measures.series
    counted = ("counter", "logins_total", (("kind", "guest"),))
    await until(lambda: series.get(counted) == [4])  # a process tells what it has counted behind each answer
    assert series["gauge", "depth", ()] == [7]
    assert sum(series["histogram", "lookup_seconds", ()][:-1]) == 2


async def test_secrets_come_by_reference(proxy: Proxy, server: Server) -> None:
    await programmed(proxy, server, """
        from gateway.filters.api import secrets
        key = secrets["key"]
        def request(request: Request) -> Response:
            return Response(200, key)
    """, secrets=(("key", "hidden"),))  # fmt: skip
    assert (await proxy.get())[2] == b"hidden"
    script = proxy.runtime.parts["script", "s0"]
    assert "hidden" not in repr(script)
    assert "hidden" not in str(redacted(script))


async def test_timers_run_until_an_edit_and_once_more(proxy: Proxy, server: Server, other: Server) -> None:
    await programmed(proxy, server, f"""
        from gateway.filters.api import every, http, shared
        def request(request: Request) -> None: pass
        @every(0.02)
        async def tell() -> None:
            await http.post("http://127.0.0.1:{other.port}/", "tick")
    """, network=("*",))  # fmt: skip
    await until(lambda: len(other.seen) >= 3)
    await programmed(
        proxy,
        server,
        """
        def request(request: Request) -> None: pass
    """,
    )
    await programmed(proxy, server, f"""
        from gateway.filters.api import every, http
        def request(request: Request) -> None: pass
        @every(3600)
        async def tell() -> None:
            await http.post("http://127.0.0.1:{other.port}/", "last")
    """, network=("*",))  # fmt: skip
    await programmed(
        proxy,
        server,
        """
        def request(request: Request) -> None: pass
    """,
    )
    await until(lambda: other.seen[-1].endswith(b"last"))
    assert sum(one.endswith(b"last") for one in other.seen) == 1


@pytest.mark.parametrize(
    ("was", "becomes"), [(b"200 OK", 204), (b"200 OK", 304), (b"204 No Content", 200), (b"304 Not Modified", 404)]
)
async def test_a_status_says_whether_there_is_a_body(proxy: Proxy, server: Server, was: bytes, becomes: int) -> None:
    """RFC 9110 §6.4.1: whoever changes it has the body go, or none to come, and the connection stays in step."""
    length = b"" if was.startswith(b"204") else b"Content-Length: 4\r\n"
    body = b"body" if was.startswith(b"200") else b""
    server.default = b"HTTP/1.1 " + was + b"\r\n" + length + b"X-Kept: yes\r\n\r\n" + body
    await programmed(proxy, server, f"def response(request, response):\n    response.status = {becomes}\n")
    request = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    answers = await proxy.talk(request * 2 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    found = re.findall(rb"HTTP/1.1 %d [A-Za-z ]+\r\n(?:[A-Za-z-]+: [^\r]*\r\n)+\r\n" % becomes, answers)
    assert len(found) == 3
    assert b"".join(found) == answers
    assert all((b"Content-Length: 0\r\n" in one) == (becomes not in (204, 304)) for one in found)
    assert answers.count(b"X-Kept: yes") == 3


def test_every_hook_has_its_row() -> None:
    assert set(get_args(HookName)) == set(HOOKS)
