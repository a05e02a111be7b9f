"""What is done in one turn of the loop, on wires that only remember."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.turns import GET, OK, Read, served
from support.wire import Side

from gateway.downstream.http1 import DownstreamHttp1
from gateway.downstream.http2 import DownstreamHttp2
from gateway.http.http2 import ANSWERED, TURN, Http2Connection
from gateway.http.http2_frames import ACK, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame
from gateway.transport.turns import MUCH, Turns
from gateway.upstream.bulk_body import SHARED, SIZE, BulkReader
from gateway.upstream.http1 import Http1UpstreamConnection

MISSING = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 << 20)
ROUND = b"x" * Turns.OCTETS  # all that a turn has


class Asker:
    """The user of a backend's connection, who takes whatever comes."""

    answers = None
    head_only = wants_payload = False
    is_sent = True
    taken = 0

    def promote(self) -> Asker:
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


def reading(side: Side) -> tuple[Http1UpstreamConnection, Asker, Read]:
    """A backend's connection in the middle of a large answer."""
    side.backend("b")
    connection, user, wire = Http1UpstreamConnection(side.pools["b"]), Asker(), Read()
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
        side.turns.wait(lambda: None, Read())  # type: ignore[arg-type]
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


UNREADABLE = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc-web-text\r\nContent-Length: 4\r\n\r\n!!!!"


def backend_of(client: DownstreamHttp1) -> Any:
    """The connection to the backend of the request under way."""
    return client.peer or (client._exchange and client._exchange.peer)


def answer(client: DownstreamHttp1, data: bytes = OK) -> None:
    """The backend of the request under way answers."""
    backend_of(client).data_received(data)


