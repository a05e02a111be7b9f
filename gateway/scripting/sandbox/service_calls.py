"""What a filter's process asks of its worker: bodies, requests to others, what filters share, lines of its log.

Each has its price, and its bound: how much is under way, how much waits to be read by the process, and how much of the worker's
time it takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeAlias

from gateway.base.logs import LEFT_OUT, LineAllowance, logger, plain
from gateway.filters import api
from gateway.filters.api.headers import field, is_method, pair
from gateway.filters.api.http_client import Call
from gateway.http.http1 import Field
from gateway.scripting.sandbox import credit, messages
from gateway.scripting.sandbox.line import Line
from gateway.scripting.sandbox.messages import Ask, Said, Told, Want, Whole
from gateway.scripting.services import FilterServices

log = logging.getLogger("fsm.filters")
MAX_UNDER_WAY: Final = 1000  # of these under way
MAX_FETCHES: Final = 100  # requests of its own under way, each of which may bring a megabyte
WEIGHT: Final = 4 << 20  # octets of what it has asked for and is not done yet
BODY: Final = messages.MAX_FRAME_BYTES - (1 << 16)  # octets that it may have whole

View: TypeAlias = tuple[api.Request | None, api.Response | None]


class ServiceCalls:
    """What one process has asked for and is under way."""

    def __init__(self, services: FilterServices, line: Line, view: Callable[[int], View]) -> None:
        self._supplies = services
        self._name = services.script.name
        self._line = line
        self._view = view  # of an exchange's number: what filters see
        self._working: set[asyncio.Task[None]] = set()
        self._weight = 0  # octets of what these carry
        self._reading: dict[tuple[int, str], asyncio.Lock] = {}  # bodies that it reads, by exchange and direction
        self._given: set[tuple[int, str]] = set()  # those that it has had
        self._giving = asyncio.Lock()  # one at a time
        self._fetches = asyncio.Semaphore(MAX_FETCHES)
        self._logger = logger(f"fsm.filter.{self._name}")
        self._allowance = LineAllowance(lambda over: self._logger.warning(LEFT_OUT, over))

    def forget(self, exchange: int) -> None:
        """An exchange is over."""
        for of in ("request", "response"):
            self._reading.pop((exchange, of), None)
            self._given.discard((exchange, of))

    def cancel(self) -> None:
        """The process is gone."""
        for task in self._working:
            task.cancel()

    def spawn(self, work: Coroutine[None, None, None], weight: int = 0) -> asyncio.Task[None]:
        """Do something that takes longer; while there is too much of that, the process is not heard."""

        def done(task: asyncio.Task[None]) -> None:
            self._working.discard(task)
            self._weight -= weight
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("filter %s: %s", self._name, plain(repr(error)))
            if len(self._working) < MAX_UNDER_WAY and self._weight <= WEIGHT:
                self._line.release("busy")

        task = asyncio.create_task(work)
        self._working.add(task)
        self._weight += weight
        task.add_done_callback(done)
        if len(self._working) >= MAX_UNDER_WAY or self._weight > WEIGHT:
            self._line.hold("busy")
        return task

    async def tell(self, want: Want) -> None:
        """Give it a body: each once for the call that it is asked, and as long as it takes what it is given."""
        key = want.exchange, want.of
        request, response = self._view(want.exchange)
        message = response if want.of == "response" else request
        async with self._reading.setdefault(key, asyncio.Lock()):
            try:
                data = await message.body(min(want.limit, BODY)) if message is not None else b""
                if len(data) > BODY:  # put in place of the one that came
                    raise api.Refused(502 if want.of == "response" else 413, f"the body is longer than {BODY} bytes")
                answer = Whole(want.number, data)
            except api.Refused as error:
                answer = Whole(want.number, b"", error.status, error.reason)
            except Exception as error:  # the exchange cannot give it, or is over
                answer = Whole(want.number, b"", 0, plain(str(error)) or type(error).__name__)
            async with self._giving:
                await self._give(answer, len(answer.data), is_asked_for=key not in self._given)
        if message is not None and self._view(want.exchange) != (None, None):
            self._given.add(key)
        else:
            self._reading.pop(key, None)

    async def _give(self, message: object, octets: int, *, is_asked_for: bool = False) -> None:
        """Write something long, once there is room; what nobody asked it to want is charged."""
        await self._line.wait_room()
        self._line.write(message)
        if not is_asked_for:
            self._line.charge(octets * credit.OCTET)

    def do(self, ask: Ask, weight: int) -> float:
        """Do something for it, as far as its definition lets it: at once, where that can be. What that costs on top."""
        if isinstance(ask.what, Call):
            self.spawn(self._answer_call(ask.number, ask.what), weight)
            return credit.ASK
        try:
            answer = self._supplies.share(ask.what)
            if not answer.done():
                self.spawn(self._answer(ask.number, answer), weight)
                return credit.LATER
            self._line.write(Told(ask.number, answer.result()))
        except Exception as error:
            self._fail(ask.number, error)
        return 0.0

    async def _answer_call(self, number: int, call: Call) -> None:
        try:
            async with asyncio.timeout(call.timeout):
                await self._fetches.acquire()
        except TimeoutError:
            self._fail(number, TimeoutError(f"{MAX_FETCHES} requests of the filter's own are under way"))
            return
        try:
            await self._answer(number, self._fetch(call))
        finally:
            self._fetches.release()

    async def _answer(self, number: int, later: Awaitable[api.Reply | bool | float | bytes | None]) -> None:
        try:
            result = await later
        except Exception as error:
            self._fail(number, error)
            return
        octets = len(result.body) if isinstance(result, api.Reply) else len(result) if isinstance(result, bytes) else 0
        await self._give(Told(number, result), octets)

    def _fail(self, number: int, error: Exception) -> None:
        """Whatever came of what a filter asked for is the filter's."""
        self._line.write(Told(number, None, str(error) or type(error).__name__, type(error).__name__))

    async def _fetch(self, call: Call) -> api.Reply:
        call.headers = [pair(_checked(name_and_value)) for name_and_value in call.headers]
        if not is_method(call.method):
            raise ValueError(f"{call.method!r} cannot be asked")
        return await self._supplies.fetch(call)

    def say(self, message: Said) -> None:
        """Pass on its log, as far as that is a log and no flood."""
        if self._allowance.takes(message.text):
            self._logger.log(message.level, "%s", message.text)


def _checked(name_and_value: tuple[bytes, bytes]) -> Field:
    return field(name_and_value[0].decode("latin-1"), name_and_value[1].decode("latin-1"))
