"""Which parts end a worker: found by putting pieces, and nothing else is blamed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.process import trial


class Worker:
    """Dies of some parts, and now and then of nothing."""

    def __init__(self, deadly: set[int], chance: set[int] = frozenset()) -> None:
        self.deadly = deadly
        self.chance = chance  # at which tries it is killed by somebody else
        self.put: list[int] = []
        self.tries = self.deaths = 0

    async def survives(self, parts: Sequence[int]) -> bool:
        self.tries += 1
        if self.deadly.intersection(parts) or self.tries in self.chance:
            self.deaths += 1
            return False
        self.put += parts
        return True


@given(st.integers(0, 3000), st.sets(st.integers(0, 2999), max_size=3))
def test_what_is_deadly_is_blamed_and_everything_else_is_put_in_its_order(count: int, deadly: set[int]) -> None:
    worker = Worker(deadly)
    parts = list(range(count))
    blamed = asyncio.run(trial.culprits(parts, worker.survives, deaths=1))
    assert blamed == sorted(deadly & set(parts))
    assert worker.put == [part for part in parts if part not in deadly]
    assert worker.deaths <= 1 + 5 * len(blamed)


@given(st.integers(1, 200), st.sets(st.integers(1, 60), max_size=4))
def test_one_death_by_chance_proves_nothing(count: int, chance: set[int]) -> None:
    """Unless the same part is struck twice when it is put alone, which takes two deaths one after another."""
    worker = Worker(set(), {one for one in chance if one - 1 not in chance})
    assert asyncio.run(trial.culprits(list(range(count)), worker.survives)) == []
    assert worker.put == list(range(count))


@pytest.mark.parametrize("count", [50, 5000])
def test_a_search_ends(count: int) -> None:
    """Where everything is deadly, not everything is tried."""
    worker = Worker(set(range(count)))
    assert sorted(asyncio.run(trial.culprits(list(range(count)), worker.survives))) == list(range(count))
    assert worker.deaths <= trial.MAX_DEATHS
