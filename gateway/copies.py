"""A mirrored request (RequestMirror): best effort, and never felt by the request itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from gateway.http1 import Field, ProtocolError, Response
from gateway.peers import Peer
from gateway.prepared import Answers, Backend

BEHIND: Final = 1 << 20  # bytes that a slow mirror may owe before it is given up


class Copy:
    """A mirrored request: sent once, its answer dropped, given up when the mirror is slow (best effort)."""

    __slots__ = ("_backend", "_owed", "_pending", "answers", "head_only", "peer", "request_done")
    wants_payload = False

    def __init__(self, backend: Backend, head: bytes) -> None:
        self._backend = backend
        self._pending: list[bytes] | None = [head]
        self._owed = 0
        self.answers: Answers | None = None
        self.head_only = head.startswith(b"HEAD ")
        self.peer: Peer | None = None
        self.request_done = False

    def start(self) -> None:
        """Send it to the next endpoint; without one there is no copy."""
        endpoint = self._backend.ring.next()
        if endpoint is None:
            self._pending = None
            return
        peer = endpoint.take(self)
        if peer is None:
            endpoint.connect(self)
        else:
            self.connected(peer)

    def data(self, data: bytes) -> None:
        """Body bytes, unless the mirror has fallen too far behind."""
        if self._pending is not None:
            self._pending.append(data)
            self._owed += len(data)
            if self._owed > BEHIND:
                self._pending = None
        elif self.peer is not None:
            self.peer.write(data)
            if self.peer.buffered() > BEHIND:
                peer, self.peer = self.peer, None
                peer.abort()

    def end(self) -> None:
        """The exchange is over; the copy finishes by itself."""
        self.request_done = True

    @property
    def is_sent(self) -> bool:
        """Whether the backend has been told everything."""
        return self.request_done

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for a connection any more."""
        return self._pending is None

    def connected(self, peer: Peer) -> None:
        """Send what waited."""
        self.peer = peer
        pending, self._pending = self._pending or [], None
        peer.write(b"".join(pending))

    def connect_failed(self, reason: str) -> None:
        """Best effort: no copy."""
        self._pending = None

    def response(self, response: Response, head: bytes) -> None:
        """Dropped."""

    def response_data(self, data: bytes) -> None:
        """Dropped."""

    def answered(self, data: bytes, hundreds: int) -> None:
        """Dropped."""
        self.peer = None

    def begun(self, data: bytes, hundreds: int) -> None:
        """Dropped."""

    def continued(self, data: bytes | memoryview) -> None:
        """Dropped."""

    def owes(self) -> int:
        """Nobody waits for the answer."""
        return 0

    def ended(self, data: bytes, hundreds: int) -> None:
        """Dropped."""
        self.peer = None

    def response_trailers(self, fields: list[Field]) -> None:
        """Dropped."""

    def flush(self) -> None:
        """Nothing is kept."""

    def in_full(self) -> Copy:
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
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.abort()

    def pause_sending(self) -> None:
        """A copy never slows the request down."""

    def resume_sending(self) -> None:
        """A copy never slows the request down."""


def start(mirrors: Iterable[tuple[Callable[[], bool], str]], backends: Callable[[str], Backend], head: bytes) -> list[Copy]:
    """Begin the copies of a request that are due, each with the head that goes to the backend."""
    made = [Copy(backends(to), head) for due, to in mirrors if due()]
    for copy in made:
        copy.start()
    return made
