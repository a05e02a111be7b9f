"""Limits of bodies hold whatever pauses there are: a pause of ours gives time back, not room."""

from __future__ import annotations

import pytest
from support.rules import RULES
from support.wire import Side

from gateway.snapshot import Limits

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"3c\r\n" + b"x" * 60 + b"\r\n"


@pytest.mark.parametrize("pause", [False, True])
async def test_a_body_in_chunks_is_counted_through_pauses(pause: bool) -> None:
    side = Side(RULES)
    side.listener_port.limit(Limits(body_bytes=100))
    client, wire = side.connect()
    client.data_received(HEAD + CHUNK)
    if pause:
        client.pause_reading()
        client.resume_reading()
    assert not wire.sent
    client.data_received(CHUNK)
    assert b"".join(wire.sent).startswith(b"HTTP/1.1 413 ")
    assert wire.closed


async def test_a_pause_of_ours_gives_the_client_its_time_back() -> None:
    side = Side(RULES)
    side.listener_port.limit(Limits(body_seconds=10, body_rate=6))
    client, _ = side.connect()
    client.data_received(HEAD + CHUNK)
    began = side.clock.now
    assert client.deadline == pytest.approx(began + 10 + len(CHUNK) / 6)
    client.pause_reading()
    assert client.deadline == pytest.approx(began + 300)
    side.clock.now = began + 100
    side.listener_port.tick()
    client.resume_reading()
    assert client.deadline == pytest.approx(began + 100 + 10)
