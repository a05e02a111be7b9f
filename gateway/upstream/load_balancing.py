"""Choose where a request goes: a target by weight, then an endpoint of its backend.

Targets are chosen by smooth weighted round robin, so that shares are exact over every period, not only on
average: 30 of 100 is 30. A weight of 0 is never chosen. Endpoints take turns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, repeat
from math import gcd
from typing import Final, Generic, TypeVar

T = TypeVar("T")
MAX_PERIOD: Final = 4096  # the longest period kept as a list


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


class WeightedSplit(Generic[T]):
    """An endless sequence of items in proportion to their weights. Empty when every weight is 0.

    `phase` (0 ≤ phase < 1) is where in its period the sequence starts, so that several workers together stay
    as exact as one. `turns` is the sequence itself: `next(turns, None)` costs a tenth of a method call.
    """

    __slots__ = ("turns",)

    def __init__(self, items: Sequence[T], weights: Sequence[int], *, phase: float = 0.0) -> None:
        self.turns: Iterator[T] = iter(())
        total = sum(weights)
        if total:
            divisor = gcd(*weights)
            sequence = smooth(weights)
            if total // divisor <= MAX_PERIOD:
                period = [items[next(sequence)] for _ in range(total // divisor)] if len(items) > 1 else items
                self.turns = _from(period, int(len(period) * phase))
            else:
                self.turns = (items[index] for index in sequence)

    def next(self) -> T | None:
        """The next item, or None where there is none to choose."""
        return next(self.turns, None)


def _from(items: Sequence[T], start: int) -> Iterator[T]:
    """All items again and again, from one of them on."""
    # One item needs no list of its own; most rules have one target, most backends of a small service one endpoint.
    return repeat(items[0]) if len(items) == 1 else cycle([*items[start:], *items[:start]])


def _least(items: Sequence[T], load: Callable[[T], int]) -> Iterator[T]:
    """The item with the least to do each time; of several, the one that comes next in turn."""
    at = 0
    while items:
        best = min(range(len(items)), key=lambda index: (load(items[index]), (index - at) % len(items)))
        at = best + 1
        yield items[best]


def _told(items: Iterator[T], taken: Callable[[], None]) -> Iterator[T]:
    """The same items, each told before it is taken."""
    for item in items:
        taken()
        yield item


class EndpointPicker(Generic[T]):
    """Members that take turns, without end: `next(turns, None)`. Members that fail can stand aside, unless all do."""

    __slots__ = ("_aside", "_load", "_members", "_order", "_taken", "turns")

    def __init__(self, members: Sequence[T] = ()) -> None:
        self._load: Callable[[T], int] | None = None
        self._members = tuple(members)
        self._aside: set[T] = set()
        self._taken: Callable[[], None] | None = None
        self._order: Iterator[T] = cycle(self._members)
        self.turns: Iterator[T] = self._order

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[T]:
        return iter(self._members)

    def set(self, members: Sequence[T]) -> None:
        """Replace the members. Whose turn it was stays so if it is still there; who stands aside does too."""
        self._members = tuple(members)
        self._aside &= set(members)
        self._settle()

    @property
    def ejected(self) -> frozenset[T]:
        """The members that stand aside."""
        return frozenset(self._aside)

    def of(self, key: bytes, name: Callable[[T], str]) -> T | None:
        """The member that a key belongs to: the highest of the members' draws for it wins, so that when one goes, or stands
        aside, only its own keys move (Thaler and Ravishankar, A Name-Based Mapping Scheme for Rendezvous, 1996)."""

        def draw(member: T) -> bytes:
            return hashlib.blake2b(name(member).encode(), key=key[:64], digest_size=8).digest()

        return max(self._available(), key=draw, default=None)

    def next(self) -> T | None:
        """Whose turn it is, or None where there is nobody; not counted."""
        return next(self._order, None)

    def count(self, taken: Callable[[], None] | None) -> None:
        """Have each of `turns` that is taken told; None for no more."""
        if taken != self._taken:
            self._taken = taken
            self.turns = _told(self._order, taken) if taken is not None else self._order

    def prefer(self, load: Callable[[T], int] | None) -> None:
        """Take the member with the least to do, instead of turns; None for turns."""
        if load is not self._load:
            self._load = load
            self._settle()

    def eject(self, member: T) -> None:
        """Pass over a member until it is restored."""
        if member in self._members:
            self._aside.add(member)
            self._settle()

    def restore(self, member: T) -> None:
        """Let a member take turns again."""
        self._aside.discard(member)
        self._settle()

    def _available(self) -> tuple[T, ...]:
        """Those that do not stand aside; all of them where all do."""
        return tuple(member for member in self._members if member not in self._aside) or self._members

    def _settle(self) -> None:
        if self._load is not None:
            self._order = _least(self._available(), self._load)
        else:
            following, available = next(self._order, None), self._available()
            self._order = _from(available, available.index(following) if following in available else 0)
        self.turns = _told(self._order, self._taken) if self._taken is not None else self._order
