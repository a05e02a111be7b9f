"""A client's connection, and what passes over one that is passed on as it is: pieces of a stream, and datagrams."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from gateway.filters.api.filter_metrics import Metrics as Metrics
from gateway.filters.api.shared_state import Shared as Shared

_connections = itertools.count(1)


class Connection:
    """A client's connection. `state` lasts as long as it does."""

    __slots__ = ("_closing", "address", "closed", "holds", "is_gone", "number", "port", "scheme", "state")

    def __init__(self, address: str, port: int, scheme: str = "http", state: dict[str, Any] | None = None) -> None:
        self.address = address  # of the client
        self.port = port  # of the listener
        self.scheme = scheme
        self.state: dict[str, Any] = {} if state is None else state
        self.number = next(_connections)  # of no other connection
        self._closing: list[Callable[[], Any]] = []
        self.closed: list[Callable[[], Any]] = []  # what is done at its end
        self.holds: list[Callable[[], None]] = []  # what is let go of behind that
        self.is_gone = False

    def on_close(self, function: Callable[[], Any]) -> None:
        """Have a function called when the connection is gone; to be said in `connect`."""
        self._closing.append(function)

    def take_closing(self) -> list[Callable[[], Any]]:
        """What a filter wants to be called at the end."""
        taken, self._closing = self._closing, []
        return taken


class Data:
    """Bytes of a connection that is passed on as it is, one way or the other. Returning bytes sends those instead."""

    __slots__ = ("connection", "data", "from_client")

    def __init__(self, data: bytes, connection: Connection, *, from_client: bool) -> None:
        self.data = data
        self.connection = connection
        self.from_client = from_client


class Datagram:
    """A datagram. Returning bytes sends those instead; `answer` sends something back to the client, and nothing on."""

    __slots__ = ("address", "answered", "data", "from_client", "port")

    def __init__(self, data: bytes, address: str, port: int, *, from_client: bool) -> None:
        self.data = data
        self.address = address  # of the client
        self.port = port  # of the listener
        self.from_client = from_client
        self.answered: bytes | None = None

    def answer(self, data: bytes) -> None:
        """Answer it here."""
        self.answered = data
