"""Who pays for what on HTTP/2: honest clients never run out, whoever only makes noise does."""

from __future__ import annotations

import pytest

from gateway.base.clock import Clock
from gateway.http import abuse_budget
from gateway.http.abuse_budget import BUDGET, Budget


def rested(clock: Clock) -> Budget:
    """Of a connection that has stood for a while."""
    one = Budget(clock)
    one.spent = 0
    return one


def spend(one: Budget, points: int, times: int) -> bool:
    return all(one.spend(points) for _ in range(times))


@pytest.mark.parametrize(
    ("points", "times"),
    [
        (abuse_budget.PROBE, BUDGET),
        (abuse_budget.SETTING, BUDGET // 2),
        (abuse_budget.EARLY_CANCEL, BUDGET // 10),
        (abuse_budget.FALSE, BUDGET // 50),
    ],
)
def test_so_much_at_once_and_no_more(points: int, times: int) -> None:
    one = rested(Clock(100.0))
    assert spend(one, points, times)
    assert not one.spend(points)


def test_time_gives_back() -> None:
    clock = Clock(100.0)
    one = rested(clock)
    assert spend(one, 1, BUDGET)
    clock.now += 1
    assert spend(one, 1, abuse_budget.A_SECOND)
    assert not one.spend(1)


def test_a_long_rest_is_not_saved_up() -> None:
    clock = Clock(0.0)
    one = rested(clock)
    clock.now += 100_000
    assert spend(one, 1, BUDGET)
    one.spent -= 1_000_000  # much was sent
    assert spend(one, 1, BUDGET)
    clock.now += 1
    one.spend(1)
    assert not spend(one, 1, BUDGET)


def test_a_ping_a_second_for_days() -> None:
    clock = Clock(0.0)
    one = rested(clock)
    for _ in range(200_000):
        clock.now += 1
        assert one.spend(abuse_budget.PROBE)


def test_calls_pay_for_what_acknowledges_them() -> None:
    """A unary call of gRPC: two field sections and a frame of content back; two window updates, a probe, a late reset."""
    one = rested(Clock(0.0))
    for _ in range(100_000):
        one.spent -= 2 * abuse_budget.A_SECTION + abuse_budget.A_FRAME
        assert spend(one, abuse_budget.PROBE, 3)
        assert one.spend(abuse_budget.LATE_CANCEL)


def test_as_many_deadlines_as_streams_allow() -> None:
    """A hundred streams, each cancelled as soon as it had time to be answered, for ten minutes."""
    clock = Clock(0.0)
    one = rested(clock)
    for _ in range(600):
        clock.now += 1
        assert spend(one, abuse_budget.LATE_CANCEL, int(100 / abuse_budget.SOON))


def test_a_new_connection_has_less_and_soon_as_much() -> None:
    clock = Clock(100.0)
    one = Budget(clock)
    assert spend(one, 1, abuse_budget.OPENING)
    assert not one.spend(1)
    one = Budget(clock)
    clock.now += BUDGET / abuse_budget.A_SECOND
    assert spend(one, 1, BUDGET)
