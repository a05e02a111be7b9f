"""What a filter's process may cost its worker: a share of the worker's time, some of it saved up, and more for each call.

One currency for everything that the process says: seconds of the worker's loop. A message costs what it took, and at least
what messages of its kind cost on average, with what they set in motion; so limits on messages, octets and requests a
second are all of one. Who owes too much is not read until that is paid. All processes of a worker together have a share as
well, so that many cannot do what one may not; who owes little of that goes on.
"""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.05  # of the loop's time, for what one process says unasked
SAVED: Final = 0.1  # seconds of it that may be used at once
SHARE_OF_ALL: Final = 0.10
CALL: Final = 0.001  # more, for each call that it is asked to answer
# What it costs at least:
MESSAGE: Final = 15e-6
OCTET: Final = 10e-9
ASK: Final = 100e-6  # a request to somebody else
LATER: Final = 30e-6  # whatever is answered later


class Credit:
    """Pure: whoever asks says what time it is."""

    __slots__ = ("_at", "_of_all", "_share", "owed")

    def __init__(self, share: float = SHARE, of_all: Credit | None = None) -> None:
        self._share = share
        self._of_all = of_all
        self._at = 0.0
        self.owed = 0.0  # seconds; below zero there is something saved

    def charge(self, seconds: float, now: float) -> None:
        """The process has cost so many seconds of the worker's loop."""
        self.owed = max(self.owed - (now - self._at) * self._share, -SAVED) + seconds
        self._at = now
        if self._of_all is not None:
            self._of_all.charge(seconds, now)

    def earn(self, seconds: float = CALL) -> None:
        """The process was called: it may cost more."""
        self.owed = max(self.owed - seconds, -SAVED)
        if self._of_all is not None:
            self._of_all.earn(seconds)

    def wait(self, now: float) -> float:
        """Seconds until it may be heard again; 0 if it may be."""
        self.charge(0.0, now)
        if self._of_all is None or self.owed <= 0:
            return max(self.owed, 0.0) / self._share
        return max(self.owed / self._share, self._of_all.wait(now))
