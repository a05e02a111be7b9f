"""Bytes that clients of a port have not taken yet, over all their connections, and who gives way where they are too many.

One connection owes little: its backend is paused while it does. A thousand that take nothing owe a thousand times as much.
Above the limit, whoever has taken nothing for a while is cut, first from the address that owes most: a slow client takes
something, and stays. The further above, the shorter the while.
"""

from __future__ import annotations

from collections import Counter as Tally
from typing import Final, Protocol

# How many times the limit there may be, at most, of those who have taken nothing for so many seconds.
PATIENCE: Final = ((4, 0.0), (2, 1.0), (1, 5.0))
MARGIN: Final = 8  # an eighth less than that is left, so that the next byte is not a reason to look again


class Debtor(Protocol):
    """A client connection with bytes to take."""

    address: bytes

    def unsent(self) -> int:
        """How many there are now; none once it is being closed."""

    def shed(self) -> None:
        """Let go of some of what is not taken, or of all."""


class Debt:
    """What a connection has not taken."""

    __slots__ = ("since", "size")

    def __init__(self, size: int, since: float) -> None:
        self.size = size
        self.since = since  # when it last took something, as far as that is known


class Unsent:
    """What clients have not taken yet, over all connections of a port."""

    __slots__ = ("_debts", "most", "total")

    def __init__(self) -> None:
        self._debts: dict[Debtor, Debt] = {}
        self.total = 0
        self.most = 0  # the limit; 0 for none

    def note(self, debtor: Debtor, size: int, now: float) -> None:
        """So much waits for a connection; 0 where it has taken all."""
        self._set(debtor, size, now)
        if self.most and self.total > self.most * PATIENCE[0][0]:
            self._shed(*PATIENCE[0], now)

    def _set(self, debtor: Debtor, size: int, now: float) -> None:
        debt = self._debts.get(debtor)
        if debt is None:
            if size:
                self._debts[debtor] = Debt(size, now)
                self.total += size
            return
        self.total += size - debt.size
        if size < debt.size:
            debt.since = now
        debt.size = size
        if not size:
            del self._debts[debtor]

    def tick(self, now: float) -> None:
        """Bring the sum down as far as patience allows."""
        if not self.most or self.total <= self.most >> 2:
            return
        # What was noted is what there was when a connection stopped taking: more may have come behind it.
        for debtor in list(self._debts):
            self._set(debtor, debtor.unsent(), now)
        for times, seconds in PATIENCE:
            self._shed(times, seconds, now)

    def _shed(self, times: int, seconds: float, now: float) -> None:
        if self.total <= self.most * times:
            return
        target = self.most * times - self.most // MARGIN
        owed: Tally[bytes] = Tally()
        for debtor, debt in self._debts.items():
            owed[debtor.address] += debt.size
        order = sorted(self._debts.items(), key=lambda item: (-owed[item[0].address], item[1].since))
        for debtor, debt in order:
            if now - debt.since >= seconds:
                while debt.size and self.total > target:
                    debtor.shed()
                    self._set(debtor, debtor.unsent(), debt.since)
