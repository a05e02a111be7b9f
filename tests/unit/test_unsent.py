"""Who gives way where clients have not taken too much."""

from __future__ import annotations

from gateway.unsent import PATIENCE, Unsent


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


def owing(*clients: Client) -> Unsent:
    made = Unsent()
    for client in clients:
        made.note(client, client.size, 0.0)
    return made


def test_nobody_is_cut_below_the_limit_or_without_one() -> None:
    clients = [Client("a", 100), Client("b", 100)]
    owing(*clients).tick(1000.0, 200)
    owing(*clients).tick(1000.0, 0)
    assert not any(client.is_cut for client in clients)


def test_the_address_that_owes_most_goes_first_and_no_further_than_needed() -> None:
    one, first, second, third = Client("b", 150), Client("a", 100), Client("a", 100), Client("a", 100)
    unsent = owing(one, first, second, third)
    unsent.tick(PATIENCE, 300)
    assert [client.is_cut for client in (one, first, second, third)] == [False, True, True, False]
    assert unsent.total == 250


def test_who_takes_something_stays() -> None:
    slow, dead = Client("a", 100), Client("a", 100)
    unsent = owing(slow, dead)
    for second in range(1, 30):
        slow.size -= 1
        unsent.tick(float(second), 100)
        assert dead.is_cut == (second >= PATIENCE)
    assert not slow.is_cut


def test_who_has_taken_all_is_forgotten() -> None:
    client = Client("a", 100)
    unsent = owing(client)
    unsent.note(client, 0, 1.0)
    unsent.note(client, 0, 1.0)
    assert unsent.total == 0
    unsent.tick(1000.0, 1)
    assert not client.is_cut
