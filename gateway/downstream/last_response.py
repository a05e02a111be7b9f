"""The response to the last request of a connection on the fast path: known heads close the connection, and so does its end.

It stands between the backend's connection and the client's, so that responses behind which a connection stays open pay nothing
for those behind which it does not.
"""

from __future__ import annotations

from typing import Protocol

from gateway.http.forwarding import closing, kept_open
from gateway.http.head_templates import ResponseShape
from gateway.interfaces import ResponseHeads, ResponseSink
from gateway.proxy.exchange import Exchange


class LeavingClient(ResponseSink, Protocol):
    """The client's connection, whose last request was sent on the fast path."""

    def promote(self) -> Exchange: ...
    def finished(self, *, reuse: bool) -> None: ...


class LastResponse:
    """Takes the response to a request that says `Connection: close`, and is the response heads that it knows."""

    __slots__ = ("_base", "_client")

    def __init__(self, client: LeavingClient, base: ResponseHeads) -> None:
        self._client = client
        self._base = base

    # --- ResponseHeads ---

    @property
    def known(self) -> LastResponse:
        """The heads that are known leave the connection open."""
        return self

    def get(self, head: bytes) -> tuple[bytes, int, int] | None:
        """A head that was seen before, closing the connection."""
        entry = self._base.known.get(head)
        return (closing(entry[0]), entry[1], entry[2]) if entry is not None else None

    def fill(self, shape: ResponseShape, varying: bytes) -> bytes | None:
        """A head of a known shape, closing the connection."""
        out = self._base.fill(shape, varying)
        return closing(out) if out is not None else None

    def remember(self, head: bytes, out: bytes, length: int, status: int) -> None:
        """As it is where the connection stays open, for whoever comes next."""
        self._base.remember(head, kept_open(out), length, status)

    # --- ResponseSink ---

    @property
    def answers(self) -> ResponseHeads:
        """The heads that are known, closing the connection."""
        return self

    def answered(self, data: bytes, status_class: int) -> None:
        """A whole response in one piece."""
        self._client.answered(data, status_class)
        self._client.finished(reuse=False)

    def begun(self, data: bytes, status_class: int) -> None:
        """Its head, and a part of its body."""
        self._client.begun(data, status_class)

    def continued(self, data: bytes | memoryview) -> None:
        """More of its body."""
        self._client.continued(data)

    def ended(self, data: bytes, status_class: int) -> None:
        """The last of its body."""
        self._client.ended(data, status_class)
        self._client.finished(reuse=False)

    def owes(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._client.owes()

    def promote(self) -> Exchange:
        """An exchange, which knows what has been done so far (`Handover`)."""
        return self._client.promote()
