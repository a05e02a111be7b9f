"""A filter in a process of its own, as an exchange knows it: functions that answer later.

Nothing that the process says is believed: a message that means nothing ends it, and so does one too many. One that dies takes
the calls under way along; one that does not answer, not even to say that it is there, is killed, and so is one whose line
is closed, whatever it does then.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from gateway.base.logs import plain
from gateway.filters import api
from gateway.scripting.hooks import Hook, HookName, Hooks
from gateway.scripting.loader import ScriptError
from gateway.scripting.sandbox import credit, messages
from gateway.scripting.sandbox.credit import Credit
from gateway.scripting.sandbox.forkserver_client import Forkserver
from gateway.scripting.sandbox.line import Line
from gateway.scripting.sandbox.messages import (
    Ask,
    Cancel,
    Closed,
    ConnectionData,
    Done,
    Finish,
    Forget,
    HookCall,
    Load,
    Loaded,
    MadeResponse,
    Measure,
    Octets,
    Over,
    Ping,
    Pong,
    RequestData,
    ResponseData,
    Said,
    Want,
)
from gateway.scripting.sandbox.service_calls import BODY, ServiceCalls
from gateway.scripting.services import FilterServices
from gateway.scripting.timers import LAST

log = logging.getLogger("fsm.filters")
LOADING: Final = 2.0  # seconds to load a source and run its tests
ANSWERING: Final = 0.25  # seconds to say that it is there
ENDING: Final = 0.5  # seconds from the end of its line to its own
MAX_CALLS: Final = 1000  # calls under way
DATAGRAM: Final = 65507  # octets at most


class FailedError(Exception):
    """What a filter's process says of a failure, or that it is gone."""


