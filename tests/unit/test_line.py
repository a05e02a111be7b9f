"""A worker's end of the line to a filter's process: frames, whatever pieces they come in."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.scripting.sandbox.credit import Credit
from gateway.scripting.sandbox.line import ROOM, Line
from gateway.scripting.sandbox.messages import LONGEST_SAID


class Transport(asyncio.Transport):
    """Notes whether it is read, and its end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True
        self.is_cut = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def abort(self) -> None:
        self.is_cut = True


class Process:
    """Says something, in pieces of a size, for as long as it is heard."""

    def __init__(self, cost: float = 0.0) -> None:
        self.messages: list[bytes | memoryview] = []
        self.transport = Transport()
        self.line = Line(Credit(1.0), self._take, lambda *_: None)
        self.line.connection_made(self.transport)
        self._cost = cost

    def _take(self, data: bytes | memoryview) -> float:
        self.messages.append(data)
        return self._cost

    async def say(self, data: bytes, piece: int) -> None:
        view = memoryview(data)
        while view and not self.transport.is_cut:
            if not self.transport.is_read:
                await asyncio.sleep(0)
                continue
            buffer = self.line.get_buffer(-1)
            assert len(buffer)  # or uvloop ends the connection
            size = min(len(buffer), len(view), piece)
            buffer[:size] = view[:size]
            self.line.buffer_updated(size)
            view = view[size:]
        while not self.transport.is_read and not self.transport.is_cut:  # the last slice has its turn
            await asyncio.sleep(0)


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


# Around what fits into the buffer, and what does not.
SIZES = [
    0,
    1,
    3,
    ROOM - 5,
    ROOM - 4,
    ROOM - 3,
    ROOM,
    ROOM + 1,
    3 * ROOM,
    0,
    0,
    1 << 20,
    7,
    ROOM - 4,
    ROOM - 4,
    2 * ROOM,
    2 * ROOM,
    1,
]


@pytest.mark.parametrize("piece", [1021, ROOM - 1, ROOM, ROOM + 1, 1 << 18, 1 << 22])
async def test_what_is_said_is_heard_in_whatever_pieces_it_comes(piece: int) -> None:
    said = [random.Random(size).randbytes(size) for size in SIZES]
    process = Process()
    await process.say(b"".join(map(frame, said)), piece)
    assert [bytes(one) for one in process.messages] == said
    assert process.transport.is_read
    assert not process.transport.is_cut


async def test_a_message_stays_what_it_is_when_others_come_after_it() -> None:
    process = Process()
    await process.say(frame(b"a" * 100) + frame(b"b" * 2 * ROOM), 1 << 22)
    kept = list(process.messages)
    await process.say((frame(b"c" * 100) + frame(b"d" * 2 * ROOM)) * 3, 1 << 22)
    assert kept == [b"a" * 100, b"b" * 2 * ROOM]


async def test_a_length_alone_takes_no_memory_and_has_a_bound() -> None:
    process = Process()
    await process.say(frame(b"")[:3], 3)
    assert not process.messages
    assert process.transport.is_read
    process = Process()
    await process.say(LONGEST_SAID.to_bytes(4, "big"), 4)
    assert len(process.line.get_buffer(-1)) == LONGEST_SAID
    process = Process()
    await process.say((LONGEST_SAID + 1).to_bytes(4, "big"), 4)
    assert process.transport.is_cut


async def test_who_owes_is_not_read_before_it_has_paid() -> None:
    process = Process(cost=0.15)  # of which 0.1 s are saved
    await process.say(frame(b"x") * 2, 10)
    assert len(process.messages) == 2
    owes = Process(cost=0.15)
    view = owes.line.get_buffer(-1)
    view[:5] = frame(b"x")
    owes.line.buffer_updated(5)
    assert len(owes.messages) == 1
    assert not owes.transport.is_read
