"""Filters on the fast path: what a plain function does there is what it does in an exchange.

Each source is served three times: as it is, with an `async` log, and with every function `async`, which always takes the
full way. Client, backend and the filter's own records must not tell which.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.http2_peers import until
from support.proxy import Proxy, Server, make_rule

from controller.ports import free_ports
from gateway.downstream.lazy_response import LazyResponseFilter
from gateway.proxy import filter_calls
from gateway.runtime.runtime import Runtime
from gateway.snapshot import Backend, Endpoint, Listener, Script, Scripted, Target

REQUESTS = [
    'request.headers["X-Added"] = request.headers.get("x-n", "none")',
    'request.state["seen"] = request.path',
    "del request.headers['x-n']",
    'if request.headers["x-n"].endswith("3"):\n        return Response(403, "three\\n", {"X-By": "filter"})',
    'if request.headers["x-n"].endswith("5"):\n        raise ValueError("five")',
    'request.query["q"] = "1"',
]
RESPONSES = [
    'response.headers["X-Seen"] = request.headers.get("x-n", "none")',
    'response.headers["x-backend"] = "replaced " + response.headers["X-Backend"]',
    'response.headers.add("Set-Cookie", "a=b")',
    'response.set_cookie("c", request.state.get("seen", "d")[1:] or "e")',
    "del response.headers['X-Backend']",
    'records.append((response.status, response.headers.get_all("x-twice"), "x-none" in response.headers, "X-BACKEND" in response.headers))',
    'response.headers["Length-Was"] = response.headers["content-length"]',
    "response.status = 202",
    "response.status = 204",
    "response.status = 304",
    'if request.headers.get("x-n", "").endswith("7"):\n        return Response(200, "seven\\n")',
    'if request.headers.get("x-n", "").endswith("8"):\n        raise RuntimeError("eight")',
    'if request.headers.get("x-n", "").endswith("9"):\n        raise Refused(418, "nine")',
    'response.set_body("another\\n")',
    'records.append(sorted(response.headers))',
    'records.append(request.cookies.get("s"))',
]  # fmt: skip
LOGS = [
    "records.append((exchange.status, exchange.response_bytes, exchange.backend, exchange.request.path))",
    'records.append((exchange.request.headers.get("x-n"), exchange.request.headers.get("x-added"), exchange.request.cookies.get("s")))',
    "records.append(exchange.response.headers.get('x-seen') if exchange.response else None)",
    "records.append(sorted(exchange.response.headers) if exchange.response else None)",
    "records.append(dict(exchange.request.state))",
    'raise OSError("no log")',
]


def source(request: list[str], response: list[str], log: list[str]) -> str:
    lines = ["from gateway.filters.api import Refused, Response", "records = []"]
    for moment, arguments, body in (("request", "request", request), ("response", "request, response", response), ("log", "exchange", log)):  # fmt: skip
        if body:
            lines += [f"def {moment}({arguments}):", *(f"    {line}" for line in body)]
    return "\n".join(lines) + "\n"


def later(text: str, moment: str = "") -> str:
    return re.sub(f"^def {moment}", f"async def {moment}", text, flags=re.M)


class Stage:
    """One client connection that asks again and again, and a backend behind."""

    def __init__(self, proxy: Proxy, server: Server) -> None:
        self.proxy = proxy
        self.server = server

    async def serve(self, *sources: str) -> None:
        scripts = [Script(f"s{n}", text, execution="inline", is_tried=False) for n, text in enumerate(sources)]
        await self.proxy.apply(
            Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", self.server.port),)), *scripts,
            make_rule("r", targets=(Target(1, "b"),), filters=tuple(Scripted(script.name) for script in scripts)),
        )  # fmt: skip
        for script in scripts:
            self.records(script.name).clear()
        self.server.seen.clear()

    def records(self, name: str) -> list[Any]:
        found: list[Any] = self.proxy.runtime.programs.get(name).hooks.module.records  # type: ignore[union-attr]
        return found

    async def ask(self, numbers: range, answer: bytes, parts: int = 1) -> list[bytes]:
        """Everything that the client gets, an answer each."""
        self.server.default = self._in_parts(answer, parts)
        answers = []
        reader, writer = await self.proxy.connect()
        for number in numbers:
            writer.write(
                b"GET /%d?x HTTP/1.1\r\nHost: example.com\r\nX-N: %d\r\nCookie: s=%d\r\n\r\n" % (number % 2, number, number)
            )
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
                is_bare = head[9:12] in (b"204", b"304")
                body = await reader.readexactly(int(found[1])) if found and not is_bare else b""
            answers.append(head + body)
            if b"\r\nconnection: close" in head.lower():
                writer.close()
                reader, writer = await self.proxy.connect()
        writer.close()
        return answers

    def is_over(self) -> bool:
        """Whether nobody is connected any more, and filters have been told of every end."""
        return not self.proxy.runtime.ports.tcp[80].listener_port.connections and not filter_calls._logging

    @staticmethod
    def _in_parts(answer: bytes, parts: int) -> Any:
        if parts == 1:
            return answer

        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
            size = len(answer) // parts + 1
            for at in range(0, len(answer), size):
                writer.write(answer[at : at + size])
                await writer.drain()
                await asyncio.sleep(0.001)  # a packet of its own

        return reply


@pytest.fixture
async def stage(proxy: Proxy, server: Server) -> Stage:
    return Stage(proxy, server)


def answer(body: bytes = b"ok", status: bytes = b"200 OK") -> bytes:
    return (
        b"HTTP/1.1 %b\r\nContent-Length: %d\r\nX-Backend: b\r\nX-Twice: 1\r\nX-Twice: 2\r\nKeep-Alive: timeout=5\r\n\r\n"
        % (status, len(body))
        + body
    )


async def compared(stage: Stage, sources: list[str], reply: bytes, parts: int = 1) -> None:
    found = []
    for texts in (sources, [later(text, "log") for text in sources], [later(text) for text in sources]):
        await stage.serve(*texts)
        answers = await stage.ask(range(10, 32), reply, parts)
        await until(stage.is_over)
        found.append((answers, list(stage.server.seen), [list(stage.records(f"s{n}")) for n in range(len(sources))]))
    *short, full = found
    for one in short:
        assert one[0] == full[0]
        assert one[1] == full[1]
        assert one[2] == full[2]


@pytest.mark.parametrize("line", REQUESTS)
async def test_requests(stage: Stage, line: str) -> None:
    await compared(stage, [source([line], [], [])], answer())
    await compared(stage, [source([line], RESPONSES[:1], LOGS[:1])], answer())


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("line", RESPONSES)
async def test_responses(stage: Stage, line: str, parts: int) -> None:
    await compared(stage, [source([], [line], [])], answer(b"body of several pieces"), parts)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("line", LOGS)
async def test_ends(stage: Stage, line: str, parts: int) -> None:
    await compared(stage, [source([], RESPONSES[:1], [line])], answer(b"body of several pieces", b"404 Not Found"), parts)


async def test_several_filters(stage: Stage) -> None:
    first = source(REQUESTS[:2], RESPONSES[:1], LOGS[:2])
    second = source([], [RESPONSES[4]], [])
    third = source([], ['response.headers["X-Third"] = str(response.headers.get("x-seen"))'], [LOGS[4]])
    for sources in ([first, third], [third, first], [first, second, third], [second, first]):
        await compared(stage, sources, answer())


texts = st.builds(
    source, st.lists(st.sampled_from(REQUESTS), max_size=2), st.lists(st.sampled_from(RESPONSES), max_size=3),
    st.lists(st.sampled_from(LOGS), max_size=2),
).filter(lambda text: "def " in text)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_filters_do(data: st.DataObject) -> None:
    sources = data.draw(st.lists(texts, min_size=1, max_size=3))
    body = data.draw(st.sampled_from([b"", b"ok", b"x" * 5000]))
    status = data.draw(st.sampled_from([b"200 OK", b"404 Not Found", b"503 Busy", b"204 No Content"]))
    parts = data.draw(st.sampled_from([1, 1, 2]))

    async def run() -> None:
        server = await Server().start()
        (port,) = free_ports(1)
        runtime = Runtime(bind="127.0.0.1", port_offset=port - 80)
        try:
            reply = answer(body, status) if status[:3] != b"204" else b"HTTP/1.1 204 No Content\r\nX-Backend: b\r\n\r\n"
            await compared(Stage(Proxy(runtime, port - 80), server), sources, reply, parts)
        finally:
            runtime.close()
            await runtime.programs.stop()
            await server.stop()

    asyncio.run(run())


async def test_the_short_way_is_taken(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the comparisons above compare nothing."""
    passed: list[int] = []
    answered = LazyResponseFilter.answered

    def count(self: LazyResponseFilter, data: bytes, status_class: int) -> None:
        passed.append(status_class)
        answered(self, data, status_class)

    monkeypatch.setattr(LazyResponseFilter, "answered", count)
    await stage.serve(source(REQUESTS[:2], RESPONSES[:1], LOGS[:2]))
    await stage.ask(range(10, 32), answer())
    await until(stage.is_over)
    assert len(passed) >= 15
    assert len(stage.records("s0")) == 44


