"""A process that runs one filter, and can do nothing else (`restrictions`). It ends when the worker closes the line.

Calls run as they come; one that waits does not hold up the others, one that computes does.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import os
import socket
import sys
from collections import OrderedDict
from collections.abc import Awaitable
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from gateway.base.logs import Printed
from gateway.filters import api
from gateway.filters.api.bodies import BodySource
from gateway.filters.api.http_client import Call
from gateway.filters.api.shared_state import Operation
from gateway.http.http1 import Field, Request, Response, kind_of, parse_target
from gateway.scripting import loader
from gateway.scripting.loader import Code, ScriptError, blame, bytes_or_nothing, verdict_or_nothing, wrong_result
from gateway.scripting.sandbox import messages, restrictions
from gateway.scripting.sandbox.messages import (
    WORDS,
    Ask,
    Cancel,
    ChangedRequest,
    Closed,
    ConnectionData,
    Done,
    Finish,
    Forget,
    HookCall,
    Load,
    Loaded,
    MadeResponse,
    Octets,
    Pairs,
    Ping,
    Pong,
    RequestData,
    ResponseData,
    Told,
    Want,
    Whole,
)
from gateway.scripting.sandbox.unasked import Gathered, Log, LogHandler
from gateway.scripting.timers import LAST, Timers

FAULTS: Final[dict[str, type[Exception]]] = {"PermissionError": PermissionError, "ValueError": ValueError}
CONNECTIONS: Final = 10_000  # whose state is kept


class KnownExchange:
    """An exchange, as far as its filter has seen it."""

    def __init__(self, request: api.Request) -> None:
        self.request = request
        self.response: api.Response | None = None
        self.choice: tuple[str, str | None] | None = None
        self.choices: tuple[str, ...] = ()

    def choose(self, service: str, key: str | None) -> None:
        """Steering: checked here, so that the line that asked for nobody is blamed."""
        if service not in self.choices:
            known = ", ".join(sorted(name for name in self.choices if "/" in name and ":" in name))
            raise LookupError(f"{service!r} is none of this rule's backends ({known or 'there are none'})")
        self.choice = service, key


class FilterRunner:
    """The process that runs one filter."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._code: Code
        self._known: dict[int, KnownExchange] = {}
        self._connections: OrderedDict[int, api.Connection] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._wanted: dict[int, asyncio.Future[bytes]] = {}
        self._asking: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the numbers of calls
        self._log = Log(self._send)
        self._gathered = Gathered(self._send)

    async def serve(self) -> None:
        """Until the line is closed."""
        while True:
            try:
                message = await messages.read_to_cell(self._reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            match message:
                case Load():
                    await self._load(message)
                case HookCall():
                    if message.request is not None and message.exchange not in self._known:  # here: so `Forget` comes after it
                        self._known[message.exchange] = self._meet(message.exchange, message.request)
                    task = self._tasks[message.number] = asyncio.create_task(self._call(message))
                    task.add_done_callback(lambda _, number=message.number: self._tasks.pop(number, None))  # type: ignore[misc]
                case Cancel(number):
                    if number in self._tasks:
                        self._tasks[number].cancel()
                case Whole():
                    self._told(message)
                case Told():
                    self._answered(message)
                case Closed(connection):
                    task = asyncio.create_task(self._close(connection))
                    self._closing.add(task)
                    task.add_done_callback(self._closing.discard)
                case Forget(exchange):
                    self._known.pop(exchange, None)
                case Finish():
                    self._finishing = asyncio.create_task(self._finish())
                case Ping():
                    self._send(Pong())

    def _send(self, message: messages.FromCell) -> None:
        """Say something. Raises ValueError for what the worker would not understand."""
        self._writer.write(messages.said(message))

    async def _load(self, message: Load) -> None:
        layers = restrictions.enter(message.memory)
        sys.stdout = sys.stderr = Printed(partial(self._log.say, logging.INFO))
        logging.getLogger("fsm.filter").addHandler(LogHandler(self._log.say))
        logging.getLogger("fsm.filter").setLevel(logging.INFO)
        try:
            services = {
                "http": api.HttpClient(self._fetch),
                "shared": api.Shared(self._ask),
                "metrics": api.Metrics(self._gathered.take),
                "secrets": MappingProxyType(dict(message.secrets)),
            }
            self._code = loader.load(message.name, message.source, message.config, services)
            tests = await loader.run_tests(self._code)
        except ScriptError as error:
            self._send(Loaded(fault=error.reason[:WORDS], line=min(error.line, 1_000_000)))
            return
        except MemoryError:
            self._send(Loaded(fault=f"takes more than {message.memory >> 20} MiB of memory"))
            return
        self._send(Loaded(self._code.names, layers, tests, len(self._code.timers)))  # type: ignore[arg-type]  # they are these
        self._timers = Timers(self._code.timers, self._run)

    async def _call(self, call: HookCall) -> None:
        try:
            done = await self._called(call)
        except api.Refused as error:
            done = Done(call.number, status=error.status, failure=error.reason[:WORDS])
        except Exception as error:
            done = Done(call.number, failure=self._blamed(error))
        try:
            self._send(done)
        except Exception as error:  # such as one that is too long
            self._send(Done(call.number, failure=self._blamed(error)))

    def _blamed(self, error: Exception) -> str:
        line, words = blame(error, self._code.file)
        return (f"line {line}: {words}" if line else words)[:WORDS]

    async def _called(self, call: HookCall) -> Done:
        if call.connection is not None:
            return await self._called_below(call, call.connection)
        known = self._known.get(call.exchange)
        if known is None:  # over already
            return Done(call.number)
        if call.response is not None:
            known.response = _response(call.response, RemoteBody(self, call.exchange, "response"))
        hook = getattr(self._code, call.hook)
        request = known.request
        match call.hook:
            case "request":
                result = await _settled(hook(request))
                if result is None:
                    return Done(call.number, request=_request_data(request), choice=known.choice)
                return Done(call.number, response=_response_data(_answer(hook, result)))
            case "response":
                result = await _settled(hook(request, known.response))
                if result is not None:
                    known.response = _answer(hook, result)
                assert known.response is not None
                return Done(call.number, response=_response_data(known.response))
            case "log":
                over = call.over
                assert over is not None
                await _settled(
                    hook(
                        api.Exchange(
                            request, known.response, over.status, started=over.started, seconds=over.seconds,
                            response_bytes=over.response_bytes, backend=over.backend, endpoint=over.endpoint,
                        )
                    )
                )  # fmt: skip
                return Done(call.number)
            case _:
                response = known.response if call.hook == "response_body" else None
                passed = await _settled(hook(api.Chunk(call.data, call.last, request, response)))
                return Done(call.number, data=_octets(bytes_or_nothing(hook, passed)))

    async def _called_below(self, call: HookCall, data: ConnectionData) -> Done:
        """What is no matter of requests: connections, bytes, datagrams."""
        hook = getattr(self._code, call.hook)
        if call.hook == "datagram":
            datagram = api.Datagram(call.data, data.address, data.port, from_client=call.from_client)
            passed = await _settled(hook(datagram))
            return Done(call.number, data=_octets(bytes_or_nothing(hook, passed)), answer=_octets(datagram.answered))
        connection = self._connection(data)
        if call.hook == "data":
            passed = await _settled(hook(api.Data(call.data, connection, from_client=call.from_client)))
            return Done(call.number, data=_octets(bytes_or_nothing(hook, passed)))
        verdict = verdict_or_nothing(hook, await _settled(hook(connection)))
        connection.closed += connection.take_closing()
        return Done(call.number, admitted=verdict, watches=bool(connection.closed))

    def _connection(self, data: ConnectionData) -> api.Connection:
        connection = self._connections.get(data.number)
        if connection is None:
            connection = self._connections[data.number] = api.Connection(data.address, data.port, data.scheme)
        self._connections.move_to_end(data.number)
        if len(self._connections) > CONNECTIONS:
            self._connections.popitem(last=False)
        return connection

    async def _close(self, number: int) -> None:
        connection = self._connections.pop(number, None)
        for function in connection.closed if connection is not None else ():
            await self._run(function)

    def _meet(self, exchange: int, data: RequestData) -> KnownExchange:
        parsed = parse_target(data.target.encode())
        raw = Request(data.method.encode(), *(parsed or (b"*", None)), data.http10, _fields(data.headers))
        raw.host = data.host.encode()
        connection = self._connection(ConnectionData(data.connection, data.address, data.port, data.scheme))
        known = KnownExchange(api.Request(raw, connection, RemoteBody(self, exchange, "request"), None, data.route))
        known.choices = data.choices
        known.request.steer(known)
        return known

    def want(self, exchange: int, of: str, limit: int) -> Awaitable[bytes]:
        """Ask the worker for a body."""
        number = next(self._numbers)
        self._send(Want(number, exchange, of, limit))  # type: ignore[arg-type]  # one of the two
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._wanted[number] = future
        return future

    def _ask(self, what: Call | Operation) -> asyncio.Future[Any]:
        """Let the worker do it: there is no network here, and no memory but our own."""
        number = next(self._numbers)
        self._send(Ask(number, what))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_look)
        self._asking[number] = future
        return future

    async def _fetch(self, call: Call) -> api.Reply:
        reply: api.Reply = await self._ask(call)
        return reply

    def _answered(self, message: Told) -> None:
        future = self._asking.pop(message.number, None)
        if future is None or future.done():
            return
        if message.fault:
            future.set_exception(FAULTS.get(message.kind, OSError)(message.fault))
        else:
            future.set_result(message.result)

    async def _finish(self) -> None:
        # Timers run for the last time, beside what is done at the end of connections.
        await asyncio.wait([asyncio.create_task(self._timers.stop()), *self._closing], timeout=LAST)
        self._gathered.send()
        self._writer.close()

    async def _run(self, function: Any) -> None:
        """A timer's function."""
        try:
            await _settled(function())
        except Exception as error:
            self._log.say(logging.ERROR, self._blamed(error))

    def _told(self, message: Whole) -> None:
        future = self._wanted.pop(message.number, None)
        if future is None or future.done():
            return
        if message.status:
            future.set_exception(api.Refused(message.status, message.reason))
        elif message.reason:
            future.set_exception(RuntimeError(message.reason))
        else:
            future.set_result(message.data)


