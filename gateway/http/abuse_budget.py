"""What a peer's HTTP/2 connection may cost us without giving us work to do (RFC 9113 §10.5).

Frames that cost their sender nothing and us something are paid for in points: control frames, streams that are cancelled,
requests that must be refused. A peer earns points by what it is sent, since it has that to acknowledge and to measure, and
by time. So clients that make many small calls, keep streams open for days and probe the line are never cut, however many
they make; and whoever only makes noise has the budget, and what a second adds to it.
"""

from __future__ import annotations

from typing import Final

from gateway.base.clock import Clock

BUDGET: Final = 10_000  # points that may be spent at once
OPENING: Final = 2_000  # as many of them has a new connection: more of these are no way to have more
A_SECOND: Final = 2_000  # points that come back each second

# What is spent.
# A frame that changes nothing: PING, WINDOW_UPDATE, PRIORITY, DATA without content, a frame of an unknown type.
PROBE: Final = 1
SETTING: Final = 2  # SETTINGS, and as much again for every 32 of them in one frame
LATE_CANCEL: Final = 1  # of a stream that had time to be answered: deadlines, races between requests, closed pages
EARLY_CANCEL: Final = 10  # of a stream that had none: opening and cancelling costs a client next to nothing (CVE-2023-44487)
REFUSAL: Final = 10  # a request that is none, or one stream too many
FALSE: Final = 50  # what no client says that means well, and what we reset a stream for (CVE-2025-8671)

# What is earned.
A_SECTION: Final = 4  # by a field section that the peer is sent: a request, a response, trailers
A_FRAME: Final = 4  # by a frame of content

SOON: Final = 0.05  # seconds within which a stream has had no time to be answered


class Budget:
    """One connection's."""

    __slots__ = ("_clock", "_since", "spent")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.now  # up to when what time adds has been counted
        self.spent = BUDGET - OPENING  # less what was earned since: may be below 0 until something is spent

    def spend(self, points: int) -> bool:
        """Whether there were so many points left."""
        # What was earned pays for what was spent before, and is not saved up.
        self.spent = max(self.spent, 0) + points
        if self.spent > BUDGET:
            now = self._clock.now
            self.spent = max(self.spent - int((now - self._since) * A_SECOND), points)
            self._since = now
        return self.spent <= BUDGET