async def test_no_more_is_kept_for_a_request_that_waited_for_a_connection() -> None:
    side, client, wire = served()
    side.pools["b"].idle.clear()
    client.data_received(GET * 9000)
    kept = len(client._buffer)
    for _ in range(12):
        exchange, connection = client._exchange, Http1UpstreamConnection(side.pools["b"])
        connection.connection_made(Read())  # type: ignore[arg-type]
        connection.user = exchange
        exchange.connected(connection)  # type: ignore[union-attr]
        assert not wire.is_read
        connection.data_received(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await settled(side)
    assert len(client._buffer) == kept - 12 * len(GET)


async def test_requests_that_are_answered_as_their_bodies_end_have_turns_as_well() -> None:
    side, client, wire = served(grpc=True)
    client.data_received(UNREADABLE * 400)
    assert len(wire.sent) == 1
    await settled(side)
    assert len(wire.sent) == 400
    assert all(b"grpc-status" in one.lower() for one in wire.sent)


async def test_who_has_said_all_is_answered_all_and_closed() -> None:
    """A client that closes its half, with two bodies behind a request under way."""
    side, client, wire = served(grpc=True)
    client.data_received(GET)
    client.data_received(UNREADABLE * 2)
    assert client.eof_received()
    answer(client)
    await settled(side)
    assert [b"grpc-status" in one.lower() for one in wire.sent] == [False, True, True]
    assert wire.closed


@pytest.mark.parametrize("chunks", [100, 1000])
async def test_who_has_said_all_is_heard_in_several_turns(chunks: int) -> None:
    side, client, wire = served()
    client.data_received(GET)
    client.data_received(
        GET.replace(b"GET", b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"
    )
    assert client.eof_received()
    answer(client)
    await settled(side)
    assert not wire.closed
    answer(client)
    assert [one[9:12] for one in wire.sent] == [b"200", b"200"]
    assert wire.closed


async def test_whose_request_is_cut_is_closed_after_several_turns() -> None:
    side, client, wire = served()
    client.data_received(GET)
    client.data_received(GET.replace(b"GET", b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000)
    assert client.eof_received()
    answer(client)
    await settled(side)
    assert wire.closed


async def test_who_has_said_all_and_took_the_last_answer_slowly_is_closed() -> None:
    side, client, wire = served()
    client.data_received(GET)
    assert client.eof_received()
    client.pause_writing()
    answer(client)
    assert not wire.closed
    client.resume_writing()
    await settled(side)
    assert wire.closed


async def test_a_large_answer_in_chunks_has_its_share() -> None:
    side, client, _ = served()
    client.data_received(GET)
    peer = backend_of(client)
    wire = peer._transport = Read()
    peer.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5f5e0ff\r\n")
    for _ in range(4):
        assert wire.is_read
        peer.data_received(ROUND[: len(ROUND) // 4])
    peer.data_received(ROUND[: len(ROUND) // 4])
    assert not wire.is_read
    await settled(side)
    assert wire.is_read


async def test_what_waits_for_a_frame_s_head_is_kept_alone() -> None:
    side = Side([])
    client, wire = DownstreamHttp2(side.listener_port), Read()
    client.connection_made(wire)  # type: ignore[arg-type]
    client.data_received(PREFACE + frame(SETTINGS, 0, 0))
    client.data_received(frame(0xBE, 0, 0, b"z" * 4000) * 64 + b"\0")
    await settled(side)
    assert client._buffer == b"\0"


async def test_what_a_turn_raises_ends_its_connection_and_not_the_turns_of_others() -> None:
    turns, ended, other = Turns(), Read(), Read()
    raised: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))

    def fails() -> None:
        raise LookupError

    done: list[bool] = []
    turns.wait(fails, ended)  # type: ignore[arg-type]
    turns.wait(lambda: done.append(True), other)  # type: ignore[arg-type]
    while turns._waiting:
        await asyncio.sleep(0)
    assert ended.closed
    assert done == [True]
    assert not other.closed
    assert [type(one) for one in raised] == [LookupError]


async def test_a_connection_of_http2_waits_for_one_turn_at_a_time() -> None:
    """However often it is held and let go while it waits."""
    side = Side([])
    client, wire = DownstreamHttp2(side.listener_port), Read()
    client.connection_made(wire)  # type: ignore[arg-type]
    client.data_received(PREFACE + frame(SETTINGS, 0, 0))
    client.data_received(frame(0xBE, 0, 0) * 200)
    for _ in range(5):
        client._is_held = True
        client.pause_writing()
        client.resume_writing()
    assert len(side.turns._waiting) == 1


async def test_a_stream_that_is_reset_ends_the_turn() -> None:
    side = Side([])
    client, wire = DownstreamHttp2(side.listener_port), Read()
    client.connection_made(wire)  # type: ignore[arg-type]
    client.data_received(PREFACE + frame(SETTINGS, 0, 0))
    said = len(wire.sent)
    client.data_received(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x87") + frame(PING, 0, 0, b"x" * 8))
    assert frame(RST_STREAM, 0, 1, b"\0\0\0\1") in wire.sent[said:]
    assert frame(PING, ACK, 0, b"x" * 8) not in wire.sent
    await settled(side)
    assert frame(PING, ACK, 0, b"x" * 8) in wire.sent


async def test_who_has_passed_all_on_holds_no_buffer() -> None:
    """A client that takes nothing of a stream's content costs what it owes, and nothing besides."""
    _, client, front = served()
    client.data_received(GET)
    peer = backend_of(client)
    wire = peer._transport = Read()
    borrowed: list[BulkReader] = []
    wire.set_protocol = borrowed.append  # type: ignore[method-assign, assignment]
    peer.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n" + b"y" * 1000)
    (bulk,) = borrowed
    assert bulk.get_buffer(-1).nbytes == SIZE
    bulk.buffer_updated(5000)
    assert bulk._view is None
    # A client that is behind after every write, and has caught up before the next read: one buffer does.
    for _ in range(3):
        front.get_write_buffer_size = lambda: 1  # type: ignore[method-assign]
        view = bulk.get_buffer(-1)
        bulk.buffer_updated(view.nbytes)
        kept = bulk._view
        assert kept is not None
        front.get_write_buffer_size = lambda: 0  # type: ignore[method-assign]
        assert bulk.get_buffer(-1).obj is kept.obj
    # One that never catches up: what is full is its transport's, and no longer ours.
    front.get_write_buffer_size = lambda: 1  # type: ignore[method-assign]
    bulk.buffer_updated(SIZE)
    other = bulk.get_buffer(-1)
    assert other.nbytes == SIZE
    assert other.obj is not kept.obj


async def test_a_backend_of_http2_that_ends_streams_early_keeps_its_turn() -> None:
    """Its connection is that of many clients."""
    side = Side([])
    client, link = DownstreamHttp2(side.listener_port), Http2Connection(65536, side.listener_port.clock)
    client.connection_made(Read())  # type: ignore[arg-type]
    link.write = lambda data: None
    for one, left in ((client, 0), (link, TURN - ANSWERED)):
        one.turn = TURN
        one.say_reset(1, 8)
        assert one.turn == left
