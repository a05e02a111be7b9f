"""Filters that meet connections, bytes and datagrams, on real sockets, inline and in a process of their own."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from msgspec.structs import replace
from support.http2_peers import client, until
from support.proxy import Proxy, Server, make_rule
from support.streams import Datagram, Made, datagrams, echo

from gateway.snapshot import Attachment, Backend, Endpoint, Listener, Order, Relay, Script, Scripted, Target

HEADER = "from gateway.filters.api import Connection, Data, Datagram, Request, Response, log, shared\n"
__all__ = ["datagrams", "echo"]


@pytest.fixture(params=["inline", "process"])
def execution(request: pytest.FixtureRequest) -> Literal["inline", "process"]:
    """Where filters run: it must make no difference."""
    return request.param


def script(source: str, execution: Any, name: str = "s", **options: Any) -> Script:
    return Script(name, HEADER + textwrap.dedent(source), execution=execution, is_tried=False, **options)


def listener(protocol: Any = "HTTP", *names: str, **options: Any) -> Listener:
    return Listener("l", 80, protocol, filters=tuple(Scripted(name) for name in names or ("s",)), **options)


def rule(server: Server) -> tuple[Any, ...]:
    return Backend("b", (Endpoint("127.0.0.1", server.port),)), make_rule("r", targets=(Target(1, "b"),))


async def is_closed(proxy: Proxy, data: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") -> bool:
    """Whether a connection ends without a word."""
    try:
        return await proxy.talk(data, half_close=False) == b""
    except ConnectionError:
        return True


# --- connect ---


async def test_who_may_connect(proxy: Proxy, server: Server, execution: Any) -> None:
    source = "def connect(connection):\n    return connection.address != '127.0.0.1'"
    await proxy.apply(script(source, execution), listener(), *rule(server))
    assert await is_closed(proxy)
    assert not server.seen
    assert proxy.runtime.ports.tcp[80].gate.turned_away == 1
    await proxy.apply(script("async def connect(connection):\n    return True", execution))
    assert (await proxy.get())[::2] == (200, b"ok")
    await proxy.apply(Listener("l", 80))
    assert (await proxy.get())[::2] == (200, b"ok")


async def test_state_of_a_connection_lasts_as_long_as_it_does(proxy: Proxy, server: Server, execution: Any) -> None:
    source = """
        def connect(connection):
            connection.state["since"] = "connect"
        def request(request):
            return Response(200, request.connection.state.get("since", "nothing"))
    """
    made = make_rule("r", filters=(Scripted("s"),))
    await proxy.apply(script(source, execution), listener(), made)
    assert (await proxy.get())[2] == b"connect"
    speaking = await client(proxy.port)
    assert (await speaking.get()).body == b"connect"
    assert (await speaking.get()).body == b"connect"
    speaking.transport.close()


async def test_the_end_of_a_connection_is_told(proxy: Proxy, server: Server, execution: Any) -> None:
    source = """
        async def connect(connection):
            if not await shared.hold(most=2):
                return False
            connection.on_close(shared.release)
    """
    await proxy.apply(script(source, execution), listener(), *rule(server))
    first, second = await proxy.connect(), await proxy.connect()
    for reader, writer in (first, second):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await is_closed(proxy)
    first[1].close()
    await until(lambda: len(proxy.runtime.ports.tcp[80].listener_port.connections) == 1)

    async with asyncio.timeout(5):
        while await is_closed(proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):
            pass
    second[1].close()


@pytest.mark.parametrize("passes", [True, False])
async def test_a_filter_that_fails_lets_nobody_in_unless_it_is_open(
    proxy: Proxy, server: Server, execution: Any, passes: bool
) -> None:
    await proxy.apply(script("def connect(connection):\n    1 / 0", execution, passes=passes), listener(), *rule(server))
    if passes:
        assert (await proxy.get())[0] == 200
    else:
        assert await is_closed(proxy)
    assert proxy.runtime.programs.get("s").last_failure == "line 3: ZeroDivisionError: division by zero"


async def test_what_was_sent_before_anybody_listened_is_not_lost(proxy: Proxy, server: Server) -> None:
    source = "import asyncio\nasync def connect(connection):\n    await asyncio.sleep(0.05)"
    await proxy.apply(script(source, "inline"), listener(), *rule(server))
    answers = await proxy.talk(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200") == 2


# --- requests before a rule is chosen ---


@pytest.mark.parametrize("speaks", ["1", "2"])
async def test_a_rule_is_chosen_by_what_a_filter_made_of_the_request(proxy: Proxy, server: Server, speaks: str) -> None:
    source = """
        def request(request):
            host = request.headers.pop("proxy-tag", None)
            if host:
                request.host = host
    """
    await proxy.apply(
        script(source, "inline"), listener(), Backend("b", (Endpoint("127.0.0.1", server.port),)),
        make_rule("r", "inner.example", targets=(Target(1, "b"),)),
    )  # fmt: skip
    for tag, status in (("", 404), ("inner.example", 200), ("other.example", 404), ("inner.example", 200)) * 2:
        if speaks == "1":
            found = (await proxy.get(host="outer.example", **({"proxy-tag": tag} if tag else {})))[0]
        else:
            speaking = await client(proxy.port)
            found = (await speaking.get(host="outer.example", more=[("proxy-tag", tag)] if tag else [])).status
            speaking.transport.close()
        assert found == status, tag


async def test_connections_that_stand_feel_a_new_filter(proxy: Proxy, server: Server) -> None:
    await proxy.apply(Listener("l", 80), *rule(server))
    reader, writer = await proxy.connect()

    async def get() -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")
        return server.seen[-1]

    for _ in range(4):
        assert b"x-early" not in await get()
    await proxy.apply(script("def request(request):\n    request.headers['x-early'] = '1'", "inline"), listener())
    for _ in range(4):
        assert b"x-early: 1" in await get()
    await proxy.apply(Listener("l", 80))
    for _ in range(4):
        assert b"x-early" not in await get()
    writer.close()


# --- bytes ---


def relayed(port: int, protocol: str = "tcp") -> tuple[Any, ...]:
    made = Backend("b", (Endpoint("127.0.0.1", port),), protocol)  # type: ignore[arg-type]
    return made, Relay("t", Order("", "t"), (Attachment("l"),), (Target(1, "b"),), (Scripted("s"),))


async def test_bytes_are_changed_both_ways(proxy: Proxy, echo: Made, execution: Any) -> None:
    source = """
        def data(data):
            return data.data.replace(b"secret", b"******") if data.from_client else data.data.lower()
    """
    await proxy.apply(script(source, execution), Listener("l", 80, "TCP"), *relayed(await echo(b"HELLO ")))
    assert await proxy.talk(b"my secret, Sir") == b"hello my ******, sirbye"


async def test_pieces_keep_their_order_while_a_filter_waits(proxy: Proxy, echo: Made) -> None:
    source = """
        import asyncio, random
        async def data(data):
            await asyncio.sleep(random.random() / 500)
    """
    await proxy.apply(script(source, "inline"), Listener("l", 80, "TCP"), *relayed(await echo(b"")))
    sent = b"".join(b"%06d" % number for number in range(60_000))
    assert await proxy.talk(sent) == sent + b"bye"


@pytest.mark.parametrize("word", ["def", "async def"])
async def test_a_filter_of_bytes_that_fails_cuts_the_connection(proxy: Proxy, echo: Made, execution: Any, word: str) -> None:
    source = f"{word} data(data):\n    assert data.data != b'bad'"
    await proxy.apply(script(source, execution), Listener("l", 80, "TCP"), *relayed(await echo(b"")))
    assert await is_closed(proxy, b"bad")
    assert await proxy.talk(b"good") == b"GOODbye"


@pytest.mark.parametrize("deed", ["1 / 0", "return 'text'"])
async def test_a_filter_that_fails_behind_one_that_waits_is_counted(proxy: Proxy, echo: Made, deed: str) -> None:
    made, line = relayed(await echo(b""))
    await proxy.apply(
        script("async def data(data):\n    pass", "inline"), script(f"def data(data):\n    {deed}", "inline", "t", passes=True),
        Listener("l", 80, "TCP"), made, replace(line, filters=(Scripted("s"), Scripted("t"))),
    )  # fmt: skip
    assert await proxy.talk(b"good") == b"GOODbye"
    assert proxy.runtime.programs.get("t").failures > 0


async def test_who_may_connect_to_a_relay(proxy: Proxy, echo: Made, execution: Any) -> None:
    await proxy.apply(
        script("def connect(connection):\n    return False", execution), Listener("l", 80, "TCP"),
        *relayed(await echo(b"hello")),
    )  # fmt: skip
    assert await is_closed(proxy, b"x")


# --- datagrams ---


async def test_datagrams_are_changed_answered_and_dropped(
    proxy: Proxy, datagrams: Callable[..., Awaitable[Datagram]], execution: Any
) -> None:
    behind = await datagrams(b"echo ")
    source = """
        async def datagram(datagram):
            if datagram.data == b"who":
                datagram.answer(datagram.address.encode())
            elif datagram.data == b"drop":
                return b""
            elif datagram.from_client:
                return datagram.data + b"!"
    """
    await proxy.apply(script(source, execution), Listener("l", 80, "UDP"), *relayed(behind.port, "udp"))
    asking = await datagrams(to=proxy.port)
    assert await asking.ask(b"who") == b"127.0.0.1"
    assert await asking.ask(b"hello") == b"echo hello!"
    asking.transport.sendto(b"drop")  # type: ignore[attr-defined]
    assert await asking.ask(b"again") == b"echo again!"
    assert [behind.heard.get_nowait(), behind.heard.get_nowait()] == [b"hello!", b"again!"]
