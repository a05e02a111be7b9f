"""The pools that keep HTTP/1.1 connections to backends.

A pool belongs to an address, not to a Service: two Services that select the same pods share connections, and a
route that moves between them moves no connection. Idle connections are used last in, first out, and are given
up before common servers do (uvicorn and Node close after 5 s), which keeps the race between a request and a
server's close small.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from gateway.base.clock import Clock
from gateway.http.head_templates import ResponseShape, response_shape
from gateway.http.http1 import Field, Response
from gateway.interfaces import UpstreamHandler
from gateway.tls.contexts import Security
from gateway.transport.dial import DialError, dial
from gateway.transport.turns import Turns
from gateway.upstream.http1 import Http1UpstreamConnection

IDLE: Final = 4.0  # seconds that an unused connection is kept
MAX_IDLE: Final = 512  # kept per address
LESSONS: Final = 64  # heads of an address's responses from which a shape is learned


class Closing(list["Http1UpstreamConnection"]):
    """In place of the idle connections of an address that is gone: what is put here is closed."""

    def append(self, upstream: Http1UpstreamConnection) -> None:
        upstream.abort()


class Http1Pool:
    """Connections to one address."""

    __slots__ = (
        "_connecting", "_lessons", "_model", "_starting", "clock", "head_size", "idle", "name", "open", "security",
        "shape", "turns", "varying", "where",
    )  # fmt: skip

    def __init__(self, address: str, port: int, clock: Clock, turns: Turns, security: Security | None = None) -> None:
        self._starting = 0  # connections that wait to be begun
        self.where = (address, port)
        self.security = security
        self.clock = clock
        self.turns = turns
        self.idle: list[Http1UpstreamConnection] = []
        self.open = 0  # connections
        self._connecting: set[asyncio.Task[None]] = set()
        self.name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        # What the responses' heads have in common.
        self.varying = b""  # of the last one that had a shape
        self.head_size = 0  # of the last one: heads of one backend repeat
        self.shape: ResponseShape | None = None
        self._model: list[Field] | None = None
        self._lessons = 0

    def __repr__(self) -> str:
        return f"<Http1Pool {self.name} idle={len(self.idle)}>"

    @property
    def load(self) -> int:
        """Requests under way."""
        return self.open - len(self.idle) + len(self._connecting) + self._starting

    def take(self, user: UpstreamHandler) -> Http1UpstreamConnection | None:
        """An idle connection, now the user's."""
        if not self.idle:
            return None
        upstream = self.idle.pop()
        upstream.user = user
        return upstream

    def connect(self, user: UpstreamHandler) -> None:
        """Make a connection for the user; it hears of it by `connected` or `connect_failed`."""
        self._starting += 1
        self.turns.starts.begin(partial(self._start, user))

    def _start(self, user: UpstreamHandler) -> None:
        self._starting -= 1
        if user.abandoned:
            return  # while it waited to be begun
        task = asyncio.get_running_loop().create_task(self._connect(user))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, user: UpstreamHandler) -> None:
        if user.abandoned:
            return  # cancelled as soon as it was asked for
        try:
            _, upstream = await dial(lambda: Http1UpstreamConnection(self), self.where, self.security)
        except DialError as failure:
            if not user.abandoned:
                user.connect_failed(failure)
            return
        if user.abandoned:
            upstream.abort()
            return
        upstream.user = user
        user.connected(upstream)

    def put(self, upstream: Http1UpstreamConnection) -> None:
        """Keep a connection for the next request."""
        upstream.idle_since = self.clock.now
        self.idle.append(upstream)

    def forget(self, upstream: Http1UpstreamConnection) -> None:
        """An idle connection was closed by its server."""
        if upstream in self.idle:
            self.idle.remove(upstream)

    def sweep(self) -> None:
        """Close what has idled too long, and what is too many. The oldest lie at the bottom."""
        limit = self.clock.now - IDLE
        idle = self.idle
        stale = max(len(idle) - MAX_IDLE, 0)
        while stale < len(idle) and idle[stale].idle_since < limit:
            stale += 1
        old, idle[:stale] = idle[:stale], []
        for upstream in old:
            upstream.abort()

    def retire(self) -> None:
        """The address is gone: close what is idle, let requests in flight finish."""
        old, self.idle = self.idle, Closing()
        for upstream in old:
            upstream.abort()

    def learn(self, response: Response) -> None:
        """Compare a response's head with the one before it."""
        if self._lessons < LESSONS:
            self._lessons += 1
            if self._model is not None:
                self.shape = response_shape(self._model, response) or self.shape
            self._model = response.fields
