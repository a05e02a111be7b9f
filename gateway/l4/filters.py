"""Connections and datagrams that are passed on, through filters: `data` for each piece either way, and `datagram`.

Pieces keep their order, whether a filter answers at once or later; who sends them waits while too many do.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from gateway.filters import api
from gateway.l4.splice import End
from gateway.scripting.chunk_pipeline import ChunkPipeline
from gateway.scripting.hooks import HookName
from gateway.scripting.listener_filters import left
from gateway.scripting.loader import bytes_or_nothing
from gateway.scripting.program import ActiveFilter, FilterProgram
from gateway.tls.contexts import unread

MAX_WAITING_BYTES: Final = 65536  # bytes that wait for filters
PENDING: Final = 1024  # datagrams that wait for filters, at one port

_waiting: Final[set[asyncio.Task[Any]]] = set()


def active_filters(programs: Sequence[FilterProgram], hook: HookName) -> list[ActiveFilter]:
    """Those that have a function for this, with the code that is in force."""
    return [
        (program, program.hooks)
        for program in programs
        if program.hooks is not None and getattr(program.hooks, hook) is not None
    ]


class FilteredSplice(End):
    """One side of a connection whose bytes filters see."""

    __slots__ = ("_active", "_connection", "_from_client", "_has_ended", "_holds", "_passage")

    def __init__(
        self, transport: asyncio.Transport, done: Callable[[], None], active: list[ActiveFilter], connection: api.Connection,
        *, from_client: bool,
    ) -> None:  # fmt: skip
        super().__init__(transport, done)
        self._active = active
        self._holds: list[ActiveFilter] | None = active  # until nothing more goes through them
        for _, hooks in active:
            hooks.acquire()
        self._connection = connection
        self._from_client = from_client
        self._has_ended = False
        self._passage = ChunkPipeline(self._through, self._deliver, self._later)
        self.data_received = self._receive

    def _receive(self, data: bytes) -> None:
        try:
            self._passage.feed(data, False)
        except _Broken:
            self._cut()
            return
        if self._passage.owed > MAX_WAITING_BYTES and not self.transport.is_closing():
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._has_ended = True
        self._passage.feed(b"", True)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and not self._has_ended and not self._closed and (data := unread(self.transport)):
            self._receive(data)
            self.eof_received()
        if exc is None and self._has_ended and not self._passage.is_done and not self._closed:
            # TLS has no half that could stay open: what filters have goes on before the other side is closed.
            self._closed = True
            left(self.transport)
            self._done()
            return
        self._passage.stop()
        self._let_go()
        super().connection_lost(exc)

    def _let_go(self) -> None:
        """Nothing more goes through the filters."""
        holds, self._holds = self._holds, None
        for _, hooks in holds or ():
            hooks.release()

    def _through(self, data: bytes, last: bool) -> bytes | Awaitable[bytes]:
        return self._from(0, data) if data else data

    def _from(self, first: int, data: bytes) -> bytes | Awaitable[bytes]:
        """Through the filters from one of them on."""
        for at in range(first, len(self._active)):
            program, hooks = self._active[at]
            try:
                result = program.call(hooks.data, api.Data(data, self._connection, from_client=self._from_client))
                if inspect.isawaitable(result):
                    return self._from_later(at, data, result)
                data = _passed(hooks.data, data, result)
            except Exception as error:
                self._failed(at, error)
        return data

    async def _from_later(self, at: int, data: bytes, result: Awaitable[Any]) -> bytes:
        program, hooks = self._active[at]
        try:
            data = _passed(hooks.data, data, await program.settle(result))
        except Exception as error:
            self._failed(at, error)
        following = self._from(at + 1, data)
        return following if isinstance(following, bytes) else await following

    def _failed(self, at: int, error: Exception) -> None:
        program, hooks = self._active[at]
        program.failed(error, hooks)
        if not program.passes:
            raise _Broken from error

    def _later(self, result: Awaitable[bytes], then: Callable[[bytes], None]) -> None:
        async def wait() -> None:
            try:
                then(await result)  # and what has waited behind it, through the filters
            except Exception:
                self._cut()
                return
            if self._passage.owed <= MAX_WAITING_BYTES and not self.other.is_full and not self.transport.is_closing():
                self.transport.resume_reading()

        task = asyncio.get_running_loop().create_task(wait())
        _waiting.add(task)
        task.add_done_callback(_waiting.discard)

    def _deliver(self, data: bytes, last: bool) -> None:
        other = self.other
        if data and not other.transport.is_closing():
            other.transport.write(data)
        if last and not super().eof_received():
            self.transport.close()
        if last and self._closed:
            self._let_go()
            if not other.transport.is_closing():
                other.transport.close()

    def _cut(self) -> None:
        self.transport.abort()
        self.other.transport.abort()
        if self._closed:
            self._let_go()


class _Broken(Exception):
    """A filter failed, and what it was to see may not pass."""


def join(
    active: list[ActiveFilter],
    connection: api.Connection,
    client: asyncio.Transport,
    backend: asyncio.Transport,
    done: Callable[[], None],
) -> None:
    """Join a client's connection and a backend's through filters."""
    left = FilteredSplice(client, done, active, connection, from_client=True)
    right = FilteredSplice(backend, done, active[::-1], connection, from_client=False)
    left.other, right.other = right, left
    client.set_protocol(left)
    backend.set_protocol(right)
    client.resume_reading()
    backend.resume_reading()


def _passed(hook: Any, data: bytes, result: Any) -> bytes:
    changed = bytes_or_nothing(hook, result)
    return data if changed is None else changed


async def pass_datagram(programs: Sequence[FilterProgram], datagram: api.Datagram) -> bytes | None:
    """What goes on of a datagram; None where it is answered or dropped (see `Datagram.answered`)."""
    active = active_filters(programs, "datagram")
    for _, hooks in active:
        hooks.acquire()
    try:
        return await _passed_on(active, datagram)
    finally:
        for _, hooks in active:
            hooks.release()


async def _passed_on(active: list[ActiveFilter], datagram: api.Datagram) -> bytes | None:
    for program, hooks in active:
        try:
            result = program.call(hooks.datagram, datagram)
            if inspect.isawaitable(result):
                result = await program.settle(result)
            datagram.data = _passed(hooks.datagram, datagram.data, result)
        except Exception as error:
            program.failed(error, hooks)
            if not program.passes:
                return None
        if datagram.answered is not None:
            return None
    return datagram.data or None
