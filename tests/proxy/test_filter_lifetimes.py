"""What filters hold, and what holds them: bodies that have gone on, connections and calls across edits, last calls made once."""

from __future__ import annotations

import asyncio
import socket
import struct
import textwrap
from typing import Any, Literal

import pytest
from support.http2_peers import until
from support.proxy import Proxy, Server, make_rule
from support.streams import Made, echo

from gateway.proxy.scripted_exchange import ScriptedExchange
from gateway.scripting.sandbox.host import SandboxedFilter
from gateway.scripting.sandbox.service_calls import BODY
from gateway.snapshot import Attachment, Backend, Change, Endpoint, Listener, Order, Relay, Script, Scripted, Target

HEADER = "import asyncio\nfrom gateway.filters.api import Response, log, shared\n"
NOW = struct.pack("ii", 1, 0)  # of SO_LINGER: a reset in place of an end
__all__ = ["echo"]


@pytest.fixture(params=["inline", "process"])
def execution(request: pytest.FixtureRequest) -> Literal["inline", "process"]:
    """Where filters run: it must make no difference."""
    return request.param


def script(source: str, execution: Any, name: str = "s", **options: Any) -> Script:
    return Script(name, HEADER + textwrap.dedent(source), execution=execution, is_tried=False, **options)


def routed(server: Server, *names: str) -> tuple[Any, ...]:
    filters = tuple(map(Scripted, names or ("s",)))
    backend = Backend("b", (Endpoint("127.0.0.1", server.port),))
    return Listener("l", 80), backend, make_rule("r", targets=(Target(1, "b"),), filters=filters)


def relayed(port: int, *names: str, protocol: Any = "TCP") -> tuple[Any, ...]:
    spoken = "tcp" if protocol == "TCP" else "udp"
    filters = tuple(map(Scripted, names or ("s",)))
    relay = Relay("t", Order("", "t"), (Attachment("l"),), (Target(1, "b"),), filters)
    return Listener("l", 80, protocol), Backend("b", (Endpoint("127.0.0.1", port),), spoken), relay


def tasks(proxy: Proxy) -> int:
    """Of a filter's process, in the worker."""
    hooks = proxy.runtime.programs.get("s").hooks
    assert isinstance(hooks, SandboxedFilter)
    assert hooks._service_calls is not None
    return len(hooks._service_calls._working)


# --- bodies ---


