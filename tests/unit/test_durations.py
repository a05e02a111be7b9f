"""Durations, and how long to wait before something is tried again."""

from __future__ import annotations

import pytest

from gateway.base.durations import backoff


@pytest.mark.parametrize(
    ("doublings", "waits"), [(0, 0.1), (1, 0.2), (3, 0.8), (7, 10.0), (64, 10.0), (1023, 10.0), (1024, 10.0), (10**9, 10.0)]
)
def test_a_wait_doubles_up_to_its_most_and_never_ends_who_waits(doublings: int, waits: float) -> None:
    assert backoff(0.1, doublings, 10.0) == pytest.approx(waits)
