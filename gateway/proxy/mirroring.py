"""A mirrored request (RequestMirror): best effort, and never felt by the request itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from gateway.http.chunked import Chunks
from gateway.http.http1 import CHUNKED, Field, ProtocolError, Response, length_behind
from gateway.interfaces import UpstreamStream
from gateway.proxy.route import ResponseHeadCache
from gateway.transport.dial import DialError
from gateway.upstream.backend import Backend

BEHIND: Final = 1 << 20  # bytes that a slow mirror may owe before it is given up


class MirroredRequest:
    """A mirrored request: sent once, its answer dropped, given up when the mirror is slow (best effort).

    It follows the framing of what it is given. A request that breaks off leaves its connection in the middle of a
    body: such a connection is closed, as whatever was sent on it next would be read as more of that body.
    """

    __slots__ = ("_backend", "_left", "_owed", "_pending", "answers", "head_only", "is_sent", "peer")
    wants_payload = False

    def __init__(self, backend: Backend, head: bytes) -> None:
        self._backend = backend
        self._pending: list[bytes] | None = [head]
        self._owed = 0
        length = length_behind(head)
        self._left: int | Chunks = Chunks() if length == CHUNKED else max(length, 0)  # of the body, still to come
        self.is_sent = not self._left  # the mirror has been told everything
        self.answers: ResponseHeadCache | None = None
        self.head_only = head.startswith(b"HEAD ")
        self.peer: UpstreamStream | None = None

    def start(self) -> None:
        """Send it to the next endpoint; without one there is no copy."""
        endpoint = self._backend.endpoints.next()
        if endpoint is None:
            self._pending = None
            return
        peer = endpoint.take(self)
        if peer is None:
            endpoint.connect(self)
        else:
            self.connected(peer)

    def data(self, data: bytes) -> None:
        """Body bytes, framed, unless the mirror has fallen too far behind."""
        if self.is_sent or (self._pending is None and self.peer is None):
            return
        self._follow(data)
        if self._pending is not None:
            self._pending.append(data)
            self._owed += len(data)
            if self._owed > BEHIND:
                self._pending = None
        elif self.peer is not None:
            self.peer.write(data)
            if self.peer.buffered() > BEHIND:
                self._give_up()

    def _follow(self, data: bytes) -> None:
        left = self._left
        if isinstance(left, Chunks):
            self.is_sent = left.feed(data) >= 0
            left.payload.clear()
        else:
            self._left = left - len(data)
            self.is_sent = self._left <= 0

    def end(self) -> None:
        """The exchange is over; a copy that is whole finishes by itself."""
        if not self.is_sent:
            self._give_up()

    def _give_up(self) -> None:
        self._pending = None
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.abort()

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for a connection any more."""
        return self._pending is None

    def connected(self, peer: UpstreamStream) -> None:
        """Send what waited."""
        self.peer = peer
        pending, self._pending = self._pending or [], None
        peer.write(b"".join(pending))

    def connect_failed(self, failure: DialError) -> None:
        """Best effort: no copy."""
        self._pending = None

    def response(self, response: Response, head: bytes) -> None:
        """Dropped; a change of protocols, which nobody asked for, with the connection."""
        if response.status == 101:
            self._give_up()

    def response_data(self, data: bytes) -> None:
        """Dropped."""

    def answered(self, data: bytes, status_class: int) -> None:
        """Dropped."""
        self.peer = None

    def begun(self, data: bytes, status_class: int) -> None:
        """Dropped."""

    def continued(self, data: bytes | memoryview) -> None:
        """Dropped."""

    def owes(self) -> int:
        """Nobody waits for the answer."""
        return 0

    def ended(self, data: bytes, status_class: int) -> None:
        """Dropped."""
        self.peer = None

    def response_trailers(self, fields: list[Field]) -> None:
        """Dropped."""

    def flush(self) -> None:
        """Nothing is kept."""

    def promote(self) -> MirroredRequest:
        """A copy can take whatever comes."""
        return self

    def response_end(self) -> None:
        """The connection goes back to its pool."""
        self.peer = None

    def response_lost(self, reason: str, *, clean: bool, untouched: bool = False) -> None:
        """Dropped."""
        self.peer = None

    def response_invalid(self, error: ProtocolError) -> None:
        """A mirror that does not speak HTTP is cut off."""
        self._give_up()

    def pause_sending(self) -> None:
        """A copy never slows the request down."""

    def resume_sending(self) -> None:
        """A copy never slows the request down."""


def start(
    mirrors: Iterable[tuple[Callable[[], bool], str]], backends: Callable[[str], Backend], head: bytes
) -> list[MirroredRequest]:
    """Begin the copies of a request that are due, each with the head that goes to the backend."""
    copies = [MirroredRequest(backends(to), head) for due, to in mirrors if due()]
    for copy in copies:
        copy.start()
    return copies
