"""When a connection to a backend may be used again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.wire import Side

from gateway.snapshot import Attachment, Match, Order, Rule, Target
from gateway.upstream.internal_request import answer_to

RULE = Rule("r", Order(), (Attachment("l", ""),), (Match(),), (), (Target(1, "b"),))


@pytest.mark.parametrize("left", [0, 1])
async def test_not_with_a_request_that_is_still_to_be_taken(left: int) -> None:
    """A backend answers early and reads on slowly: whatever was sent next would wait behind the rest of that request."""
    side = Side([RULE], shortcuts=False)
    (client, wire) = side.connect()
    side.refill("b")
    pool = side.pools["b"]
    (upstream,) = pool.idle
    backend: Any = upstream._transport
    backend.get_write_buffer_size = lambda: left
    client.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    assert b"hello" in b"".join(backend.sent)
    upstream.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert b"200 OK" in b"".join(wire.sent)
    assert (len(pool.idle), backend.closed) == ((1, ""), (0, "aborted"))[left]


async def test_an_answer_that_comes_as_its_question_is_called_off() -> None:
    """A health check or a filter's call ends with what asked for it; its answer may be on its way in that very turn."""
    side = Side([RULE])
    side.refill("b")
    (upstream,) = side.pools["b"].idle
    question = asyncio.create_task(answer_to(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", side.pools["b"], 5, most=100))
    while upstream.user is None:
        await asyncio.sleep(0)
    question.cancel()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(asyncio.CancelledError):
        await question
