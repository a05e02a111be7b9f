"""How many connections there may be, on all and of one address."""

from __future__ import annotations

from gateway.snapshot import Limits
from gateway.transport.admission import Admission


def test_so_many_of_all_and_so_many_of_an_address() -> None:
    admission, limits = Admission(), Limits(connections=3, connections_per_address=2)
    assert [admission.admit("a", limits, there) for there in (0, 1, 2)] == [True, True, False]
    assert admission.admit("b", limits, 2)
    assert not admission.admit("c", limits, 3)
    admission.leave("a")
    assert admission.admit("a", limits, 2)


def test_who_came_before_a_limit_counts_once_there_is_one() -> None:
    admission = Admission()
    assert admission.admit("a", Limits(), 0)
    assert admission.admit("a", Limits(), 1)
    limits = Limits(connections_per_address=2)
    assert not admission.admit("a", limits, 2)
    admission.leave("a")
    assert admission.admit("a", limits, 1)
    assert not admission.admit("a", limits, 2)
