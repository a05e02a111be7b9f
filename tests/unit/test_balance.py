"""Shares are exact over every period; nobody with weight 0 is ever chosen."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.load_balancing import EndpointPicker, WeightedSplit, smooth


def take(split: WeightedSplit[int], count: int) -> list[int | None]:
    return [split.next() for _ in range(count)]


def test_30_of_100_is_30() -> None:
    split = WeightedSplit(["stable", "canary"], [70, 30])
    for _ in range(5):
        assert Counter(split.next() for _ in range(100)) == {"stable": 70, "canary": 30}


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any), st.floats(0, 0.99))
def test_every_period_is_exact(weights: list[int], phase: float) -> None:
    split = WeightedSplit(list(range(len(weights))), weights, phase=phase)
    total = sum(weights)
    counts = Counter(take(split, total * 3))
    assert [counts[index] for index in range(len(weights))] == [3 * weight for weight in weights]


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=5).filter(any))
def test_any_stretch_is_close(weights: list[int]) -> None:
    """No target is ever more than one request per other target away from its share."""
    sequence = list(islice(smooth(weights), 500))
    total = sum(weights)
    for index, weight in enumerate(weights):
        assert abs(sequence.count(index) - 500 * weight / total) <= len(weights)
        assert weight or index not in sequence


def test_nothing_to_choose() -> None:
    assert WeightedSplit(["a"], [0]).next() is None


def test_periods_too_long_for_a_list() -> None:
    split = WeightedSplit(["a", "b"], [999_983, 1_000_003])
    counts = Counter(split.next() for _ in range(10_000))
    assert abs(counts["a"] - counts["b"]) <= 1


def test_a_ring_takes_turns_and_lets_members_stand_aside() -> None:
    endpoints = EndpointPicker("abc")
    assert [endpoints.next() for _ in range(4)] == ["a", "b", "c", "a"]
    endpoints.eject("b")
    assert "b" not in [endpoints.next() for _ in range(6)]
    endpoints.set("bc")
    assert [endpoints.next() for _ in range(2)] == ["c", "c"]
    endpoints.eject("c")
    assert {endpoints.next() for _ in range(4)} == {"b", "c"}, "when all stand aside, all are asked"
    endpoints.restore("b")
    assert {endpoints.next() for _ in range(3)} == {"b"}
    endpoints.set("")
    assert endpoints.next() is None
