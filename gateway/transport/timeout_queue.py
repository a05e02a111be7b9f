"""Timeouts of requests that take the fast path: most begin and end without a timer of their own.

Timeouts of one length end in the order in which they began. So they stand in a line, and one timer, for the first
of them, is enough; a request that has ended is simply passed over when its turn comes.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol


class Timed(Protocol):
    """A client connection with one request at a time."""

    def overdue(self, since: float) -> None:
        """The time of the request that began at `since` is up, if it is still under way."""


class TimeoutQueue:
    """All timeouts of one length (seconds)."""

    __slots__ = ("_line", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._line: dict[Timed, float] = {}  # who has begun a request, and when; the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, who: Timed, since: float) -> None:
        """A request has begun; the one that the same connection began before it is over."""
        self._line.pop(who, None)
        self._line[who] = since
        if self._timer is None:
            self._arm(since)

    def _arm(self, since: float) -> None:
        delay = max(since + self._seconds - monotonic(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = monotonic()
        due: list[tuple[Timed, float]] = []
        for who, since in self._line.items():
            if since + self._seconds > now:
                self._arm(since)
                break
            due.append((who, since))
        for who, since in due:
            del self._line[who]
            who.overdue(since)