class RemoteBody:
    """A body that the worker has."""

    def __init__(self, cell: FilterRunner, exchange: int, of: str) -> None:
        self._cell, self._exchange, self._of = cell, exchange, of

    def whole(self, limit: int) -> Awaitable[bytes]:
        """The whole body, of at most `limit` octets, from the worker."""
        return self._cell.want(self._exchange, self._of, limit)


def _look(future: asyncio.Future[Any]) -> None:
    """A filter need not wait for what it asked for: then nobody is told what became of it."""
    if not future.cancelled():
        future.exception()


async def _settled(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _answer(hook: Any, result: Any) -> api.Response:
    if not isinstance(result, api.Response):
        raise wrong_result(hook, result, "a Response or nothing")
    return result


def _fields(pairs: Pairs) -> list[Field]:
    # Of the same kinds as in the worker: `X_User` is looked for where a filter sets or removes `X-User`.
    return [Field(kind_of(name.lower()), name.lower(), value, name + b": " + value) for name, value in pairs]


def _response(data: ResponseData, source: BodySource) -> api.Response:
    return api.Response.received(Response(data.status, b"", False, _fields(data.headers)), source)


def _request_data(request: api.Request) -> ChangedRequest | None:
    if not request.is_changed:
        return None
    return ChangedRequest(request.method, request.target, request.host, request.headers.pairs(), _octets(request.replaced))


def _response_data(response: api.Response) -> MadeResponse:
    return MadeResponse(response.status, response.headers.pairs(), _octets(response.content))


def _octets(data: bytes | None) -> Octets | None:
    return memoryview(data) if data is not None else None


def run(connection: socket.socket) -> None:
    """Serve a worker, with no way back to what this process was."""
    os.environ.clear()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # the worker's own; what is said goes over the line
        os.dup2(nowhere, descriptor)
    if nowhere > 2:
        os.close(nowhere)

    # Python 3.12 and later write what has heaped up by sendmsg, which can carry descriptors and is not allowed here.
    asyncio.selector_events._HAS_SENDMSG = False  # type: ignore[attr-defined]

    async def serve() -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 20)
        await FilterRunner(reader, writer).serve()

    asyncio.run(serve())
