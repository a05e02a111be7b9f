"""Choose where a request goes: a target by weight, then an endpoint of its backend.

Targets are chosen by smooth weighted round robin, so that shares are exact over every period, not only on
average: 30 of 100 is 30. A weight of 0 is never chosen. Endpoints take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from typing import Final, Generic, TypeVar

T = TypeVar("T")
LONGEST: Final = 4096  # the longest period kept as a list


def smooth(weights: Sequence[int]) -> Iterator[int]:
    """Indices in smooth weighted round robin, without end. At least one weight must be positive."""
    total = sum(weights)
    current = [0] * len(weights)
    while True:
        best = -1
        for index, weight in enumerate(weights):
            if weight:
                current[index] += weight
                if best < 0 or current[index] > current[best]:
                    best = index
        current[best] -= total
        yield best


class Split(Generic[T]):
    """An endless sequence of items in proportion to their weights. Empty when every weight is 0.

    `phase` (0 ≤ phase < 1) is where in its period the sequence starts, so that several workers together stay
    as exact as one.
    """

    __slots__ = ("_at", "_endless", "_items", "_period")

    def __init__(self, items: Sequence[T], weights: Sequence[int], *, phase: float = 0.0) -> None:
        self._items = list(items)
        self._at = 0
        self._endless: Iterator[int] | None = None
        self._period: list[T] = []
        total = sum(weights)
        if total:
            divisor = gcd(*weights)
            sequence = smooth(weights)
            if total // divisor <= LONGEST:
                self._period = [items[next(sequence)] for _ in range(total // divisor)]
                self._at = int(len(self._period) * phase)
            else:
                self._endless = sequence

    def next(self) -> T | None:
        """The next item, or None where there is none to choose."""
        period = self._period
        if period:
            at = self._at
            self._at = at + 1 if at + 1 < len(period) else 0
            return period[at]
        if self._endless is not None:
            return self._items[next(self._endless)]
        return None


class Ring(Generic[T]):
    """Members that take turns. Members that fail can stand aside for a while, unless all do."""

    __slots__ = ("_aside", "_at", "_members", "_turn")

    def __init__(self, members: Sequence[T] = ()) -> None:
        self._members = tuple(members)
        self._turn = self._members
        self._aside: set[T] = set()
        self._at = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[T]:
        return iter(self._members)

    def set(self, members: Sequence[T]) -> None:
        """Replace the members, keeping the position and who stands aside."""
        self._members = tuple(members)
        self._aside &= set(members)
        self._settle()

    def next(self) -> T | None:
        """Whose turn it is, or None where there is nobody."""
        turn = self._turn
        if not turn:
            return None
        at = self._at
        if at >= len(turn):
            at = 0
        self._at = at + 1
        return turn[at]

    def aside(self, member: T) -> None:
        """Pass over a member until `back`."""
        if member in self._members:
            self._aside.add(member)
            self._settle()

    def back(self, member: T) -> None:
        """Let a member take turns again."""
        self._aside.discard(member)
        self._settle()

    def _settle(self) -> None:
        willing = tuple(m for m in self._members if m not in self._aside)
        self._turn = willing or self._members
