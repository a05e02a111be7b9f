"""Whether a port takes one more connection, or flow: there may be so many of them, and so many of one address.

Who was let in is counted whatever the limits were at that time, so that limits which change hold for all who are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from gateway.snapshot import Limits


class Admission:
    """Counts connections by their client's address, and admits more of them or not."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: Counter[Hashable] = Counter()

    def admit(self, address: Hashable, limits: Limits, there: int) -> bool:
        """Count one more in, beside those that are there; false for one too many."""
        most, each = limits.connections, limits.connections_per_address
        if (most and there >= most) or (each and self._of[address] >= each):
            return False
        self._of[address] += 1
        return True

    def leave(self, address: Hashable) -> None:
        """One of them is gone."""
        self._of[address] -= 1
        if self._of[address] <= 0:
            del self._of[address]
