"""One stream of an HTTP/2 connection, as far as its frames are concerned: what it may send, what it still has to send, and
what it may receive (RFC 9113 §5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from gateway.http import abuse_budget, field_sections
from gateway.http.abuse_budget import Budget
from gateway.http.field_sections import Pair
from gateway.http.http1 import Field
from gateway.http.http2_frames import DATA, END_STREAM, MAX_FRAME_OCTETS, WINDOW_UPDATE, frame, frame_head, number

STREAM_WINDOW: Final = 1 << 18  # octets of content that a peer may send on one stream before we take them
HIGH_WATER: Final = 1 << 16  # octets waiting on a stream above which its source is told to pause


class StreamOwner(Protocol):
    """The connection of a stream: what all of its streams share."""

    window: int  # octets that the peer takes on the connection
    peer_window: int  # and on a stream that is new
    stopped: bool  # the transport's buffer is full
    is_full_up: bool
    owed: int  # octets of content that wait, on all streams
    noted: int
    waiting: dict[Stream, None]
    budget: Budget

    @property
    def write(self) -> Callable[[bytes], None]:
        """Sends frames."""

    def send_block(self, stream: int, block: bytes, flags: int) -> None:
        """Send a field section."""

    def pump(self) -> None:
        """Send what waits and may go."""

    def note_unsent(self) -> None:
        """What waits to be sent has changed."""

    def say_reset(self, stream: int, code: int) -> None:
        """Send RST_STREAM."""

    def give_back(self, stream: Stream) -> None:
        """What was kept for a stream is wanted now."""

    def end_local(self, stream: Stream) -> None:
        """All was sent on a stream."""

    def forget(self, stream: Stream) -> None:
        """A stream is over."""


class Stream:
    """One stream's frames: what its owner writes, as flow control allows. Roles inherit it."""

    __slots__ = (
        "connection",
        "gone",
        "held",
        "id",
        "kept",
        "last",
        "local_closed",
        "owed",
        "queue",
        "reading_stopped",
        "receive_window",
        "remote_closed",
        "unacknowledged",
        "window",
    )  # fmt: skip

    def __init__(self, connection: StreamOwner, number: int) -> None:
        self.connection = connection
        self.id = number
        # Outward.
        self.window = connection.peer_window  # octets that the peer takes now
        self.held: bytes | None = None  # a field section that may turn out to be all
        self.queue: deque[bytes] | None = None  # waits for the window
        self.owed = 0  # octets in it
        self.local_closed = False  # END_STREAM was said, or will be at the end of the queue
        self.last: list[Field] | None = None  # trailers that end it
        # Inward.
        self.receive_window = STREAM_WINDOW  # octets that the peer may still send
        self.unacknowledged = 0  # octets taken, but not yet given back to it
        self.kept = 0  # octets that came while nobody wanted them, by which the connection may send less meanwhile
        self.reading_stopped = False
        self.remote_closed = False
        self.gone = False  # gone from the connection

    # --- outward ---

    def send_head(self, block: bytes) -> None:
        """A field section."""
        self.connection.send_block(self.id, block, 0)

    def hold_head(self, block: bytes) -> None:
        """A field section, which goes with what follows or by `let_go`."""
        self.held = block

    def let_go(self) -> None:
        """Nothing follows yet: send what is held."""
        if self.held is not None and not self.gone:
            block, self.held = self.held, None
            self.connection.send_block(self.id, block, 0)

    def send(self, data: bytes | memoryview) -> None:
        """Content, now or when the peer takes it."""
        size = len(data)
        if not size or self.gone:
            return
        if self.held is not None:
            self.let_go()
        connection = self.connection
        if (
            self.queue is None
            and size <= MAX_FRAME_OCTETS
            and size <= self.window
            and size <= connection.window
            and not connection.stopped
        ):
            self.window -= size
            connection.window -= size
            connection.budget.spent -= abuse_budget.A_FRAME
            connection.write(b"".join((frame_head(0, size, DATA, 0, self.id), data)))
            return
        if self.queue is None:
            self.queue = deque()
        # A copy, as the buffer behind a view is used again; and cut into frames once.
        for start in range(0, size, MAX_FRAME_OCTETS):
            self.queue.append(bytes(data[start : start + MAX_FRAME_OCTETS]))
        before, self.owed = self.owed, self.owed + size
        connection.owed += size
        connection.waiting[self] = None
        connection.pump()
        if connection.owed - connection.noted > HIGH_WATER:
            connection.note_unsent()
        if before < HIGH_WATER <= self.owed:
            self.congested()

    def finish(self, trailers: list[Field] | None = None) -> None:
        """All has been said."""
        if self.local_closed or self.gone:
            return
        self.local_closed = True
        if self.queue is None:
            self._say_last(trailers)
        else:
            self.last = trailers

    def _say_last(self, trailers: list[Field] | None) -> None:
        if self.held is not None and not trailers:
            self.connection.send_block(self.id, self.held, END_STREAM)
        elif trailers:
            self.let_go()
            self.connection.send_block(self.id, field_sections.trailer_block(trailers), END_STREAM)
        else:
            self.connection.write(frame_head(0, 0, DATA, END_STREAM, self.id))
        self.connection.end_local(self)

    def pump(self) -> bool:
        """Send what the windows allow, one frame; True where more would go."""
        queue, connection = self.queue, self.connection
        if queue is None:
            return False
        data = queue[0]
        room = min(self.window, connection.window)
        if room <= 0:
            return False
        size = len(data)
        if size > room:
            data, queue[0] = data[:room], data[room:]
            size = room
        else:
            queue.popleft()
        self.window -= size
        connection.window -= size
        connection.owed -= size
        before, self.owed = self.owed, self.owed - size
        is_last = not queue and self.local_closed and not self.last
        if (
            not queue or size >= MAX_FRAME_OCTETS >> 4
        ):  # a peer that asks for content by the octet earns nothing (CVE-2019-9511)
            connection.budget.spent -= abuse_budget.A_FRAME
        connection.write(frame_head(0, size, DATA, END_STREAM if is_last else 0, self.id) + data)
        if queue:
            if before >= HIGH_WATER and self.takes_more:
                self.relieved()
            return True
        self.queue = None
        if is_last:
            connection.end_local(self)
        elif self.local_closed:
            self._say_last(self.last)
        elif before >= HIGH_WATER and self.takes_more:
            self.relieved()
        return False

    @property
    def takes_more(self) -> bool:
        """Whether what it owes is little, and what its connection owes."""
        connection = self.connection
        return self.owed < HIGH_WATER and not connection.stopped and not connection.is_full_up

    def reset(self, code: int) -> None:
        """Give it up, in both directions."""
        if not self.gone:
            self.connection.say_reset(self.id, code)
            self.connection.forget(self)

    # --- inward ---

    def taken(self, size: int) -> None:
        """Content has been taken: the peer may send as much again, unless we want it to wait."""
        self.unacknowledged += size
        if self.unacknowledged >= STREAM_WINDOW // 2 and not self.reading_stopped and not self.remote_closed:
            self._give_back()

    def _give_back(self) -> None:
        if self.unacknowledged and not self.gone:
            self.connection.write(frame(WINDOW_UPDATE, 0, self.id, number(self.unacknowledged)))
            self.receive_window += self.unacknowledged
            self.unacknowledged = 0

    def stop_reading(self) -> None:
        """Let the peer send no more than it has been allowed already."""
        self.reading_stopped = True

    def go_on_reading(self) -> None:
        """Let it send again."""
        if self.reading_stopped:
            self.reading_stopped = False
            self.connection.give_back(self)
            if not self.remote_closed:
                self._give_back()

    # --- for roles ---

    def congested(self) -> None:
        """More waits to be sent than the mark: the source should pause."""

    def relieved(self) -> None:
        """Less waits to be sent than the mark: a source that paused should go on."""

    def take_content(self, data: bytes) -> None:
        """Content has come."""

    def complete(self, trailers: list[Pair] | None) -> None:
        """The peer has said all."""

    def cut(self, code: int, reason: str) -> None:
        """The peer has given the stream up, or the connection is lost. It is gone from the connection."""
