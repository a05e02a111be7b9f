"""A filter in a process of its own, as an exchange knows it: functions that answer later.

An edit is a new process: it loads the source and runs its tests, and only then takes the place of the one before, which
ends with its last exchange. A process that dies takes the calls under way along and is replaced; one that does not
answer, not even to say that it is there, is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Final

from gateway import frames
from gateway.filters import api
from gateway.http1 import Field
from gateway.programs import Program
from gateway.sandbox import protocol
from gateway.sandbox.protocol import (
    Ask,
    Call,
    Cancel,
    Closed,
    ConnectionData,
    Done,
    Finish,
    Forget,
    Load,
    Loaded,
    Measure,
    Over,
    Ping,
    Pong,
    RequestData,
    ResponseData,
    Said,
    Told,
    Want,
    Whole,
)
from gateway.script import ScriptError
from gateway.snapshot import Script
from gateway.supplies import Supplies, Supply
from gateway.timers import LAST

log = logging.getLogger("fsm.filters")
LOADING: Final = 2.0  # seconds to load a source and run its tests
ANSWERING: Final = 0.25  # seconds to say that it is there
MOST: Final = 1000  # calls under way
LINES: Final = 100  # of its log, a second
AGAIN: Final = (0.0, 0.1, 0.5, 2.0, 5.0)  # seconds before a process that died is replaced, the more often the longer
CALM: Final = 30.0  # seconds after which a death is forgotten


class FailedError(Exception):
    """What a filter's process says of a failure, or that it is gone."""


class Zygote:
    """Forks processes; started with the first."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._line: socket.socket
        self._turn = asyncio.Lock()
        self.living: set[Confined] = set()

    async def fork(self) -> tuple[socket.socket, int]:
        """One more process: our end of its line, and its number."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                async with self._turn:
                    if self._process is None or self._process.returncode is not None:
                        await self._start()
                    socket.send_fds(self._line, [protocol.FORK], [theirs.fileno()])
                    said = await asyncio.get_running_loop().sock_recv(self._line, 16)
            if not said:
                raise OSError("the process that starts filters has ended")
            return ours, int(said)
        except BaseException:
            ours.close()
            raise

    async def _start(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.setblocking(False)
        with theirs:
            # Its environment is empty but for the import path: nothing that is secret is there to be read.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.sandbox.zygote", "--fd", str(theirs.fileno()), pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL, env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
            )  # fmt: skip

    def kill(self, pid: int) -> None:
        """End a process at once."""
        if self._process is not None and self._process.returncode is None:
            self._line.send(protocol.KILL + b"%d" % pid)

    async def stop(self) -> None:
        """End all of them."""
        for one in list(self.living):
            await one.stop()
        if self._process is not None:
            self._line.close()
            await self._process.wait()
            self._process = None


