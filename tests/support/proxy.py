"""Real sockets on loopback: client bytes in, backend bytes seen, bytes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from controller.ports import free_ports
from gateway.runtime.runtime import Runtime
from gateway.snapshot import (
    NO_TIMEOUTS,
    Attachment,
    Backend,
    Change,
    Endpoint,
    Filter,
    Listener,
    Match,
    Order,
    Part,
    Persistence,
    Retry,
    Rule,
    Target,
    Timeouts,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Reply = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


class Server:
    """A backend that says what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.default: Reply = OK
        self.seen: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server
        self._serving: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def start(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self._server.close()
        for writer, task in list(self._serving.items()):
            task.cancel()
            writer.transport.abort()  # some of what was said may never be taken
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving[writer] = task
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.seen.append(head)
                reply = self.replies.pop(0) if self.replies else self.default
                if isinstance(reply, bytes):
                    body = await read_body(reader, head)
                    self.seen[-1] += body
                    writer.write(reply)
                else:
                    await reply(reader, writer, head)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):  # the last by `stop`
            pass
        finally:
            del self._serving[writer]
            writer.close()


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.partition(b":")[2]))
        if line == b"transfer-encoding: chunked":
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                body += await reader.readuntil(b"\r\n")
            return body
    return b""


class Proxy:
    """A runtime in this process, with one listener for all hosts."""

    def __init__(self, runtime: Runtime, offset: int) -> None:
        self.runtime = runtime
        self.port = 80 + offset

    async def apply(self, *parts: Part, drop: tuple[tuple[str, str], ...] = ()) -> None:
        problems = await self.runtime.apply(Change(put=parts, drop=drop))
        assert not problems, problems

    async def route(self, *servers: Server, name: str = "r", hostname: str = "", **rule: object) -> None:
        """One rule to one backend of these servers."""
        endpoints = tuple(Endpoint("127.0.0.1", server.port) for server in servers)
        await self.apply(
            Listener("l", 80), Backend(f"b-{name}", endpoints),
            make_rule(name, hostname, targets=rule.pop("targets", (Target(1, f"b-{name}"),)), **rule),
        )  # fmt: skip

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def talk(self, data: bytes, *, half_close: bool = True) -> bytes:
        """Everything that comes back for these bytes, until the proxy closes."""
        reader, writer = await self.connect()
        writer.write(data)
        if half_close:
            writer.write_eof()
        try:
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str = "/", host: str = "example.com", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request of its own connection: status, fields by lower-case name, body."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return parsed(await self.talk("\r\n".join(lines).encode() + b"\r\n\r\n"))


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return int(first.split()[1]), fields, body


def make_rule(
    name: str = "r",
    hostname: str = "",
    *,
    targets: tuple[Target, ...] = (),
    matches: tuple[Match, ...] = (Match(),),
    filters: tuple[Filter, ...] = (),
    timeouts: Timeouts = NO_TIMEOUTS,
    retry: Retry | None = None,
    persistence: Persistence | None = None,
) -> Rule:
    at = (Attachment("l", hostname),)
    return Rule(name, Order(route=name), at, matches, filters, targets, timeouts, retry, persistence)


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    (port,) = free_ports(1)
    offset = port - 80
    runtime = Runtime(bind="127.0.0.1", port_offset=offset)
    # An exception in a callback closes the connection, which looks like a refusal; it must not pass for one.
    unexpected: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(
        # The poller of grpc's own client outlives the loop of the test that it was in.
        lambda _, context: unexpected.append(context) if "PollerCompletionQueue" not in str(context["message"]) else None
    )
    yield Proxy(runtime, offset)
    runtime.close()
    await runtime.programs.stop()
    for opened in runtime.ports.tcp.values():
        for connection in list(opened.listener_port.connections):
            connection.abort()
    await asyncio.sleep(0)
    while runtime.turns._waiting:  # streams end a few a turn
        await asyncio.sleep(0)
    assert not unexpected, unexpected


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = await Server().start()
    yield made
    await made.stop()


@pytest.fixture
async def other() -> AsyncIterator[Server]:
    made = await Server().start()
    yield made
    await made.stop()
