"""Filters that run on the worker's own loop, watched: one that does not come back is interrupted where it stands.

A thread looks every few milliseconds whether the call that is running has been for too long; if so it sends a signal to
the main thread, whose handler, between two lines of the filter, makes sure that it is still the same call and raises.
The request path pays two assignments a call.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Awaitable, Generator
from typing import Any, Final

LOOK: Final = 0.02  # seconds between two looks
SIGNAL: Final = signal.SIGUSR2


class StalledError(BaseException):  # not an Exception: a filter that catches all of those must not catch this
    """A filter has kept everybody waiting for as long as it may."""


class Watchdog:
    """What is running on this process's loop; one for the process."""

    def __init__(self) -> None:
        self.running: object | None = None  # a new one for each call
        self.patience = 1.0
        self._suspect: object | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch; in the main thread, where signals arrive."""
        if self._thread is not None or threading.current_thread() is not threading.main_thread():
            return
        signal.signal(SIGNAL, self._interrupt)
        self._thread = threading.Thread(target=self._look, args=(threading.get_ident(),), name="watch", daemon=True)
        self._thread.start()

    def _look(self, main: int) -> None:
        seen: object | None = None
        since = 0.0
        while True:
            time.sleep(LOOK)
            running = self.running
            if running is None or running is not seen:
                seen, since = running, time.monotonic()
            elif time.monotonic() - since > self.patience:
                # Once, then not before as long again: who handles the first must not be struck by a second.
                self._suspect, since = running, time.monotonic()
                with contextlib.suppress(ProcessLookupError):
                    signal.pthread_kill(main, SIGNAL)

    def _interrupt(self, *_: object) -> None:
        suspect, self._suspect = self._suspect, None
        if self.running is not None and self.running is suspect:
            raise StalledError


watch: Final = Watchdog()


class Watched:
    """Something that a filter does later: each of its steps on the loop is watched like a call."""

    __slots__ = ("_what",)

    def __init__(self, what: Awaitable[Any]) -> None:
        self._what = what

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._what.__await__()
        step, given = steps.send if hasattr(steps, "send") else (lambda _: next(steps)), None
        while True:
            watch.running = object()
            try:
                waits_for = step(given)
            except StopIteration as done:
                return done.value
            finally:
                watch.running = None
            try:
                given = yield waits_for
                step = steps.send if hasattr(steps, "send") else (lambda _: next(steps))
            except BaseException as error:
                if not hasattr(steps, "throw"):
                    raise
                step, given = steps.throw, error