class SandboxedFilter(Hooks):
    """The functions of a filter that runs elsewhere."""

    def __init__(self, forkserver: Forkserver, supplies: FilterServices) -> None:
        super().__init__()
        self._supplies = supplies
        self.script = supplies.script
        self.layers: tuple[str, ...] = ()
        self.on_death: Callable[[SandboxedFilter], None] = lambda _: None
        self.began = monotonic()
        self.broke_rules = False
        self.end = ""  # what became of it
        self.pid = 0
        self._forkserver = forkserver
        self._credit = Credit(of_all=forkserver.of_all)
        self._timers = 0
        self._number = 0  # of the process
        self._line: Line | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Done]] = {}
        self._exchanges: dict[int, tuple[int, api.Request]] = {}  # by the view's identity: its number, and itself
        self._views: dict[int, tuple[api.Request, api.Response | None]] = {}  # by number
        self._pong = asyncio.Event()
        self._check: asyncio.Task[None] | None = None
        self._is_retired = False
        self._is_ending = False
        self._watched = False  # it wanted to know of the end of some connection
        self._waits_for_room = 0  # calls that are not written yet
        self._users = 0  # exchanges that keep to it
        self._service_calls: ServiceCalls | None = None

    @property
    def runs(self) -> str:
        """Where, in words."""
        return f"process ({', '.join(self.layers)})"

    @property
    def is_dead(self) -> bool:
        """Whether there is nobody to call."""
        return self._line is None or self._ended.done()

    async def start(self) -> None:
        """Start the process and load the source. Raises ScriptError."""
        try:
            await self._start()
        except BaseException:
            self.retire()
            self.kill()
            raise

    async def _start(self) -> None:
        script = self.script
        try:
            ours, self._number, self.pid = await self._forkserver.fork()
        except (OSError, TimeoutError) as error:
            raise ScriptError(script.name, 0, f"there is no process for it: {str(error) or 'no answer'}") from None
        line = Line(self._credit, self._take, self._over, lambda: bool(self._calls))
        try:
            await asyncio.get_running_loop().create_connection(lambda: line, sock=ours)
        except BaseException:
            ours.close()
            raise
        self._line = line
        self._service_calls = ServiceCalls(self._supplies, line, lambda exchange: self._views.get(exchange, (None, None)))
        self._forkserver.living.add(self)
        self._send(Load(script.name, script.source, script.config, script.memory, script.secrets))
        try:
            async with asyncio.timeout(LOADING):
                loaded = await asyncio.shield(self._loaded)
        except TimeoutError:
            raise ScriptError(script.name, 0, f"loading it and its tests took longer than {LOADING:g} s") from None
        if loaded.fault:
            raise ScriptError(script.name, loaded.line, loaded.fault)
        self.layers = loaded.layers
        self._timers = loaded.timers
        functions: dict[HookName, Hook] = {
            "request": self._request, "request_body": self._request_body, "response": self._response,
            "response_body": self._response_body, "log": self._log, "connect": self._connect, "data": self._data,
            "datagram": self._datagram,
        }  # fmt: skip
        self.set_functions({name: functions[name] for name in loaded.hooks})

    def retire(self) -> None:
        """Another has its place: end with the last exchange."""
        self._is_retired = True
        if not self._users:
            self._end()

    def _end(self) -> None:
        if self._line is None or self.is_dead or self._is_ending:
            return
        self._is_ending = True
        if self._timers or self._watched:  # something is still to be done there: at its usual priority, or not in time
            self._send(Finish())
            asyncio.get_running_loop().call_later(LAST + 1, self.kill)
        else:
            self._forkserver.stand_back(self._number)
            self._line.close()
            asyncio.get_running_loop().call_later(ENDING, self.kill)

    def kill(self) -> None:
        """End it at once."""
        self._forkserver.kill(self._number)

    async def stop(self) -> None:
        """End it and wait until it is over."""
        self._is_retired = True
        if self._line is not None:
            if self._timers or self._watched:
                self._end()
                await asyncio.wait([self._ended], timeout=LAST + 0.5)
            self.kill()
            if not self.is_dead:
                self._line.close()
                await asyncio.wait([self._ended], timeout=ENDING)

    def acquire(self) -> None:
        """An exchange keeps to it."""
        self._users += 1

    def release(self) -> None:
        """An exchange, a connection or a datagram keeps to it no longer."""
        self._users -= 1
        if self._is_retired and not self._users:
            self._end()

    def forget(self, request: api.Request) -> None:
        """The exchange of this request is over: the process needs to know no more of it."""
        exchange = self._exchanges.pop(id(request), None)
        if exchange is not None:
            self._views.pop(exchange[0], None)
            if self._service_calls is not None:
                self._service_calls.forget(exchange[0])
            self._send(Forget(exchange[0]))

    def _send(self, message: object) -> None:
        if self._line is not None:
            self._line.write(message)

    # --- its functions ---

    async def _request(self, request: api.Request) -> api.Response | None:
        done = await self._ask("request", request)
        if done.response is not None:
            return _made(done.response)
        if done.request is not None:
            changed = done.request
            request.become(changed.method, changed.target, changed.host, changed.headers, _copied(changed.body))
        if done.choice is not None:
            request.choose(*done.choice)
        return None

    async def _response(self, request: api.Request, response: api.Response) -> None:
        done = await self._ask("response", request, response)
        if done.response is not None:
            response.become(done.response.status, done.response.headers, _copied(done.response.body))

    async def _request_body(self, chunk: api.Chunk) -> bytes | None:
        return await self._through("request_body", chunk, None)

    async def _response_body(self, chunk: api.Chunk) -> bytes | None:
        return await self._through("response_body", chunk, chunk.response)

    async def _through(self, hook: HookName, chunk: api.Chunk, response: api.Response | None) -> bytes | None:
        """A piece of a body; one that is longer than a message may be goes in several."""
        data = chunk.data
        if len(data) <= BODY:
            return _copied((await self._ask(hook, chunk.request, response, data=data, last=chunk.is_last)).data)
        passed = []
        for start in range(0, len(data), BODY):
            piece = data[start : start + BODY]
            is_last = chunk.is_last and start + BODY >= len(data)
            done = await self._ask(hook, chunk.request, response, data=piece, last=is_last)
            passed.append(piece if done.data is None else bytes(done.data))
        return b"".join(passed)

    async def _log(self, exchange: api.Exchange) -> None:
        over = Over(
            exchange.status, exchange.started, exchange.seconds, exchange.response_bytes, exchange.backend, exchange.endpoint
        )
        await self._ask("log", exchange.request, exchange.response, over=over)

    async def _connect(self, connection: api.Connection) -> bool | None:
        done = await self._call(HookCall(next(self._numbers), 0, "connect", connection=_connection_data(connection)))
        if done.watches:
            self._watched = True
            connection.on_close(lambda: self._send(Closed(connection.number)))
        return done.admitted

    async def _data(self, data: api.Data) -> bytes | None:
        connection = _connection_data(data.connection)
        call = HookCall(next(self._numbers), 0, "data", data=data.data, connection=connection, from_client=data.from_client)
        return _copied((await self._call(call)).data)

    async def _datagram(self, datagram: api.Datagram) -> bytes | None:
        connection = ConnectionData(0, datagram.address, datagram.port)
        call = HookCall(
            next(self._numbers), 0, "datagram", data=datagram.data, connection=connection, from_client=datagram.from_client
        )
        done = await self._call(call)
        if done.answer is not None:
            datagram.answer(_fitting(done.answer))
        return _fitting(done.data) if done.data is not None else None

    async def _ask(
        self,
        hook: HookName,
        request: api.Request,
        response: api.Response | None = None,
        *,
        data: bytes = b"",
        last: bool = False,
        over: Over | None = None,
    ) -> Done:
        await self._admit()
        number = next(self._numbers)
        exchange, _ = self._exchanges.get(id(request), (0, None))
        call = HookCall(number, exchange, hook, data=data, last=last, over=over)
        if not exchange:
            call.exchange = exchange = number
            call.request = _request_data(request)
            self._exchanges[id(request)] = number, request
            self._views[number] = request, None
        if response is not None and self._views[exchange][1] is not response:
            call.response = ResponseData(response.status, response.headers.pairs())
            self._views[exchange] = request, response
        return await self._written(call)

    async def _call(self, call: HookCall) -> Done:
        await self._admit()
        return await self._written(call)

    async def _admit(self) -> None:
        """Until there is room for one more call. Raises FailedError where there is nobody to call."""
        self._check_line()
        if len(self._calls) + self._waits_for_room >= MAX_CALLS:
            raise FailedError(f"{MAX_CALLS} calls wait for it already")
        assert self._line is not None
        self._waits_for_room += 1
        try:
            await self._line.wait_room()
        finally:
            self._waits_for_room -= 1
        self._check_line()

    def _check_line(self) -> None:
        if self._line is None or self.is_dead or self._line.is_closing:
            raise FailedError(self.end or "its process ended")

    async def _written(self, call: HookCall) -> Done:
        """Write a call, at once, and wait for its answer."""
        assert self._line is not None
        number = call.number
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        self._credit.earn()
        try:
            self._line.write(call)
            done = await future
        except asyncio.CancelledError:
            self._send(Cancel(number))
            if self._check is None or self._check.done():  # too late, or nobody wants to know; perhaps it hangs
                self._check = asyncio.get_running_loop().create_task(self._look_whether_alive())
            raise
        finally:
            self._calls.pop(number, None)
        if done.status:
            raise api.Refused(done.status if 400 <= done.status <= 599 else 500, plain(done.failure))
        if done.failure:
            raise FailedError(done.failure)
        return done

    async def _look_whether_alive(self) -> None:
        if self.is_dead:
            return
        self._pong.clear()
        self._send(Ping())
        try:
            async with asyncio.timeout(ANSWERING):
                await self._pong.wait()
        except TimeoutError:
            log.error("filter %s does not come back; its process is ended", self.script.name)
            self.kill()

    # --- its end of the line ---

    def _over(self, reason: str, is_forced: bool) -> None:
        """The line has ended: so has the process, or it will."""
        reason = f"its process was ended: {reason}" if reason else "its process ended"
        self.broke_rules, self.end = is_forced, plain(reason)
        if is_forced and self._is_retired:
            log.error("filter %s: %s", self.script.name, self.end)
        self._forkserver.living.discard(self)
        if is_forced or not self._is_retired:
            self.kill()
        else:  # it has a moment to end by itself
            asyncio.get_running_loop().call_later(ENDING, self.kill)
        self._ended.set_result(None)
        if self._service_calls is not None:
            self._service_calls.cancel()
        if not self._loaded.done():
            self._loaded.set_result(Loaded(fault=f"{self.end} while it was loaded"))
        for future in self._calls.values():
            if not future.done():
                future.set_exception(FailedError(self.end))
        if not self._is_retired:
            self.on_death(self)

    def _take(self, data: bytes | memoryview) -> float:
        """A message, and what it costs at least. Whatever this raises ends the process."""
        message = messages.from_cell(data)
        cost = credit.MESSAGE + len(data) * credit.OCTET
        services = self._service_calls
        assert services is not None
        match message:
            case Done():
                future = self._calls.get(message.number)
                if future is not None and not future.done():
                    future.set_result(message)
                    return 0.0  # it was asked for
            case Want():
                cost += credit.LATER
                services.spawn(services.tell(message))
            case Ask():
                cost += services.do(message, len(data))
            case Measure():
                for measured in message.what:
                    self._supplies.measured(measured)
            case Said():
                services.say(message)
            case Pong():
                self._pong.set()
            case Loaded():
                if self._loaded.done():
                    raise ValueError("loaded again")
                self._loaded.set_result(message)
        return cost


def _request_data(request: api.Request) -> RequestData:
    raw, connection = request.raw(), request.connection
    return RequestData(
        request.method, request.target, request.host, request.headers.pairs(), raw.http10, connection.address,
        connection.port, connection.scheme, request.route, connection.number, request.choices,
    )  # fmt: skip


def _connection_data(connection: api.Connection) -> ConnectionData:
    return ConnectionData(connection.number, connection.address, connection.port, connection.scheme)


def _copied(data: Octets | None) -> bytes | None:
    return bytes(data) if data is not None else None


def _fitting(data: Octets) -> bytes:
    if len(data) > DATAGRAM:
        raise FailedError(f"{len(data)} bytes are no datagram; {DATAGRAM} are")
    return bytes(data)


def _made(data: MadeResponse) -> api.Response:
    response = api.Response(data.status)
    response.become(data.status, data.headers, _copied(data.body) or b"")
    return response