# --- what is added goes along, whatever becomes of the request ---


async def test_additions_survive_a_busy_pool_and_a_lost_connection(stage: Stage) -> None:
    """A request that finds no idle connection, or one that its backend closes, is sent with what filters have added."""
    await stage.serve(source(REQUESTS[:1], RESPONSES[:1], []))
    await stage.ask(range(10, 20), answer())
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        await release.wait()
        writer.write(answer())

    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        raise ConnectionError

    stage.server.default = answer()
    connections = [await stage.proxy.connect() for _ in range(3)]

    async def ask(at: int, number: int) -> bytes:
        reader, writer = connections[at]
        writer.write(
            b"GET /%d?x HTTP/1.1\r\nHost: example.com\r\nX-N: %d\r\nCookie: s=%d\r\n\r\n" % (number % 2, number, number)
        )
        async with asyncio.timeout(5):
            return await reader.readuntil(b"\r\n\r\nok")

    for at in range(3):
        await ask(at, 20 + at)
        await ask(at, 22 + at)
    stage.server.seen.clear()
    stage.server.replies = [slow, slow]
    asking = [asyncio.create_task(ask(at, 30 + at)) for at in range(3)]
    while len(stage.server.seen) < 2:
        await asyncio.sleep(0.001)
    release.set()
    answers = await asyncio.gather(*asking)
    stage.server.replies = [drop]
    answers.append(await ask(0, 40))
    assert len(stage.server.seen) == 5, "three, and one twice"
    for head in stage.server.seen:
        number = re.search(rb"X-N: (\d+)", head)
        assert number
        assert b"X-Added: " + number[1] in head
    assert all(re.search(rb"X-Seen: (30|31|32|40)\r\n", found) for found in answers)
    for _, writer in connections:
        writer.close()


async def test_a_request_that_is_kept_can_be_read_later(stage: Stage) -> None:
    """A filter that keeps requests beyond their end reads them, and disturbs nobody."""
    kept = "kept = []\nrecords = kept\ndef request(request):\n    kept.append(request)\n"
    await stage.serve(kept)
    await stage.ask(range(10, 20), answer())
    found = [(one.headers["x-n"], one.query["x"], one.cookies["s"], dict(one.headers)["host"]) for one in stage.records("s0")]
    assert found == [(str(n), "", str(n), "example.com") for n in range(10, 20)]
    assert len(await stage.ask(range(20, 24), answer())) == 4
