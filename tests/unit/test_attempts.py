"""Attempts at a backend: one is under way at a time, and none is blamed for what the client does not take."""

from __future__ import annotations

from typing import Any

from support.turns import GET, OK, Read, served

from gateway.snapshot import Retry, Timeouts
from gateway.upstream.http1 import Http1UpstreamConnection

RETRIED: dict[str, Any] = {"retry": Retry(attempts=2, backoff=60.0), "timeouts": Timeouts(backend_request=60.0)}


def connection(side: Any, exchange: Any) -> tuple[Http1UpstreamConnection, Read]:
    """One that was asked for, and is there now."""
    made, wire = Http1UpstreamConnection(side.pools["b"]), Read()
    made.connection_made(wire)  # type: ignore[arg-type]
    made.user = exchange
    return made, wire


async def test_a_connection_that_comes_while_the_next_attempt_is_awaited_is_not_wanted() -> None:
    side, client, wire = served(**RETRIED)
    side.pools["b"].idle.clear()
    client.data_received(GET)
    exchange: Any = client._exchange
    assert not exchange.abandoned
    exchange.attempt_timed_out()
    assert exchange.abandoned
    exchange._attempts.cancel()
    exchange._attempts._retry()
    assert not exchange.abandoned
    first, asked = connection(side, exchange)
    exchange.connected(first)
    assert exchange.abandoned  # the other of the two that were asked for
    first.data_received(OK)
    assert [one[9:12] for one in wire.sent] == [b"200"]
    assert b"".join(asked.sent).count(b"GET / ") == 1


async def test_a_request_that_has_become_too_long_meanwhile_is_not_sent_without_its_beginning() -> None:
    side, client, wire = served(**RETRIED)
    side.pools["b"].idle.clear()
    client.data_received(GET.replace(b"GET", b"POST")[:-2] + b"Content-Length: 900000\r\n\r\n" + b"x" * 1000)
    exchange: Any = client._exchange
    exchange.attempt_timed_out()
    client.data_received(b"x" * 200_000)
    exchange._attempts.cancel()
    exchange._attempts._retry()
    assert wire.sent[0].startswith(b"HTTP/1.1 503 ")
    assert b"too long to be sent once more" in wire.sent[0]


async def test_a_backend_is_not_blamed_while_the_client_takes_nothing() -> None:
    """It is not read, and may have answered long since."""
    side, client, wire = served(**RETRIED)
    side.pools["b"].idle.clear()
    client.data_received(GET)
    exchange: Any = client._exchange
    client.pause_writing()
    made, front = connection(side, exchange)
    exchange.connected(made)
    assert not front.is_read
    exchange.attempt_timed_out()
    assert exchange.peer is made
    assert not wire.sent
    client.resume_writing()
    assert front.is_read
    exchange.attempt_timed_out()
    assert exchange.peer is None
    exchange._attempts.cancel()
