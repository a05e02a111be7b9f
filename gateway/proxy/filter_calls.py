"""Calling the filters of an exchange: each answers at once or later, or fails; what that means for the request is one rule."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Protocol

from gateway.filters import api
from gateway.proxy.route_timers import Untimed
from gateway.scripting.hooks import HookName, Hooks
from gateway.scripting.loader import bytes_or_nothing, wrong_result
from gateway.scripting.program import ActiveFilter, FilterProgram

_logging: set[asyncio.Task[None]] = set()  # what filters do once an exchange is over


class Filtered(Protocol):
    """The exchange that filters take part in."""

    timers: Untimed

    def run_filters(self) -> None:
        """Go on with those that have not seen the request."""

    def give_up(self, status: int, reason: str) -> None:
        """Answer here: a filter has failed."""


class LaterPiece(Awaitable[bytes]):
    """A piece of a body that comes later, with what it waits for: where nobody awaits it any more, neither is left behind."""

    __slots__ = ("_coroutine", "_result")

    def __init__(self, coroutine: Coroutine[Any, Any, bytes], result: Awaitable[Any]) -> None:
        self._coroutine = coroutine
        self._result = result

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._coroutine.__await__()

    def close(self) -> None:
        """Nobody awaits it."""
        self._coroutine.close()
        if asyncio.iscoroutine(self._result):
            self._result.close()


class FilterCalls:
    """The calls of filters of one exchange that are under way."""

    __slots__ = ("_exchange", "_tasks")

    def __init__(self, exchange: Filtered) -> None:
        self._exchange = exchange
        self._tasks: set[asyncio.Task[None]] = set()

    def call(
        self,
        active: ActiveFilter,
        hook: Any,
        arguments: tuple[Any, ...],
        took: Callable[[Any], bool],
        again: Callable[[], None] | None = None,
    ) -> bool:
        """Call a filter; False where it will answer later, or where nothing follows."""
        program, hooks = active
        try:
            result = program.call(hook, *arguments)
        except Exception as error:
            return self.failed(program, hooks, error)
        return self.judge(active, hook, result, took, again)

    def judge(
        self, active: ActiveFilter, hook: Any, result: Any, took: Callable[[Any], bool], again: Callable[[], None] | None = None
    ) -> bool:
        """Act on what a filter returned; False where it will answer later, or where nothing follows."""
        program, hooks = active
        if result is None or isinstance(result, api.Response):
            return took(result)
        if not isinstance(result, Awaitable):
            return self.failed(program, hooks, wrong_result(hook, result, "a Response or nothing"))

        def waited(answer: Any) -> None:
            if answer is not None and not isinstance(answer, api.Response):
                goes_on = self.failed(program, hooks, wrong_result(hook, answer, "a Response or nothing"))
            else:
                goes_on = took(answer)
            if goes_on:
                (again or self._exchange.run_filters)()

        self._wait_for(program, hooks, result, waited, lambda: (again or self._exchange.run_filters)())
        return False

    def through(self, hook_name: HookName, filters: list[ActiveFilter], piece: api.Chunk) -> bytes | Awaitable[bytes]:
        """A chunk through every filter that looks at such."""
        for at, (program, hooks) in enumerate(filters):
            hook = getattr(hooks, hook_name)
            if hook is None:
                continue
            try:
                result = program.call(hook, piece)
            except Exception as error:
                if not self.failed(program, hooks, error):
                    return b""
                continue
            if isinstance(result, bytes):
                piece.data = result
            elif isinstance(result, Awaitable):
                return LaterPiece(self._through_later(hook_name, filters[at:], piece, result), result)
            elif result is not None and not self.failed(program, hooks, wrong_result(hook, result, "bytes or nothing")):
                return b""
        return piece.data

    async def _through_later(
        self, hook_name: HookName, filters: list[ActiveFilter], piece: api.Chunk, result: Awaitable[Any]
    ) -> bytes:
        program, hooks = filters[0]
        try:
            data = bytes_or_nothing(getattr(hooks, hook_name), await program.settle(result))
            if data is not None:
                piece.data = data
        except Exception as error:
            if not self.failed(program, hooks, error):
                return b""
        rest = self.through(hook_name, filters[1:], piece)
        return rest if isinstance(rest, bytes) else await rest

    def later_chunk(self, result: Awaitable[bytes], then: Callable[[bytes], None]) -> None:
        self._spawn(_deliver_later(result, then), result)

    def _wait_for(
        self,
        program: FilterProgram,
        hooks: Hooks,
        result: Awaitable[Any],
        then: Callable[[Any], None],
        passed: Callable[[], None],
    ) -> None:
        self._exchange.timers.time_request()

        async def wait() -> None:
            try:
                answer = await program.settle(result)
            except Exception as error:
                if self.failed(program, hooks, error):
                    passed()
            else:
                then(answer)

        self._spawn(wait(), result)

    def _spawn(self, work: Any, awaited: Awaitable[Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if asyncio.iscoroutine(awaited) or isinstance(awaited, LaterPiece):
            # A task that is cancelled before its first step never gets to what it was to await.
            task.add_done_callback(lambda _: awaited.close())

    def failed(self, program: FilterProgram, hooks: Hooks, error: BaseException) -> bool:
        """A filter did not do its work; whether the exchange goes on without it."""
        if isinstance(error, api.Refused):
            self._exchange.give_up(error.status, error.reason)
            return False
        program.failed(error, hooks)
        if program.passes:
            return True
        self._exchange.give_up(500, f"the filter {program.name} failed")
        return False

    def cancel(self) -> None:
        """The exchange is over: nobody waits for what is under way."""
        current = asyncio.current_task() if self._tasks else None
        for task in self._tasks:
            if task is not current:
                task.cancel()


def tell(program: FilterProgram, hooks: Hooks, over: api.Exchange, view: api.Request) -> bool:
    """Tell a filter that an exchange is over; True where it takes longer."""
    try:
        result = program.call(hooks.log, over)
    except Exception as error:
        program.failed(error, hooks)
        return False
    if not isinstance(result, Awaitable):
        return False
    task = asyncio.get_running_loop().create_task(_finish_log(program, hooks, result, view))
    _logging.add(task)
    task.add_done_callback(_logging.discard)
    return True


async def _deliver_later(result: Awaitable[bytes], then: Callable[[bytes], None]) -> None:
    then(await result)


async def _finish_log(program: FilterProgram, hooks: Hooks, result: Awaitable[Any], view: api.Request) -> None:
    try:
        await program.settle(result)
    except Exception as error:
        program.failed(error, hooks)
    finally:
        hooks.forget(view)
        hooks.release()
