"""What is done in one turn of the loop, on wires that only remember."""

from __future__ import annotations

import asyncio

from conversing import Side, Wire

from gateway.bulk import SHARED, SIZE
from gateway.turns import MUCH, Turns
from gateway.upstream import Upstream

MISSING = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 << 20)
ROUND = b"x" * Turns.OCTETS  # all that a turn has


class Read(Wire):
    """A transport that is read, or not for now."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class Asker:
    """The user of a backend's connection, who takes whatever comes."""

    answers = None
    head_only = wants_payload = False
    is_sent = True
    taken = 0

    def in_full(self) -> Asker:
        return self

    def response(self, response: object, head: bytes) -> None: ...
    def flush(self) -> None: ...
    def owes(self) -> int:
        return 0

    def response_data(self, data: bytes) -> None:
        self.taken += len(data)

    continued = response_data

    def response_end(self) -> None: ...


async def test_of_what_is_sent_ahead_one_request_a_turn_is_answered() -> None:
    """The first of each connection comes with its bytes; the others wait, whoever has sent them."""
    side = Side([])
    wires = []
    for _ in range(4):
        client, wire = side.connect()
        wires.append(wire)
        client.data_received(MISSING * 3)
    answered = [sum(len(wire.sent) for wire in wires)]
    for _ in range(8):
        await asyncio.sleep(0)
        answered.append(sum(len(wire.sent) for wire in wires))
    assert answered == [4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert [len(wire.sent) for wire in wires] == [3] * 4


def reading(side: Side) -> tuple[Upstream, Asker, Read]:
    """A backend's connection in the middle of a large answer."""
    side.backend("b")
    connection, user, wire = Upstream(side.pools["b"]), Asker(), Read()
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.user = user  # type: ignore[assignment]
    connection.data_received(LARGE + b"x")
    return connection, user, wire


async def test_of_large_answers_a_share_is_read_each_turn() -> None:
    side = Side([])
    answers = [reading(side) for _ in range(4)]
    for connection, _, _ in answers:
        assert connection.bulk(memoryview(ROUND))
    assert [wire.is_read for _, _, wire in answers] == [True, False, False, False]
    for read in (2, 3, 4):
        await asyncio.sleep(0)
        assert [wire.is_read for _, _, wire in answers] == [True] * read + [False] * (4 - read)
    assert {user.taken for _, user, _ in answers} == {len(ROUND) + 1}


async def test_who_is_alone_is_read_each_turn() -> None:
    side = Side([])
    connection, _, wire = reading(side)
    for _ in range(6):
        connection.bulk(memoryview(ROUND))
        assert wire.is_read
        await asyncio.sleep(0)


async def test_where_many_wait_whoever_has_much_to_be_read_waits_with_them() -> None:
    side = Side([])
    connection, _, wire = reading(side)
    assert connection.share() == SIZE
    for _ in range(Turns.CROWD):
        side.turns.wait(lambda: None)
    assert connection.share() == SHARED
    assert connection.bulk(memoryview(b"x" * (MUCH - 1)))
    assert wire.is_read
    assert connection.bulk(memoryview(b"x" * MUCH))
    assert not wire.is_read
    connection.pause_reading()
    connection.resume_reading()
    assert not wire.is_read
    await settled(side)
    assert wire.is_read


async def test_whose_client_takes_nothing_is_not_read_when_it_is_due() -> None:
    side = Side([])
    (first, _, _), (second, _, wire) = reading(side), reading(side)
    first.bulk(memoryview(ROUND))
    second.bulk(memoryview(ROUND))
    second.pause_reading()
    await asyncio.sleep(0)
    assert not wire.is_read
    second.resume_reading()
    assert wire.is_read


async def test_whose_client_catches_up_before_it_is_due_waits_for_that() -> None:
    side = Side([])
    (first, _, _), (second, _, wire) = reading(side), reading(side)
    first.bulk(memoryview(ROUND))
    second.bulk(memoryview(ROUND))
    second.pause_reading()
    second.resume_reading()
    assert not wire.is_read
    await asyncio.sleep(0)
    assert wire.is_read


async def test_of_large_requests_a_share_is_read_each_turn() -> None:
    side = Side([])
    clients = []
    for _ in range(4):
        client, _ = side.connect()
        client._transport = Read()  # type: ignore[assignment]
        client._body, client._exchange = 8 << 20, Taking()  # type: ignore[assignment]
        clients.append(client)
    for client in clients:
        client.data_received(ROUND)
    assert [client._transport.is_read for client in clients] == [True, False, False, False]  # type: ignore[attr-defined]
    for read in (2, 3, 4):
        await asyncio.sleep(0)
        assert [client._transport.is_read for client in clients] == [True] * read + [False] * (4 - read)  # type: ignore[attr-defined]


class Taking:
    """An exchange that takes a request's body."""

    request_done = False

    def data(self, data: bytes) -> None: ...


async def test_what_comes_while_a_request_that_was_sent_ahead_has_not_had_its_turn() -> None:
    """It is what follows that one, however it is cut."""
    side = Side([])
    for cut in range(1, len(MISSING)):
        client, wire = side.connect()
        client.data_received(MISSING * 2 + MISSING[:cut])
        client.data_received(MISSING[cut:] + MISSING)
        await settled(side)
        assert [answer[:12] for answer in wire.sent] == [b"HTTP/1.1 404"] * 4
        assert not wire.closed


async def test_what_is_sent_ahead_is_read_when_what_came_before_has_been_answered() -> None:
    """A client cannot have more of it kept by being answered."""
    side = Side([])
    client, _ = side.connect()
    wire = client._transport = Read()  # type: ignore[assignment]
    client.write = wire.write
    client.data_received(MISSING * 3000)
    while client._buffer:
        assert not wire.is_read
        assert len(client._buffer) < 3000 * len(MISSING)
        await asyncio.sleep(0)
    assert len(wire.sent) == 3000
    assert wire.is_read
    client.data_received(MISSING * 2999 + MISSING[:-1])
    await settled(side)
    assert wire.is_read  # for the end of the last one
    client.data_received(MISSING[-1:])
    assert len(wire.sent) == 6000


async def settled(side: Side) -> None:
    while side.turns._waiting:
        await asyncio.sleep(0)
