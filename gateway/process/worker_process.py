"""The parent's end of one worker: what it is told, what it answers, and whether it does.

A worker that says nothing for ten beats, that does not get on with a change for thirty, or that says what is no message is
ended here; whoever waits for an answer of it is told that there will be none.

Time is counted in beats of the parent's own loop, not by a clock: where the whole machine or the parent itself stood still,
no worker is to blame, and no beats went by.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, TypeVar

from gateway.process import messages
from gateway.process.messages import Applied, AskStatistics, Drain, Ping, Pong, Ready, Statistics
from gateway.snapshot import Change
from gateway.transport import framing

BEAT: Final = 1.0  # seconds between two pings
SILENT: Final = 2  # beats without an answer after which others do not wait for it
MISSED: Final = 10  # beats without an answer after which it is ended
STUCK: Final = 30  # beats without a step forward, while a change is under way or while it starts, after which it is ended
LAST_WORDS: Final = 0.2  # seconds to write down where it stands before it is ended
GOING: Final = 2.0  # seconds that its process may take to end by itself once its line is closed

T = TypeVar("T")
Reason: TypeAlias = Literal["ended", "silent", "stuck", "nonsense", "unstartable"]


class WorkerProcess:
    """One worker. `outcome`s are futures: what it answered, or None where it ended first."""

    def __init__(
        self, index: int, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.index = index
        self.process = process
        self.on_ready: Callable[[], None] = lambda: None
        self.is_in_force = False  # it was brought up to date once
        self.is_tasting = False  # it has been given what may end it
        self.is_whole = True  # it was given all that is in force, not only what is no longer doubted
        self.statistics: Statistics | None = None  # the last it sent
        self.reason: Reason = "ended"
        self.words = ""
        self._reader = reader
        self._writer = writer
        self._is_ready = False
        self._is_leaving = False
        self._is_over = False
        # What it was asked and has not answered.
        self._changes: deque[tuple[str, asyncio.Future[Applied | None]]] = deque()
        self._asked: asyncio.Future[Statistics | None] | None = None
        self._pinged: asyncio.Future[Pong | None] | None = None
        self._number = 0
        # How it gets on.
        self._missed = 0
        self._steps = 0
        self._standing = 0  # beats since it made a step

    @property
    def is_silent(self) -> bool:
        """Whether nobody should wait for it."""
        return self._missed >= SILENT

    # --- what it is told ---

    def apply(self, change: Change) -> asyncio.Future[Applied | None]:
        """Bring it forward. Changes are taken in the order in which they are told."""
        outcome = self._future(Applied)
        if not self._is_over:
            self._changes.append((change.version, outcome))
            self._writer.write(messages.change(change))
        return outcome

    def ask(self) -> asyncio.Future[Statistics | None]:
        """Its counts; one question at a time, whose answer all get who ask meanwhile."""
        if self._asked is None or self._asked.done():
            self._asked = self._future(Statistics)
            self._write(AskStatistics())
        return self._asked

    def ping(self) -> asyncio.Future[Pong | None]:
        """Whether its loop goes round; one question at a time."""
        if self._pinged is None or self._pinged.done():
            self._pinged = self._future(Pong)
            self._number += 1
            self._write(Ping(self._number))
        return self._pinged

    def leave(self, delay: float, grace: float) -> None:
        """Let it say goodbye to its clients and end; one that serves nobody yet ends at once."""
        self._is_leaving = True
        if self._is_ready:
            self._write(Drain(delay, grace))
        else:
            self.kill()

    def kill(self) -> None:
        """End it now."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    # --- its life ---

    async def run(self) -> None:
        """Until its process is over; `reason` and `words` then say why."""
        listening = asyncio.create_task(self._listen())
        beating = asyncio.create_task(self._beat())
        going = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait([listening, going], return_when=asyncio.FIRST_COMPLETED)
            if going.done():  # what it said last may still be on its way
                await asyncio.wait([listening], timeout=LAST_WORDS)
            elif not self._is_leaving:  # its line is closed: it has ended, or means to
                await asyncio.wait([going], timeout=GOING)
                self.kill()
            await going
        finally:
            self._over()
            for task in (listening, beating, going):
                task.cancel()
            await asyncio.gather(listening, beating, going, return_exceptions=True)
            self._writer.close()
            self.kill()
        if not self.words:
            self.words = f"ended with status {self.process.returncode}"

    def end(self, reason: Reason, words: str) -> None:
        """End a worker that does not answer. It writes to the log where it stands, if it still can, and is killed."""
        if self.words:
            return
        self.reason, self.words = reason, words
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGUSR1)  # faulthandler's, in the worker
            asyncio.get_running_loop().call_later(LAST_WORDS, self.kill)

    async def _listen(self) -> None:
        try:
            while True:
                self._take(await messages.read_from_worker(self._reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except ValueError as error:  # and msgspec's errors
            self.end("nonsense", f"said what is no message ({error}) and was ended")

    def _take(self, message: messages.FromWorker) -> None:
        match message:
            case Ready() if not self._is_ready and message.pid == self.process.pid:
                self._is_ready = True
                self._standing = 0
                self.on_ready()
            case Pong() if self._pinged is not None and not self._pinged.done() and message.number == self._number:
                self._missed = 0
                if message.steps != self._steps:
                    self._steps, self._standing = message.steps, 0
                self._pinged.set_result(message)
            case Applied() if self._changes and self._changes[0][0] == message.version:
                self._standing = 0
                _tell(self._changes.popleft()[1], message)
            case Statistics() if self._asked is not None and not self._asked.done():
                self.statistics = message
                self._asked.set_result(message)
            case _:
                raise ValueError(f"{type(message).__name__} that nobody asked for")

    async def _beat(self) -> None:
        """Ask it once a second whether it is there."""
        while True:
            if self._is_ready and not self._is_leaving:
                self._missed = self._missed + 1 if self._pinged is not None and not self._pinged.done() else 0
                self.ping()
            self._standing = self._standing + 1 if self._changes or not self._is_ready else 0
            if self._missed >= MISSED:
                self.end("silent", f"has not answered for {MISSED * BEAT:g} s and was ended")
            elif self._standing >= STUCK and not self._is_leaving:
                what = "get on with a change" if self._is_ready else "come up"
                self.end("stuck", f"did not {what} for {STUCK * BEAT:g} s and was ended")
            await asyncio.sleep(BEAT)

    def _future(self, _: type[T]) -> asyncio.Future[T | None]:
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        if self._is_over:
            future.set_result(None)
        return future

    def _write(self, message: object) -> None:
        if not self._writer.is_closing():
            framing.write(self._writer, message)

    def _over(self) -> None:
        self._is_over = True
        for outcome in (*(outcome for _, outcome in self._changes), self._asked, self._pinged):
            if outcome is not None and not outcome.done():
                outcome.set_result(None)
        self._changes.clear()


def _tell(outcome: asyncio.Future[Applied | None], answer: Applied) -> None:
    if not outcome.done():
        outcome.set_result(answer)
