"""Who talks to whom on the request path, as protocols: a client's connection, an exchange, a backend's connection.

The connections lie above the exchange and call it; the exchange calls them back through these, and knows no more
of them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gateway.http1 import ProtocolError, Response
from gateway.templates import ResponseShape


class Peer(Protocol):
    """A backend connection, as an exchange sees it."""

    user: Sender | None

    @property
    def reused(self) -> bool: ...
    @property
    def endpoint(self) -> Endpoint: ...

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def buffered(self) -> int: ...
    def give_away(self) -> tuple[asyncio.Transport, bytes]: ...


class Answers(Protocol):
    """Response heads seen before, for one way of editing them (`gateway.prepared`)."""

    known: dict[bytes, tuple[bytes, int, int]]

    def remember(self, head: bytes, out: bytes, length: int, status: int) -> None: ...
    def fill(self, shape: ResponseShape, varying: bytes) -> bytes | None: ...


class Sender(Protocol):
    """Whoever has sent a whole request and waits for its answer; anything but a plain answer is taken by `in_full()`."""

    # Not None: a whole response whose head is known may be delivered to `answered`.
    @property
    def answers(self) -> Answers | None: ...
    def answered(self, data: bytes, hundreds: int) -> None: ...
    def in_full(self) -> User: ...


class User(Sender, Protocol):
    """Whoever uses a backend connection for one request, and can take whatever comes of it."""

    head_only: bool
    request_done: bool
    wants_payload: bool

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for a connection any more."""

    def connected(self, peer: Peer) -> None: ...
    def connect_failed(self, reason: str) -> None: ...
    def response(self, response: Response, head: bytes) -> None: ...
    def response_data(self, data: bytes) -> None: ...
    def response_end(self) -> None: ...
    def response_lost(self, reason: str, *, clean: bool) -> None: ...
    def response_invalid(self, error: ProtocolError) -> None: ...
    def pause_sending(self) -> None: ...
    def resume_sending(self) -> None: ...


class Endpoint(Protocol):
    """Where a backend can be reached: a pool of connections to one address."""

    name: str
    idle: list[Any]  # connections that wait for a request; whoever takes one becomes its user

    def take(self, user: User) -> Peer | None:
        """An idle connection, now the user's; None where there is none."""

    def connect(self, user: User) -> None:
        """Make a connection and hand it to the user's `connected`, or call `connect_failed`."""


class Client(Protocol):
    """A client connection, as an exchange sees it."""

    address: bytes
    scheme: bytes
    port: int

    @property
    def closes_after_this(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def finished(self, *, reuse: bool) -> None: ...
    def abort(self) -> None: ...
    def progress(self) -> None: ...
    def tunnel(self, peer: Peer, head: bytes) -> None: ...
