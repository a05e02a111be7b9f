"""A worker's end of the line to a filter's process: frames as they come, as many as the process has credit for.

Work on what came is cut into slices, between which everybody else has a turn. While the process owes too much, does not
read what it is sent, or has too much under way, it is not read; who goes on like that, begins a frame and does not end it,
or sends what is none, is cut off, with a reason.

A short frame is copied out of the buffer that all of them are read into. A long one is read into pages of its own, which
the kernel hands out one by one as it comes: nothing is copied, and nothing moved, at once when its last octet is there.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from gateway.scripting.sandbox.credit import SAVED, Credit
from gateway.scripting.sandbox.messages import LONGEST_SAID
from gateway.transport import framing

SLICE: Final = 0.0005  # seconds of work at a time
PATIENCE: Final = 3.0  # seconds that a process is not heard, all in all, before it is cut off; forgotten once it has saved some
CALLED: Final = 0.1  # of that, while somebody waits for its answers: it may have much to do, and is made to wait itself
ENDING: Final = 5.0  # seconds from a frame's first octet to its last, and for reading what waits
ROOM: Final = 1 << 16  # octets of the buffer; a frame that does not fit has pages of its own
FULL: Final = 1 << 20  # octets that wait for the process
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.001, 0.05  # seconds


class Line(asyncio.BufferedProtocol):
    """The worker's end of the line to a filter's process.

    `take` is given each message and returns what it costs at least; `ended` is called once.
    """

    def __init__(
        self,
        credit: Credit,
        take: Callable[[bytes | memoryview], float],
        ended: Callable[[str, bool], None],
        is_called: Callable[[], bool] = lambda: False,
    ) -> None:
        self._credit = credit
        self._is_called = is_called
        self._take = take
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._buffer = memoryview(bytearray(ROOM))
        self._filled = 0  # octets in it
        self._long: memoryview | None = None  # a frame that does not fit
        self._long_filled = 0
        self._holding: set[str] = set()  # why it is not read
        self._is_reading = True
        self._room: asyncio.Future[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None
        self._deadline: asyncio.TimerHandle | None = None  # of a frame that has begun
        self._hurry: asyncio.TimerHandle | None = None  # of what waits to be read
        self._unheard = 0.0
        self._reason = ""
        self._is_forced = False
        self.is_closing = False

    # --- towards the process ---

    def write(self, message: Any) -> None:
        """Say something, unless nobody is there any more."""
        if not self.is_closing:
            self._transport.write(framing.framed(message))

    async def wait_room(self) -> None:
        """While more waits for the process than it should."""
        while "full" in self._holding and not self.is_closing:
            if self._room is None:
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)

    def charge(self, seconds: float) -> None:
        """Charge the process for what it was given, besides what it said."""
        self._credit.charge(seconds, perf_counter())

    def close(self) -> None:
        """Say nothing more."""
        self.is_closing = True
        self._transport.close()

    def cut(self, reason: str) -> None:
        """Cut the line: the process has broken the rules."""
        self._reason, self._is_forced = self._reason or reason, True
        self.is_closing = True
        self._transport.abort()

    def pause_writing(self) -> None:
        self._hurry = self._loop.call_later(ENDING, self.cut, "it does not read what it is sent")
        self.hold("full")

    def resume_writing(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
        self.release("full")
        self._make_room()

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # --- from it ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self._filled, self._long = 0, None
        for timer in (self._again, self._deadline, self._hurry):
            if timer is not None:
                timer.cancel()
        self._make_room()
        self._ended(self._reason, self._is_forced)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._filled :] if self._long is None else self._long[self._long_filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._long is None:
            self._filled += nbytes
        else:
            self._long_filled += nbytes
            if self._long_filled < len(self._long):
                return
        self._work()

    def hold(self, why: str) -> None:
        """Do not read it for now."""
        self._holding.add(why)
        self._listen(False)

    def release(self, why: str) -> None:
        """Read it again, unless there is another reason not to."""
        if why in self._holding:
            self._holding.discard(why)
            self._soon()

    def _soon(self) -> None:
        """Go on when others have had their turn."""
        if self._turn is None:
            self._turn = self._loop.call_soon(self._work)

    def _listen(self, wanted: bool) -> None:
        if wanted != self._is_reading and not self.is_closing:
            self._is_reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _work(self) -> None:
        """Take what has come, for as long as a slice lasts."""
        self._turn = None
        if self._holding or self.is_closing:
            return
        began = perf_counter()
        at, least, taken = 0, 0.0, 0
        while not self._holding and (message := self._next(at)) is not None:
            try:
                least += self._take(message)
            except Exception as error:  # whatever it was, it came of what the process said
                self.cut(f"it sent what nobody understands ({type(error).__name__}: {error})")
            if self.is_closing:
                return
            taken += 1
            if self._long is not None:
                self._long = None
            else:
                at += 4 + len(message)
            del message  # the pages of a long one are given back in here, and paid for
            if perf_counter() - began >= SLICE:
                break
        self._filled -= at
        if at and self._filled:
            self._buffer[: self._filled] = self._buffer[at : at + self._filled]
        now = perf_counter()
        self._credit.charge(max(now - began, least), now)
        self._go_on(now, bool(taken))

    def _next(self, at: int) -> bytes | memoryview | None:
        """The message of the frame that begins there in the buffer, or of the long one; None where it has not come yet."""
        if self._long is not None:
            return self._long if self._long_filled == len(self._long) else None
        size = self._size(at)
        if size is None or self._filled - at < 4 + size:
            return None
        return bytes(self._buffer[at + 4 : at + 4 + size])

    def _size(self, at: int) -> int | None:
        """Octets of the message that begins there; None where its length has not come yet."""
        if self._filled - at < 4:
            return None
        size = int.from_bytes(self._buffer[at : at + 4], "big")
        if size > LONGEST_SAID:
            self.cut(f"it sent what nobody understands (a message of {size} bytes)")
            return None
        return size

    def _go_on(self, now: float, has_taken: bool) -> None:
        """Read on at once, when others have had their turn, or when it may be heard again."""
        has_more = self._has_more()
        if self.is_closing:
            return
        if has_taken or self._deadline is None:
            self._expect(self._filled > 0 or self._long is not None)
        wait = self._credit.wait(now)
        if self._credit.owed <= -SAVED / 2:
            self._unheard = 0.0
        if wait:
            wait = min(max(wait, MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)
            self._unheard += wait * CALLED if self._is_called() else wait
            if self._unheard > PATIENCE:
                self.cut("it says more than there is time to listen to")
                return
            self.hold("credit")
            self._again = self._loop.call_later(wait, self.release, "credit")
        elif has_more:
            self._listen(False)
            self._soon()
        else:
            self._listen(not self._holding)

    def _has_more(self) -> bool:
        """Whether the next frame is there as a whole. One that has only begun, and is long, gets its pages."""
        if self._long is not None:
            return self._long_filled == len(self._long)
        size = self._size(0)
        if size is not None and 4 + size > ROOM:
            begun = self._filled - 4
            self._long, self._long_filled = memoryview(mmap.mmap(-1, size)), begun
            self._long[:begun] = self._buffer[4 : self._filled]
            self._filled = 0
            return False
        return size is not None and self._filled >= 4 + size

    def _expect(self, rest: bool) -> None:
        """A frame that has begun must come to its end."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(ENDING, self._late) if rest else None

    def _late(self) -> None:
        if self._holding:  # it was not read
            self._deadline = self._loop.call_later(ENDING, self._late)
        else:
            self.cut("it began a message and did not end it")