class Confined:
    """The functions of a filter that runs elsewhere (`programs.Hooks`)."""

    is_quick = False

    def __init__(self, zygote: Zygote, supplies: Supplies) -> None:
        self._supplies = supplies
        self.script = supplies.script
        self.connect: Callable[[api.Connection], Awaitable[bool | None]] | None = None
        self.data: Callable[[api.Data], Awaitable[bytes | None]] | None = None
        self.datagram: Callable[[api.Datagram], Awaitable[bytes | None]] | None = None
        self.request: Callable[[api.Request], Awaitable[api.Response | None]] | None = None
        self.request_body: Callable[[api.Chunk], Awaitable[bytes | None]] | None = None
        self.response: Callable[[api.Request, api.Response], Awaitable[None]] | None = None
        self.response_body: Callable[[api.Chunk], Awaitable[bytes | None]] | None = None
        self.log: Callable[[api.Exchange], Awaitable[None]] | None = None
        self.layers: tuple[str, ...] = ()
        self.on_death: Callable[[Confined], None] = lambda _: None
        self._zygote = zygote
        self._timers = 0
        self._pid = 0
        self._writer: asyncio.StreamWriter
        self._listening: asyncio.Task[None] | None = None
        self._loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Done]] = {}
        self._exchanges: dict[int, tuple[int, api.Request]] = {}  # by the view's identity: its number, and itself
        self._views: dict[int, tuple[api.Request, api.Response | None]] = {}  # by number
        self._bodies: set[asyncio.Task[None]] = set()
        self._pong = asyncio.Event()
        self._check: asyncio.Task[None] | None = None
        self._is_retired = False
        self._users = 0  # exchanges that keep to it
        self._lines = 0
        self._since = 0.0

    @property
    def runs(self) -> str:
        """Where, in words."""
        return f"process ({', '.join(self.layers)})"

    @property
    def is_dead(self) -> bool:
        """Whether there is nobody to call."""
        return self._listening is None or self._listening.done()

    async def start(self) -> None:
        """Start the process and load the source. Raises ScriptError."""
        script = self.script
        try:
            ours, self._pid = await self._zygote.fork()
        except OSError as error:
            raise ScriptError(script.name, 0, f"there is no process for it: {error}") from None
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        self._listening = asyncio.create_task(self._listen(reader))
        self._zygote.living.add(self)
        frames.write(self._writer, Load(script.name, script.source, script.config, script.memory, script.secrets))
        try:
            async with asyncio.timeout(LOADING):
                loaded = await asyncio.shield(self._loaded)
        except TimeoutError:
            self.kill()
            raise ScriptError(script.name, 0, f"loading it and its tests took longer than {LOADING:g} s") from None
        if loaded.fault:
            self.retire()
            raise ScriptError(script.name, loaded.line, loaded.fault)
        self.layers = loaded.layers
        self._timers = loaded.timers
        for moment in loaded.moments:
            setattr(self, moment, getattr(self, f"_{moment}"))

    def retire(self) -> None:
        """Another has its place: end with the last exchange."""
        self._is_retired = True
        if not self._users and self._listening is not None:
            self._end()

    def _end(self) -> None:
        if not self._timers:
            self._writer.close()
        elif not self.is_dead:
            self._send(Finish())
            asyncio.get_running_loop().call_later(LAST + 1, self.kill)

    def kill(self) -> None:
        """End it at once."""
        if not self.is_dead:
            self._zygote.kill(self._pid)

    async def stop(self) -> None:
        """End it and wait until it is over."""
        self._is_retired = True
        if self._listening is not None:
            if self._timers:
                self._end()
                await asyncio.wait([self._listening], timeout=LAST)
            self.kill()
            await self._listening

    def acquire(self) -> None:
        """An exchange keeps to it."""
        self._users += 1

    def release(self, request: api.Request) -> None:
        """An exchange is over."""
        self._users -= 1
        found = self._exchanges.pop(id(request), None)
        if found is not None:
            self._views.pop(found[0], None)
            self._send(Forget(found[0]))
        if self._is_retired and not self._users:
            self._end()

    def _send(self, message: object) -> None:
        if not self._writer.is_closing():
            frames.write(self._writer, message)

    # --- the moments ---

    async def _request(self, request: api.Request) -> api.Response | None:
        done = await self._ask("request", request)
        if done.response is not None:
            return _made(done.response)
        if done.request is not None:
            changed = done.request
            request.become(changed.method, changed.target, changed.host, changed.headers, changed.body)
        if done.choice is not None:
            request.choose(*done.choice)
        return None

    async def _response(self, request: api.Request, response: api.Response) -> None:
        done = await self._ask("response", request, response)
        if done.response is not None:
            response.become(done.response.status, done.response.headers, done.response.body)

    async def _request_body(self, chunk: api.Chunk) -> bytes | None:
        return (await self._ask("request_body", chunk.request, data=chunk.data, last=chunk.is_last)).data

    async def _response_body(self, chunk: api.Chunk) -> bytes | None:
        asked = self._ask("response_body", chunk.request, chunk.response, data=chunk.data, last=chunk.is_last)
        return (await asked).data

    async def _log(self, exchange: api.Exchange) -> None:
        over = Over(
            exchange.status, exchange.started, exchange.seconds, exchange.response_bytes, exchange.backend, exchange.endpoint
        )
        await self._ask("log", exchange.request, exchange.response, over=over)

    async def _connect(self, connection: api.Connection) -> bool | None:
        done = await self._call(Call(next(self._numbers), 0, "connect", connection=_connection_data(connection)))
        if done.watches:
            connection.on_close(lambda: self._send(Closed(connection.number)))
        return done.admitted

    async def _data(self, data: api.Data) -> bytes | None:
        connection = _connection_data(data.connection)
        call = Call(next(self._numbers), 0, "data", data=data.data, connection=connection, from_client=data.from_client)
        return (await self._call(call)).data

    async def _datagram(self, datagram: api.Datagram) -> bytes | None:
        where = ConnectionData(0, datagram.address, datagram.port)
        call = Call(next(self._numbers), 0, "datagram", data=datagram.data, connection=where, from_client=datagram.from_client)
        done = await self._call(call)
        if done.answer is not None:
            datagram.answer(done.answer)
        return done.data

    async def _ask(
        self,
        moment: str,
        request: api.Request,
        response: api.Response | None = None,
        *,
        data: bytes = b"",
        last: bool = False,
        over: Over | None = None,
    ) -> Done:
        number = next(self._numbers)
        exchange, _ = self._exchanges.get(id(request), (0, None))
        call = Call(number, exchange, moment, data=data, last=last, over=over)
        if not exchange:
            call.exchange = exchange = number
            call.request = _request_data(request)
            self._exchanges[id(request)] = number, request
            self._views[number] = request, None
        if response is not None and self._views[exchange][1] is not response:
            call.response = ResponseData(response.status, response.headers.pairs())
            self._views[exchange] = request, response
        return await self._call(call)

    async def _call(self, call: Call) -> Done:
        if self.is_dead or self._writer.is_closing():
            raise FailedError("its process ended")
        if len(self._calls) >= MOST:
            raise FailedError(f"{MOST} calls wait for it already")
        number = call.number
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        frames.write(self._writer, call)
        try:
            done = await future
        except asyncio.CancelledError:
            self._send(Cancel(number))
            if self._check is None or self._check.done():  # too late, or nobody wants to know; perhaps it hangs
                self._check = asyncio.create_task(self._look_whether_alive())
            raise
        finally:
            self._calls.pop(number, None)
        if done.status:
            raise api.Refused(done.status if 400 <= done.status <= 599 else 500, done.failure)
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

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        reason = "its process ended"
        try:
            while True:
                self._take(await protocol.read_from_cell(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except ValueError as error:  # and msgspec's errors
            reason = f"its process sent what nobody understands ({error})"
            self.kill()
        finally:
            self._zygote.living.discard(self)
            self._writer.close()
            if not self._loaded.done():
                self._loaded.set_result(Loaded(fault=f"{reason} while it was loaded"))
            for future in self._calls.values():
                if not future.done():
                    future.set_exception(FailedError(reason))
            if not self._is_retired:
                self.on_death(self)

    def _take(self, message: protocol.FromCell) -> None:
        match message:
            case Done():
                future = self._calls.get(message.number)
                if future is not None and not future.done():
                    future.set_result(message)
            case Want():
                self._spawn(self._tell(message))
            case Ask():
                if len(self._bodies) >= MOST:
                    self._send(Told(message.number, None, f"{MOST} calls are under way already"))
                    return
                self._spawn(self._answer(message))
            case Measure():
                self._supplies.measured(message.what)
            case Said():
                self._say(message)
            case Pong():
                self._pong.set()
            case Loaded() if not self._loaded.done():
                self._loaded.set_result(message)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._bodies.add(task)
        task.add_done_callback(self._bodies.discard)

    async def _tell(self, want: Want) -> None:
        request, response = self._views.get(want.exchange, (None, None))
        message = response if want.of == "response" else request
        try:
            data = await message.body(want.limit) if message is not None else b""
            self._send(Whole(want.number, data))
        except api.Refused as error:
            self._send(Whole(want.number, b"", error.status, error.reason))

    async def _answer(self, ask: Ask) -> None:
        """Do something for it, as far as its definition lets it."""
        result: api.Reply | bool | float | bytes | None
        try:
            if isinstance(ask.what, api.Call):
                result = await self._fetch(ask.what)
            else:
                result = await self._supplies.share(ask.what)
        except (OSError, ValueError) as error:
            self._send(Told(ask.number, None, str(error), type(error).__name__))
        else:
            self._send(Told(ask.number, result))

    async def _fetch(self, call: api.Call) -> api.Reply:
        call.headers = [api.pair(_checked(pair)) for pair in call.headers]
        if not api.is_method(call.method):
            raise ValueError(f"{call.method!r} cannot be asked")
        return await self._supplies.fetch(call)

    def _say(self, said: Said) -> None:
        """Pass on its log, as far as that is a log and no flood."""
        now = monotonic()
        if now - self._since > 1:
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines <= LINES:
            logging.getLogger(f"fsm.filter.{self.script.name}").log(said.level, "%s", said.text)


class Keeper:
    """Keeps the process of a program alive."""

    def __init__(self, zygote: Zygote, program: Program, supply: Supply) -> None:
        self._supply = supply
        self._zygote = zygote
        self._program = program
        self._deaths: list[float] = []
        self._again: asyncio.Task[None] | None = None

    async def put(self, script: Script) -> None:
        """Bring a source into force. Raises ScriptError; what was in force before stays then."""
        made = Confined(self._zygote, self._supply(script))
        await made.start()
        made.on_death = self._died
        before, self._program.hooks = self._program.hooks, made
        if self._again is not None and self._again is not asyncio.current_task():
            self._again.cancel()
        if isinstance(before, Confined):
            before.retire()

    def keep_trying(self, script: Script) -> None:
        """Nothing is in force, and no line of the source was to blame: it may have been the moment."""
        self._again = asyncio.create_task(self._try_again(script))

    async def _try_again(self, script: Script) -> None:
        for delay in (*AGAIN[1:], *(AGAIN[-1],) * 10):
            await asyncio.sleep(delay)
            try:
                await self.put(script)
                return
            except ScriptError as error:
                log.error("filter %s", error)
                if error.line:
                    return

    def drop(self) -> None:
        """It is wanted no more."""
        if self._again is not None:
            self._again.cancel()
        if isinstance(self._program.hooks, Confined):
            self._program.hooks.retire()

    def _died(self, dead: Confined) -> None:
        if self._program.hooks is not dead:
            return
        now = monotonic()
        self._deaths = [at for at in self._deaths if now - at < CALM] + [now]
        delay = AGAIN[min(len(self._deaths), len(AGAIN)) - 1]
        log.error("the process of filter %s ended; another follows in %g s", self._program.name, delay)
        self._again = asyncio.create_task(self._replace(dead, delay))

    async def _replace(self, dead: Confined, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            if self._program.hooks is dead:
                await self.put(dead.script)
        except ScriptError as error:
            log.error("filter %s", error)
            self._died(dead)


async def tried(zygote: Zygote, supplies: Supplies) -> None:
    """Load a source and run its tests where they can do no harm. Raises ScriptError."""
    made = Confined(zygote, supplies)
    await made.start()
    made.retire()


def _request_data(request: api.Request) -> RequestData:
    raw, connection = request.raw(), request.connection
    return RequestData(
        request.method, request.target, request.host, request.headers.pairs(), None, raw.http10, connection.address,
        connection.port, connection.scheme, request.route, connection.number, request.choices,
    )  # fmt: skip


def _connection_data(connection: api.Connection) -> ConnectionData:
    return ConnectionData(connection.number, connection.address, connection.port, connection.scheme)


def _checked(pair: tuple[bytes, bytes]) -> Field:
    return api.field(pair[0].decode("latin-1"), pair[1].decode("latin-1"))


def _made(data: ResponseData) -> api.Response:
    made = api.Response(data.status)
    made.become(data.status, data.headers, data.body or b"")
    return made
