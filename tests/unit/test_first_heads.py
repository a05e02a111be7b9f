"""The first head of a connection is known from others, and the last one closes it, without being parsed."""

from __future__ import annotations

from typing import Any

import pytest
from support.rules import RULES
from support.wire import Side

from gateway.downstream.known_heads import RECENT
from gateway.snapshot import Limits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def head(value: int, *fields: str) -> bytes:
    lines = ["GET /p/1 HTTP/1.1", "Host: a.example", f"X-Id: {value}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def once(side: Side, request: bytes, reply: list[bytes], behind: bytes = b"") -> tuple[Any, ...]:
    """(by the fast path?, what the client got, how its connection ended) of a connection with one request."""
    is_short, (_, sent, closed, *_) = side.ask(*side.connect(), request, reply, behind)
    return is_short, sent, closed


def test_the_third_connection_of_a_client_that_makes_one_for_each_request() -> None:
    side = Side(RULES)
    found = [once(side, head(number), [OK]) for number in range(4)]
    assert [is_short for is_short, _, _ in found] == [False, False, True, True]
    assert {sent for _, sent, _ in found} == {OK}


@pytest.mark.parametrize(
    "reply",
    [[OK], [OK[:-1], OK[-1:]], [OK[:-2], OK[-2:-1], OK[-1:]], [OK[:9], OK[9:]]],
    ids=["whole", "in-two", "in-three", "its-head-in-two"],
)
@pytest.mark.parametrize("behind", [b"", b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["alone", "another-behind"])
def test_a_request_that_closes(reply: list[bytes], behind: bytes) -> None:
    side = Side(RULES)
    for number in range(3):
        once(side, head(number, "Connection: close"), [OK])
    assert once(side, head(3, "Connection: close"), reply, behind) == (True, LAST, "closed")


def test_heads_of_responses_that_vary() -> None:
    side = Side(RULES)
    for number in range(6):
        reply = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "%d"\r\n\r\nok' % number
        found = once(side, head(number, "Connection: close"), [reply])
    assert found == (True, reply.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), "closed")


def test_who_closes_and_who_does_not_are_told_apart() -> None:
    """The same fields, and one answer known of both: neither is given the other's."""
    side = Side(RULES)
    for number in range(8):
        kept = once(side, head(number, "Connection: keep-alive"), [OK])
        closed = once(side, head(number, "Connection: close"), [OK])
    assert kept == (True, OK, "")
    assert closed == (True, LAST, "closed")


def test_a_head_that_closes_in_the_middle_of_a_connection() -> None:
    side = Side(RULES)
    for number in range(3):
        once(side, head(number, "Connection: close"), [OK])
    client, wire = side.connect()
    for number in range(3):
        assert side.ask(client, wire, head(number), [OK])[1][1:3] == (OK, "")
    assert side.ask(client, wire, head(9, "Connection: close"), [OK])[1][1:3] == (LAST, "closed")


def test_clients_of_many_kinds_find_their_own() -> None:
    side = Side(RULES)
    for kind in range(RECENT):
        for number in range(3):
            once(side, head(number, f"X-Kind-{kind}: 1"), [OK])
    assert all(once(side, head(9, f"X-Kind-{kind}: 1"), [OK])[0] for kind in range(RECENT))


def test_values_that_differ_between_clients_become_slots() -> None:
    side = Side(RULES)
    for number in range(4):
        once(side, head(number, f"User-Agent: agent/{number}"), [OK])
    is_short, (sent, *_) = side.ask(*side.connect(), head(7, "User-Agent: another"), [OK])
    assert is_short
    assert any(b"\r\nUser-Agent: another\r\n" in data for data in sent.values())


def test_nothing_is_known_of_a_limited_number_of_requests() -> None:
    side = Side(RULES)
    side.listener_port.limit(Limits(requests_per_connection=1))
    found = [once(side, head(number), [OK]) for number in range(4)]
    assert found == [(False, LAST, "closed")] * 4


def test_a_port_that_drains_closes_by_the_slow_path() -> None:
    side = Side(RULES)
    for number in range(4):
        once(side, head(number), [OK])
    side.listener_port.drain()
    assert once(side, head(5), [OK]) == (False, LAST, "closed")
