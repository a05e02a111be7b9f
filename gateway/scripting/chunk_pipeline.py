"""Chunks of a body through functions, in order, whether these answer at once or later.

While one is waited for, what comes behind it waits too; the last chunk is the last thing to be delivered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

# A chunk and whether it is the last → what goes on, at once or later.
Pass: TypeAlias = Callable[[bytes, bool], bytes | Awaitable[bytes]]
Later: TypeAlias = Callable[[Awaitable[bytes], Callable[[bytes], None]], None]


class ChunkPipeline:
    """Pieces of a body on their way through filters, in order.

    `later` waits for something and then calls back, unless it fails: that is its own affair.
    """

    __slots__ = ("_busy", "_deliver", "_ended", "_is_stopped", "_later", "_queue", "_through", "owed")

    def __init__(self, through: Pass, deliver: Callable[[bytes, bool], None], later: Later) -> None:
        self._through = through
        self._deliver = deliver
        self._later = later
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._busy = False
        self._ended = False
        self._is_stopped = False
        self.owed = 0  # bytes that wait

    @property
    def is_done(self) -> bool:
        """Whether the last chunk has been delivered."""
        return self._ended

    def stop(self) -> None:
        """Deliver nothing more."""
        self._is_stopped = True
        self._queue.clear()

    def feed(self, data: bytes, last: bool) -> None:
        """One more chunk."""
        if self._is_stopped:
            return
        if self._busy:
            self._queue.append((data, last))
            self.owed += len(data)
        else:
            self._take(data, last)

    def _take(self, data: bytes, last: bool) -> None:
        result = self._through(data, last)
        if isinstance(result, bytes):
            self._pass(result, last)
        else:
            self._busy = True
            self._later(result, lambda passed: self._waited(passed, last))

    def _waited(self, data: bytes, last: bool) -> None:
        self._pass(data, last)
        self._busy = False
        while self._queue and not self._busy:
            following, is_last = self._queue.popleft()
            self.owed -= len(following)
            self._take(following, is_last)

    def _pass(self, data: bytes, last: bool) -> None:
        if self._is_stopped:
            return
        self._ended = last
        self._deliver(data, last)  # also nothing: whoever waits until less is owed hears of it
