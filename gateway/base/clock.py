"""The time as of a worker's last tick: cheap to read, coarse enough for idleness."""

from __future__ import annotations


class Clock:
    """In seconds, of the monotonic clock."""

    __slots__ = ("now",)

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
