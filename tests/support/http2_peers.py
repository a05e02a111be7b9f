"""HTTP/2 from outside: a client and a backend on the `h2` library, which shares nothing with ours."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

Headers = list[tuple[str, str]]


@dataclass
class Answer:
    """What came back on a stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None
    interim: list[int] = field(default_factory=list)
    head_came: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Speaker(asyncio.Protocol):
    """What both sides share."""

    def __init__(self, *, client: bool, **settings: int) -> None:
        config = h2.config.H2Configuration(
            client_side=client, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self._settings = settings
        self.transport: asyncio.Transport
        self.closed = asyncio.Event()
        self.goaways: list[int] = []
        self.auto = True  # open windows as content comes
        self._room = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        if self._settings:
            values = {getattr(h2.settings.SettingCodes, name): value for name, value in self._settings.items()}
            self.h2.local_settings = h2.settings.Settings(client=self.h2.config.client_side, initial_values=values)
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._room.set()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived) and self.auto:
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.ConnectionTerminated):
                self.goaways.append(int(event.error_code))
            if isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged, h2.events.StreamReset)):
                self._room.set()
            self.take(event)
        self.flush()

    def take(self, event: h2.events.Event) -> None:
        raise NotImplementedError

    async def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Content, as the windows allow."""
        at = 0
        while at < len(data) and not self.closed.is_set():
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                self._room.clear()
                await self._room.wait()
                continue
            piece = data[at : at + room]
            at += len(piece)
            self.h2.send_data(stream, piece, end_stream=end and at == len(data))
            self.flush()


class Client(Speaker):
    """A client connection."""

    def __init__(self, **settings: int) -> None:
        super().__init__(client=True, **settings)
        self.answers: dict[int, Answer] = {}

    def take(self, event: Any) -> None:
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0)
        if answer is None:
            return
        match event:
            case h2.events.InformationalResponseReceived():
                answer.interim.append(int(dict(event.headers)[b":status"]))
            case h2.events.ResponseReceived():
                headers = {k.decode(): v.decode() for k, v in event.headers}
                answer.status = int(headers.pop(":status"))
                answer.headers = headers
                answer.head_came.set()
            case h2.events.DataReceived():
                answer.body += event.data
            case h2.events.TrailersReceived():
                answer.trailers = {k.decode(): v.decode() for k, v in event.headers}
            case h2.events.StreamReset():
                answer.reset = int(event.error_code)
                answer.ended.set()
            case h2.events.StreamEnded():
                answer.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for answer in self.answers.values():
            answer.ended.set()

    def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = "example.com",
        more: Sequence[tuple[str, str]] = (),
        end: bool = True,
    ) -> int:
        """Open a stream."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        headers = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path), *more]
        self.h2.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    async def answer(self, stream: int) -> Answer:
        """The whole answer."""
        async with asyncio.timeout(5):
            await self.answers[stream].ended.wait()
        return self.answers[stream]

    async def get(self, path: str = "/", **how: Any) -> Answer:
        """One request without content, and its answer."""
        return await self.answer(self.ask(path, **how))


async def client(port: int, context: ssl.SSLContext | None = None, name: str | None = None, **settings: int) -> Client:
    """Connect, by prior knowledge or over TLS."""
    if context is not None:
        context.set_alpn_protocols(["h2"])
    _, made = await asyncio.get_running_loop().create_connection(
        lambda: Client(**settings), "127.0.0.1", port, ssl=context, server_hostname=name
    )
    return made


@dataclass
class Asked:
    """A request as a backend got it."""

    speaker: BackendSpeaker
    stream: int
    headers: dict[str, str]
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    reset: int | None = None

    def reply(self, status: int = 200, more: Sequence[tuple[str, str]] = (), *, end: bool = False) -> None:
        self.speaker.h2.send_headers(self.stream, [(":status", str(status)), *more], end_stream=end)
        self.speaker.flush()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        await self.speaker.send(self.stream, data, end=end)

    def finish(self, trailers: Headers) -> None:
        self.speaker.h2.send_headers(self.stream, trailers, end_stream=True)
        self.speaker.flush()


Handler = Callable[[Asked], Awaitable[None]]


async def says_ok(asked: Asked) -> None:
    await asked.ended.wait()
    asked.reply(200, [("content-length", "2")])
    await asked.send(b"ok", end=True)


class BackendSpeaker(Speaker):
    """A backend's connection."""

    def __init__(self, backend: Backend2) -> None:
        super().__init__(client=False, **backend.settings)
        self.backend = backend
        self.asked: dict[int, Asked] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.backend.connections.append(self)

    def take(self, event: Any) -> None:
        match event:
            case h2.events.RequestReceived():
                asked = Asked(self, event.stream_id, {k.decode(): v.decode() for k, v in event.headers})
                self.asked[event.stream_id] = asked
                self.backend.seen.append(asked)
                handler = self.backend.handlers.pop(0) if self.backend.handlers else self.backend.default
                task = asyncio.create_task(handler(asked))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case h2.events.DataReceived():
                self.asked[event.stream_id].body += event.data
            case h2.events.TrailersReceived():
                self.asked[event.stream_id].trailers = {k.decode(): v.decode() for k, v in event.headers}
            case h2.events.StreamReset():
                if event.stream_id in self.asked:
                    self.asked[event.stream_id].reset = int(event.error_code)
                    self.asked[event.stream_id].ended.set()
            case h2.events.StreamEnded():
                self.asked[event.stream_id].ended.set()


class Backend2:
    """A backend that speaks HTTP/2, by prior knowledge."""

    def __init__(self, **settings: int) -> None:
        self.settings = settings
        self.handlers: list[Handler] = []
        self.default: Handler = says_ok
        self.seen: list[Asked] = []
        self.connections: list[BackendSpeaker] = []
        self.port = 0
        self._server: asyncio.Server

    async def start(self, context: ssl.SSLContext | None = None) -> Backend2:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: BackendSpeaker(self), "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self._server.close()
        for connection in self.connections:
            connection.transport.close()
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any]) -> None:
    """Until something holds, a turn of the loop at a time."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)
