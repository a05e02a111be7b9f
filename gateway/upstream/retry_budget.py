"""Retry budgets (GEP-3388): of what a backend was sent in the last seconds, only so much may have been sent again.

The share is kept by each worker for what passes through it, which keeps it for all of them together. What may be sent again in
any case (`minRetryRate`) is counted in the memory that workers share. Requests are counted where an endpoint's turn is taken,
and only for backends that have a budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from gateway.snapshot import RetryBudget

SLICES: Final = 10  # of the interval: what is older is forgotten a slice at a time


class Slice:
    """What was sent in one part of the interval."""

    __slots__ = ("requests", "retries")

    def __init__(self) -> None:
        self.requests = 0  # retries among them
        self.retries = 0


class RetryAllowance:
    """What may be sent again to the backends of one budget."""

    __slots__ = ("_clock", "_in_any_case", "_length", "_requests", "_retries", "_slices", "_until", "refused", "spec")

    def __init__(
        self, spec: RetryBudget, in_any_case: Callable[[RetryBudget], bool], clock: Callable[[], float] = monotonic
    ) -> None:
        """`in_any_case` takes a turn of the minimum rate, and says whether there was one."""
        self.refused = 0
        self._in_any_case = in_any_case
        self._clock = clock
        self.follow(spec)

    def follow(self, spec: RetryBudget) -> None:
        """Count by another budget, from now on."""
        self.spec = spec
        self._length = spec.interval / SLICES
        self._until = self._clock() + self._length
        self._slices = deque((Slice() for _ in range(SLICES)), SLICES)  # the last goes on
        self._requests = 0  # in all slices, retries among them
        self._retries = 0

    def count(self) -> None:
        """A request is sent for the first time."""
        self._begin_slice()
        self._requests += 1
        self._slices[-1].requests += 1

    def allows(self) -> bool:
        """Whether a request may be sent once more; it counts then."""
        self._begin_slice()
        # Each takes its turn of the minimum rate, while there is one: it is what may be sent in any case, not besides.
        is_within = (self._retries + 1) * 100 <= self.spec.percent * (self._requests + 1)
        if not (self._in_any_case(self.spec) or is_within):
            self.refused += 1
            return False
        self._requests += 1
        self._retries += 1
        self._slices[-1].requests += 1
        self._slices[-1].retries += 1
        return True

    def _begin_slice(self) -> None:
        now = self._clock()
        if now < self._until:
            return
        begun = int((now - self._until) / self._length) + 1
        self._until += begun * self._length
        for _ in range(min(begun, SLICES)):
            self._requests -= self._slices[0].requests
            self._retries -= self._slices[0].retries
            self._slices.append(Slice())
