"""The content of a request between its client and its backend: it waits for a connection, passes, and is kept for another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from gateway.http.chunked import Chunks, chunk, last_chunk
from gateway.http.http1 import CHUNKED, Field, Request
from gateway.interfaces import UpstreamStream
from gateway.proxy.mirroring import MirroredRequest


class RequestFraming(Enum):
    """Who frames the content of a request on its way; of the rows that fit, the last one counts.

    ==================================  ===========  ========================================================
    client and content                  framing      the backend's connection is told
    ==================================  ===========  ========================================================
    HTTP/1.1, by length or in chunks    `KEPT`       the octets as they came
    HTTP/2, of a length that is known   `KEPT`       the octets as they came
    HTTP/2, of another                  `BARE`       bare octets, and their end
    a filter has replaced it            `KEPT`       the octets that a filter gave
    filters see it in pieces            `BARE`       bare octets, and their end
    gRPC-Web on HTTP/2                  `BARE`       bare octets, and their end
    gRPC-Web on HTTP/1.1                `TAKEN_OFF`  bare octets; the end is known before the last of them come
    ==================================  ===========  ========================================================
    """

    KEPT = 1
    BARE = 2
    TAKEN_OFF = 3


KEPT: Final = RequestFraming.KEPT


class RequestBody:
    """What has come of a request's content, and where it goes."""

    __slots__ = ("_resendable", "_waiting", "framing", "is_full", "mirrored", "octets", "trailers")

    def __init__(self, request: Request, *, is_framed: bool) -> None:
        is_open = request.length == CHUNKED and not is_framed  # a stream's, of a length that nobody knows
        self.framing = RequestFraming.BARE if is_open else RequestFraming.KEPT
        self.octets = 0  # that have come
        self.trailers: list[Field] | None = None  # that go on, where the backend's connection frames the content
        self.is_full = False  # the backend's connection takes no more for now
        self._waiting: list[bytes] | None = None  # not None: a connection is being made, or somebody is asked
        self._resendable: list[bytes] | None = []  # not None: all that was sent, little enough to be sent again
        self.mirrored: Sequence[MirroredRequest] = ()

    # --- what waits ---

    @property
    def is_waiting(self) -> bool:
        """Whether what comes is held until there is a connection for it."""
        return self._waiting is not None

    def wait(self) -> None:
        """From now on what comes is held."""
        if self._waiting is None:
            self._waiting = []

    def drop(self) -> None:
        """Nobody wants what was held, or what still comes."""
        self._waiting = None

    def start_anew(self, framing: RequestFraming, content: bytes = b"") -> list[bytes]:
        """There is other content in place of the client's, of which this is all so far. What was held is the caller's now."""
        held = self._waiting or []
        self.framing = framing
        self.octets = len(content)
        self._waiting = [content] if content else []
        self._resendable = [*self._waiting]
        return held

    def translate(self, incoming: Callable[[bytes], bytes], *, is_framed: bool) -> None:
        """From now on it is gRPC's and bare, also what is held; what comes is given to `add` as such. Raises what `incoming`
        raises."""
        self.framing = RequestFraming.TAKEN_OFF if is_framed else RequestFraming.BARE
        if self._waiting:
            self._waiting = [incoming(piece) for piece in self._waiting]
            if self._resendable is not None:
                self._resendable = [*self._waiting]

    def so_far(self, length: int) -> bytes:
        """What is held, without the framing of a request of this `length` (octets, or CHUNKED)."""
        data = b"".join(self._waiting or ())
        if length != CHUNKED or self.framing is not KEPT:
            return data
        chunks = Chunks()
        chunks.feed(data)
        return chunks.taken()

    # --- what is kept ---

    @property
    def can_resend(self) -> bool:
        """Whether all that has come is still here."""
        return self._resendable is not None

    def rewind(self) -> None:
        """All that has come is to be sent once more, and waits."""
        self._waiting = list(self._resendable or ())

    # --- what passes ---

    def mirror(self, mirrored: Sequence[MirroredRequest], *, is_whole: bool) -> None:
        """Copy what was held and what comes to these requests."""
        self.mirrored = mirrored
        for piece in self._waiting or ():
            self._copy(piece)
        if is_whole and self.framing is not KEPT:
            self._end_copies()

    def open(self, peer: UpstreamStream, head: bytes, *, is_whole: bool) -> bool:
        """Send a request's head and what was held of its content; whether anything could be held."""
        waiting, self._waiting = self._waiting, None
        self.is_full = False
        if self.framing is KEPT:
            peer.write(head + b"".join(waiting) if waiting else head)
        else:
            peer.open(head)
            for piece in waiting or ():
                peer.content(piece)
            if is_whole:
                peer.finish(self.trailers)
        return waiting is not None

    def add(self, data: bytes, peer: UpstreamStream | None, most: int) -> None:
        """More has come. It is kept while all together is at most `most` octets."""
        if self.mirrored:
            self._copy(data)
        self.octets += len(data)
        if self._resendable is not None:
            self._resendable.append(data)
            if self.octets > most:
                self._resendable = None
        if self._waiting is not None:
            self._waiting.append(data)
        elif peer is not None:
            if self.framing is KEPT:
                peer.write(data)
            else:
                peer.content(data)

    def end(self, peer: UpstreamStream | None) -> None:
        """All has come, and `trailers`: say so where the framing does not."""
        if self.framing is KEPT:
            return
        self._end_copies()
        if peer is not None:
            peer.finish(self.trailers)

    def _copy(self, data: bytes) -> None:
        for copy in self.mirrored:
            copy.data(data if self.framing is KEPT else chunk(data))

    def _end_copies(self) -> None:
        for copy in self.mirrored:
            copy.data(last_chunk(()))
