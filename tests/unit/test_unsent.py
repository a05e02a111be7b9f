"""Who gives way where clients have not taken too much."""

from __future__ import annotations

import pytest

from gateway.downstream.unsent import Unsent


class Client:
    def __init__(self, address: str, size: int) -> None:
        self.address = address.encode()
        self.size = size
        self.is_cut = False

    def unsent(self) -> int:
        return self.size

    def shed(self) -> None:
        self.is_cut = True
        self.size = 0


def owing(most: int, *clients: Client) -> Unsent:
    made = Unsent()
    made.most = most
    for client in clients:
        made.note(client, client.size, 0.0)
    return made


def test_nobody_is_cut_below_the_limit_or_without_one() -> None:
    clients = [Client("a", 100), Client("b", 100)]
    owing(200, *clients).tick(1000.0)
    owing(0, *clients).tick(1000.0)
    assert not any(client.is_cut for client in clients)


def test_the_address_that_owes_most_goes_first_and_no_further_than_needed() -> None:
    one, first, second, third = Client("b", 150), Client("a", 100), Client("a", 100), Client("a", 100)
    unsent = owing(300, one, first, second, third)
    unsent.tick(5.0)
    assert [client.is_cut for client in (one, first, second, third)] == [False, True, True, False]
    assert unsent.total == 250


@pytest.mark.parametrize(("times", "seconds"), [(1.5, 5.0), (2.5, 1.0)])
def test_the_more_there_is_the_shorter_the_while(times: float, seconds: float) -> None:
    clients = [Client("a", 10) for _ in range(int(100 * times / 10))]
    unsent = owing(100, *clients)
    unsent.tick(seconds - 0.1)
    assert not any(client.is_cut for client in clients)
    unsent.tick(seconds)
    assert unsent.total <= 200


def test_four_times_the_limit_is_never_passed() -> None:
    unsent = Unsent()
    unsent.most = 100
    clients = [Client("a", 10) for _ in range(1000)]
    for client in clients:
        unsent.note(client, client.size, 0.0)
        assert unsent.total <= 400
    assert not clients[-1].is_cut  # whoever has waited longest goes first


def test_who_takes_something_stays() -> None:
    slow, dead = Client("a", 100), Client("a", 100)
    unsent = owing(150, slow, dead)
    for second in range(1, 30):
        slow.size -= 1
        unsent.tick(float(second))
        assert dead.is_cut == (second >= 5)
    assert not slow.is_cut


def test_who_has_taken_all_is_forgotten() -> None:
    client = Client("a", 100)
    unsent = owing(1, Client("a", 1))
    unsent.note(client, 0, 1.0)
    unsent.note(client, 0, 1.0)
    unsent.tick(1000.0)
    assert (unsent.total, client.is_cut) == (1, False)