async def test_who_is_too_late_for_a_body_is_told_so(proxy: Proxy, server: Server, execution: Any) -> None:
    """A RuntimeError in either place: it is the filter's fault, which is caught by its name, or logged and counted."""
    source = """
        async def response(request, response):
            try:
                await request.body()
            except RuntimeError as error:
                response.headers["X-Said"] = str(error)
    """
    await proxy.apply(script(source, execution), *routed(server))
    answer = await proxy.talk(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
    assert b"X-Said: the request's body has gone on; only `request` can read it\r\n" in answer
    await proxy.apply(script(source.replace("RuntimeError", "ValueError"), execution))
    answer = await proxy.talk(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"gone on" not in answer
    assert proxy.runtime.programs.get("s").failures == 1


async def test_a_body_that_has_gone_on_is_not_read(proxy: Proxy, server: Server, execution: Any) -> None:
    """Reading it would take the brake off a client whose backend takes nothing."""
    is_asked = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, _: asyncio.StreamWriter, __: bytes) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        is_asked.set()
        await asyncio.Event().wait()

    server.default = deaf
    source = """
        said = []
        async def later(request):
            while not said:
                await asyncio.sleep(0.01)
            try:
                await request.body(1 << 40)
            except Exception as error:
                log.warning("%s", error)
        def request(request):
            global task
            if request.path == "/now":
                said.append(1)
                return Response(200)
            task = asyncio.create_task(later(request))
    """
    await proxy.apply(script(source, execution), *routed(server))
    _, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await is_asked.wait()
    (connection,) = proxy.runtime.ports.tcp[80].listener_port.connections
    peer: Any = connection._exchange.peer  # type: ignore[attr-defined]
    writer.write((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 500)
    await until(lambda: connection._reading_stopped)  # type: ignore[attr-defined]
    assert (await proxy.get("/now"))[0] == 200
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert peer.buffered() < 4 << 20
    writer.transport.abort()


async def test_a_body_that_is_read_twice_at_once(proxy: Proxy, server: Server, execution: Any) -> None:
    source = """
        async def request(request):
            one, other = await asyncio.gather(request.body(), request.body())
            return Response(200, f"{one.decode()} {other.decode()}")
    """
    await proxy.apply(script(source, execution), *routed(server))
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nab")
    connections = proxy.runtime.ports.tcp[80].listener_port.connections
    await until(lambda: connections and next(iter(connections))._exchange is not None)  # type: ignore[attr-defined]
    writer.write(b"cde")
    assert (await reader.read()).endswith(b"\r\n\r\nabcde abcde")
    writer.close()


@pytest.mark.parametrize("patient", [True, False], ids=["the client goes", "the filter goes"])
async def test_nobody_waits_for_a_body_that_will_not_come(proxy: Proxy, server: Server, patient: bool) -> None:
    source = "async def request(request):\n    await request.body()\n"
    await proxy.apply(script(source, "process", seconds=5.0 if patient else 0.1), *routed(server))
    writers = []
    for number in range(1, 6):
        _, writer = await proxy.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nx")
        writers.append(writer)
        if patient:
            await until(lambda number=number: tasks(proxy) >= number)  # type: ignore[misc]
    for writer in writers:
        writer.transport.abort()
    await until(lambda: not tasks(proxy))
    assert (await proxy.get())[0] == 200


async def test_a_body_that_no_message_can_carry(proxy: Proxy, server: Server) -> None:
    """One filter puts a large body in place; the next runs elsewhere."""
    large = f"""
        def request(request):
            request.set_body(b"x" * {BODY + 5})
    """
    await proxy.apply(
        script(large, "inline", "large"), script("async def request(request):\n    await request.body()", "process")
    )
    await proxy.apply(*routed(server, "large", "s"))
    assert (await proxy.get())[0] == 413
    source = "def request_body(chunk):\n    return chunk.data[:2]"
    await proxy.apply(script(source, "process"))
    reader, writer = await proxy.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    assert server.seen[-1].endswith(b"\r\n\r\n4\r\nxxxx\r\n0\r\n\r\n")  # it came in two pieces
    writer.close()


# --- edits ---


async def test_an_edit_cuts_no_connection(proxy: Proxy, echo: Made, execution: Any) -> None:
    source = "async def data(data):\n    return data.data.upper()\n"
    await proxy.apply(script(source, execution), *relayed(await echo(b"")))
    reader, writer = await proxy.connect()
    writer.write(b"one")
    assert await reader.readexactly(3) == b"ONE"
    for number in range(3):
        await proxy.apply(script(f"{source}# {number}\n", execution))
        writer.write(b"two")
        assert await reader.readexactly(3) == b"TWO"
    old = proxy.runtime.programs.get("s").hooks
    writer.close()
    if isinstance(old, SandboxedFilter):
        await until(lambda: not old._users)


async def test_an_edit_while_a_connection_is_asked_about(proxy: Proxy, server: Server, execution: Any) -> None:
    source = "async def connect(connection):\n    await asyncio.sleep(0.1)\n    return True\n"
    _, *parts = routed(server)
    await proxy.apply(script(source, execution), Listener("l", 80, filters=(Scripted("s"),)), *parts)
    asked = asyncio.create_task(proxy.get())
    await until(lambda: proxy.runtime.programs.get("s").calls)
    await proxy.apply(script(f"{source}# an edit\n", execution))
    assert (await asked)[0] == 200


COUNTING = """
    async def connect(connection):
        await shared.add("open", 1)
        async def gone():
            await shared.add("open", -1)
        connection.on_close(gone)
        {waits}
        return True
    async def request(request):
        return Response(200, str(int(await shared.count("open"))))
"""


@pytest.mark.parametrize("how", ["edit", "reset"])
async def test_the_end_of_a_connection_is_told(proxy: Proxy, server: Server, execution: Any, how: str) -> None:
    """Also where the filter is edited before it ends, and where the client goes while it is still asked about."""
    counting = script(COUNTING.format(waits="await asyncio.sleep(0.05)" if how == "reset" else ""), execution)
    _, *parts = routed(server)
    await proxy.apply(counting, Listener("l", 80, filters=(Scripted("s"),)), *parts)
    program = proxy.runtime.programs.get("s")
    for number in range(1, 4):
        _, writer = await proxy.connect()
        await until(lambda number=number: program.calls >= number)  # type: ignore[misc]
        if how == "edit":
            await until(lambda number=number: len(proxy.runtime.ports.tcp[80].listener_port.connections) >= 1)  # type: ignore[misc]
            await proxy.apply(Script("s", counting.source + f"# {number}\n", execution=execution, is_tried=False))
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
        writer.close()
    await until(lambda: not proxy.runtime.ports.tcp[80].listener_port.connections)
    async with asyncio.timeout(10):
        while (await proxy.get())[2] != b"1":  # the one that asks
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("then", ["edited", "dropped"])
async def test_what_is_moved_out_does_not_come_back_over_an_edit(proxy: Proxy, server: Server, then: str) -> None:
    source = "def request(request):\n    return Response(200, '{}')\nasync def test_slow():\n    await asyncio.sleep(0.3)\n"
    await proxy.apply(script(source.format("old"), "inline"), *routed(server))
    programs = proxy.runtime.programs
    part = proxy.runtime.parts["script", "s"]
    assert isinstance(part, Script)
    programs._move_out(part)
    await until(lambda: "s" in programs._supervisors)
    if then == "edited":
        await proxy.apply(script(source.format("new"), "inline"))
    else:
        await proxy.apply(*routed(server)[:2], drop=(("script", "s"),))
    if programs._working:
        await asyncio.wait(programs._working)
    assert "s" not in programs._supervisors
    if then == "edited":
        assert (await proxy.get())[2] == b"new"
    else:
        assert programs.get("s").hooks is None


async def test_of_two_sources_that_had_bad_luck_the_newer_is_in_force(proxy: Proxy, server: Server, tmp_path: Any) -> None:
    """A first source cannot be brought up for no line of its own, and neither can its edit; then both could."""
    programs = proxy.runtime.programs
    fork, programs.forkserver.fork = programs.forkserver.fork, no_process  # type: ignore[method-assign]
    for word in ("v1", "v2"):
        source = f"def request(request):\n    return Response(200, '{word}')"
        assert await proxy.runtime.apply(change(script(source, "process"), *routed(server)))
    programs.forkserver.fork = fork  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        while (await proxy.get())[0] != 200:
            await asyncio.sleep(0.02)
    for _ in range(30):  # as long as the retries of the first would have taken
        assert (await proxy.get())[2] == b"v2"
        await asyncio.sleep(0.02)


async def no_process() -> Any:
    raise OSError("there is none")


def change(*parts: Any) -> Change:
    return Change(put=parts)


# --- ends ---


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends, one way or the other."""
    try:
        async with asyncio.timeout(5):
            while await reader.read(100):
                pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


async def test_a_filter_that_fails_while_bytes_wait_cuts_the_connection(proxy: Proxy, echo: Made) -> None:
    inline = script("def data(data):\n    if data.data == b'bad': raise ValueError('bad')\n", "inline", "i")
    other = script("async def data(data):\n    await asyncio.sleep(0.1)\n", "process", "c")
    await proxy.apply(inline, other, *relayed(await echo(b""), "i", "c"))
    reader, writer = await proxy.connect()
    writer.write(b"one")
    await until(lambda: proxy.runtime.programs.get("c").calls)
    writer.write(b"bad")
    assert await ends(reader)
    writer.close()


async def test_the_last_call_is_made_once(proxy: Proxy, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    source = """
        from gateway.filters.api import every
        @every(60)
        def flush():
            log.warning("flushed")
        def request(request):
            pass
    """
    await proxy.apply(script(source, "process"), *routed(server))
    supervisor = proxy.runtime.programs._supervisors["s"]
    supervisor.drop()
    supervisor.drop()
    await proxy.runtime.programs.stop()
    assert [record.message for record in caplog.records].count("flushed") == 1


async def test_a_port_that_is_closed_while_datagrams_are_with_a_filter(proxy: Proxy) -> None:
    source = "async def datagram(datagram):\n    await asyncio.sleep(0.05)\n"
    await proxy.apply(script(source, "inline"), *relayed(9, protocol="UDP"))
    port = proxy.runtime.ports.udp[80]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", proxy.port))
        await until(lambda: port._tasks)
        await proxy.apply(drop=(("listener", "l"),))
        await until(lambda: not port._tasks)
    assert not len(port)


async def test_no_exchange_outlives_its_client(proxy: Proxy, server: Server) -> None:
    """Each that ended while its response's body was awaited."""
    waits = asyncio.Event()

    async def half(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await waits.wait()

    server.default = half
    await proxy.apply(script("async def response(request, response):\n    await response.body()", "process"), *routed(server))
    _, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: tasks(proxy))
    (connection,) = proxy.runtime.ports.tcp[80].listener_port.connections
    assert isinstance(connection._exchange, ScriptedExchange)  # type: ignore[attr-defined]
    writer.transport.abort()
    await until(lambda: not tasks(proxy))
    waits.set()


async def test_an_edit_and_a_client_that_goes_while_connect_is_awaited(proxy: Proxy, server: Server, execution: Any) -> None:
    """What `connect` did is undone all the same."""
    counting = script(COUNTING.format(waits="await asyncio.sleep(0.1)"), execution)
    _, *parts = routed(server)
    await proxy.apply(counting, Listener("l", 80, filters=(Scripted("s"),)), *parts)
    _, writer = await proxy.connect()
    await until(lambda: proxy.runtime.programs.get("s").calls)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
    writer.close()
    await proxy.apply(Script("s", counting.source + "# edited\n", execution=execution, is_tried=False))
    async with asyncio.timeout(10):
        while (await proxy.get())[2] != b"1":  # the one that asks
            await asyncio.sleep(0.01)


async def test_edits_leave_no_process_for_connections_that_need_none(proxy: Proxy, server: Server) -> None:
    source = "async def connect(connection):\n    return True\n"
    _, *parts = routed(server)
    await proxy.apply(script(source, "process"), Listener("l", 80, filters=(Scripted("s"),)), *parts)
    _, writer = await proxy.connect()
    await until(lambda: proxy.runtime.ports.tcp[80].listener_port.connections)
    old = proxy.runtime.programs.get("s").hooks
    assert isinstance(old, SandboxedFilter)
    await proxy.apply(script(f"{source}# an edit\n", "process"))
    await until(lambda: old.is_dead)
    writer.close()


async def test_a_filter_that_is_only_tried_can_be_deleted(proxy: Proxy, server: Server) -> None:
    """It never came into force, for no line of its own, and is tried again."""
    programs = proxy.runtime.programs
    fork, programs.forkserver.fork = programs.forkserver.fork, no_process  # type: ignore[method-assign]
    assert await proxy.runtime.apply(change(script("def request(request): pass", "process"), *routed(server)))
    attempt = programs._supervisors["s"]._next_attempt
    assert attempt is not None
    await proxy.apply(drop=(("script", "s"),))
    programs.forkserver.fork = fork  # type: ignore[method-assign]
    await asyncio.wait([attempt])
    assert "s" not in programs._supervisors
    assert programs.get("s").hooks is None


async def test_a_change_to_a_process_that_fails_leaves_the_worker_protected(proxy: Proxy, server: Server) -> None:
    source = "def request(request):\n    return Response(200, 'here')"
    await proxy.apply(script(source, "inline"), *routed(server))
    programs = proxy.runtime.programs
    assert await proxy.runtime.apply(change(script("def request(request:", "process")))
    assert (await proxy.get())[2] == b"here"
    programs.get("s").overdue()
    await until(lambda: isinstance(programs.get("s").hooks, SandboxedFilter))
    assert (await proxy.get())[2] == b"here"


async def test_a_faulty_edit_does_not_end_the_retries_of_the_source_before(proxy: Proxy, server: Server) -> None:
    programs = proxy.runtime.programs
    fork, programs.forkserver.fork = programs.forkserver.fork, no_process  # type: ignore[method-assign]
    good = script("def request(request):\n    return Response(200, 'good')", "process")
    assert await proxy.runtime.apply(change(good, *routed(server)))
    programs.forkserver.fork = fork  # type: ignore[method-assign]
    assert await proxy.runtime.apply(change(script("def request(request:", "process")))
    async with asyncio.timeout(10):
        while (await proxy.get())[::2] != (200, b"good"):
            await asyncio.sleep(0.02)
